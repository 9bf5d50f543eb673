"""Files and folders are recognised by their content, whatever their name."""

import gzip
import io
import json
import pathlib
import tarfile
import zipfile

import flax.serialization
import jax
import numpy as np
import pytest

from jaxkd import checkpoints, models
from jaxkd.checkpoints import Kind
from jaxkd.interop import contents, export, files

DATA = pathlib.Path(__file__).parent / 'data/torch'
STATE = {
  'head.weight': np.ones((3, 4), np.float32),
  'head.bias': np.zeros(3, np.float32),
}
SHAPE = 2, 2, 1
VARIABLES = {
  'params': {
    'head': {
      'kernel': np.ones((4, 3), np.float32),
      'bias': np.zeros(3, np.float32),
    }
  },
  'batch_stats': {},
}


def tar():
  file = io.BytesIO()
  with tarfile.open(fileobj=file, mode='w') as archive:
    info = tarfile.TarInfo('x')
    info.size = 3
    archive.addfile(info, io.BytesIO(b'abc'))
  return file.getvalue()


def archive(*names):
  file = io.BytesIO()
  with zipfile.ZipFile(file, 'w') as zipped:
    for name in names:
      zipped.writestr(name, b'x')
  return file.getvalue()


def array():
  file = io.BytesIO()
  np.save(file, np.ones(3))
  return file.getvalue()


# Content -> what the message says it is, and a word of the remedy.
REFUSED = {
  'empty': (b'', 'an empty file', 'get it again'),
  'lfs': (
    b'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1\n',
    'a Git LFS pointer',
    'git lfs pull',
  ),
  'page': (b'\n<!DOCTYPE html><html><body>', 'a web page', 'login'),
  'error': (b'<?xml version="1.0"?><Error><Code>NoSuchKey', 'a web page', ''),
  'json': (b'{"error": "not found"}', 'a JSON file', 'folder'),
  'text': (b'epoch 1\nloss 0.3\n', "a text file ('epoch 1", 'weights'),
  'keras': (b'\x89HDF\r\n\x1a\n\0\0', 'an HDF5 file', 'save_pretrained'),
  'keras 3': (
    archive('metadata.json', 'config.json', 'model.weights.h5'),
    'a model of Keras',
    'save_pretrained',
  ),
  'graph': (b'\x08\x01\x12\x80\x01', 'a graph of TensorFlow', ''),
  'lite': (b'\x1c\0\0\0TFL3\0\0', 'a TensorFlow Lite model', ''),
  'flax': (
    flax.serialization.to_bytes({'params': {'a': np.ones(2)}}),
    'a msgpack file',
    'save_pretrained',
  ),
  'gzip': (gzip.compress(b'abc'), 'a gzip archive', 'gunzip'),
  'tar': (tar(), 'a tar archive', 'tar -xf'),
  'zip': (archive('a/model.bin'), 'a zip archive of a/model.bin', 'unpack it'),
  'nothing zipped': (archive(), 'a zip archive of nothing', 'unpack it'),
  'torch.export': (
    archive('x/data/weights/weight_0', 'x/models/model.json'),
    'a program of torch.export',
    'state_dict',
  ),
  'array': (array(), 'a single NumPy array', 'savez'),
  'noise': (bytes(range(200, 240)), 'of an unknown format', '.safetensors'),
}
SUFFIXES = ['.pth', '.PTH', '.bin', '.npz', '.safetensors', '.onnx', '']


@pytest.mark.parametrize('kind', REFUSED)
def test_what_is_not_read_is_explained(tmp_path, kind):
  content, what, remedy = REFUSED[kind]
  for suffix in SUFFIXES:
    path = tmp_path / f'x{suffix}'
    path.write_bytes(content)
    assert checkpoints.kind_of(path) is Kind.OTHER
    for read in (checkpoints.load, checkpoints.load_card, files.read):
      with pytest.raises(ValueError) as error:
        read(path)
      message = str(error.value)
      assert message.startswith(f'{path} is {what}')
      assert remedy in message and len(message.splitlines()) == 1


FOLDERS = {  # files -> what the message says the folder is
  ('saved_model.pb',): 'a SavedModel of TensorFlow',
  ('_METADATA', 'manifest.ocdbt'): 'a checkpoint of orbax',
  ('checkpoint', 'model.ckpt.index'): 'a checkpoint of TensorFlow',
  ('data.pkl', 'data'): 'an unpacked file of PyTorch',
}


@pytest.mark.parametrize('names', FOLDERS)
def test_folders_that_are_not_read_are_explained(tmp_path, names):
  for name in names:
    (tmp_path / name).write_bytes(b'x')
  with pytest.raises(ValueError, match=f'is {FOLDERS[names]}'):
    checkpoints.load(tmp_path)


def test_the_folder_of_a_run_is_not_one_of_hugging_face(tmp_path):
  (tmp_path / 'config.json').write_text('{"epochs": 3}')
  files.write(tmp_path / 'model.safetensors', STATE, {})
  assert checkpoints.kind_of(tmp_path) is None


@pytest.fixture(scope='module')
def readable(tmp_path_factory):
  """Files that are read, by the kind that they are."""
  folder = tmp_path_factory.mktemp('readable')
  net = models.build('linear', 3)
  card = checkpoints.card_of('linear', VARIABLES, 3, SHAPE)
  checkpoints.save(folder / 'own.npz', VARIABLES, card)
  files.write(folder / 'arrays.npz', STATE, {})
  files.write(folder / 'x.safetensors', STATE, card.to_json())
  export.write_stablehlo(folder / 'x.stablehlo', net, VARIABLES, card.to_json())
  return {
    folder / 'own.npz': Kind.NETWORK,
    folder / 'arrays.npz': Kind.STATE_DICT,
    folder / 'x.safetensors': Kind.STATE_DICT,
    folder / 'x.stablehlo': Kind.PROGRAM,
    DATA / 'bfloat16': Kind.STATE_DICT,
    DATA / 'before_1_6.th': Kind.STATE_DICT,
    DATA / 'pickled.pkl': Kind.STATE_DICT,
    DATA / 'script.pt': Kind.STATE_DICT,
  }


@pytest.mark.parametrize('suffix', ['', '.pth.tar', '.ckpt', '.npz', '.onnx'])
def test_suffixes_do_not_matter(readable, tmp_path, suffix):
  for source, kind in readable.items():
    path = tmp_path / f'x{suffix}'
    path.write_bytes(source.read_bytes())
    assert checkpoints.kind_of(path) is kind, source
    if kind is Kind.NETWORK:
      assert checkpoints.load(path).card.model == 'linear'
    elif kind is Kind.STATE_DICT:
      files.read(path)
    else:
      checkpoints.load_function(path)


def test_programs_of_other_projects_are_recognised(tmp_path):
  exported = jax.export.export(jax.jit(lambda x: x + 1))(np.float32(1))
  path = tmp_path / 'x'
  for content, form in (
    (exported.mlir_module_serialized, 'stablehlo'),
    (exported.mlir_module().encode(), 'stablehlo'),
    (bytes(exported.serialize()), 'stablehlo'),
    (b'\x08\x0a\x12\x07pytorch\x1a\x05', 'onnx'),
  ):
    path.write_bytes(content)
    assert contents.of(path) == contents.Content(form)
    assert checkpoints.kind_of(path) is Kind.PROGRAM


@pytest.mark.parametrize('share', [0.3, 0.6, 0.97])
def test_files_that_are_cut_off_are_told(readable, tmp_path, share):
  for source in readable:
    content = source.read_bytes()
    path = tmp_path / 'x'
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r'x is .*cut off'):
      checkpoints.load(path)


def test_a_corrupt_header_is_told(tmp_path):
  for header in (b'{"a": 3}', b'{"a": {}}', b'{"a": '):
    path = tmp_path / 'x'
    path.write_bytes(len(header).to_bytes(8, 'little') + header)
    with pytest.raises(ValueError, match=r'a corrupt .safetensors file'):
      files.read(path)
  nested = json.dumps(
    {'a': {'dtype': 'F4', 'shape': [2], 'data_offsets': [0, 1]}}
  )
  path.write_bytes(len(nested).to_bytes(8, 'little') + nested.encode() + b'x')
  with pytest.raises(ValueError, match='numbers of type F4, in a: quantised'):
    files.read(path)
