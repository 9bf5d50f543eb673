"""What a file or a folder is, by its content and not by its name.

Only the beginning of a file, and the table of an archive, are read.
"""

import json
import pathlib
import re
import zipfile
from typing import NamedTuple

from jaxkd.disk import CARD
from jaxkd.interop import torch_file
from jaxkd.interop.export import PROGRAM

HEAD = 512  # bytes at the beginning of a file that are looked at
AGAIN = 'the download or the copy did not finish: get it again'
CONVERT = (
  'load it in the program that wrote it, and save the arrays by'
  ' jaxkd.checkpoints.save_pretrained, or as .safetensors or .npz'
)
# Folders as the Hugging Face hub leaves them.
CONFIG = 'config.json'
WEIGHTS = (
  *('model.safetensors', 'model.safetensors.index.json'),
  *('pytorch_model.bin', 'pytorch_model.bin.index.json'),
)


class Content(NamedTuple):
  """What is at a path.

  format: a key of `files.READERS`; 'network' for a network of jaxkd; 'onnx' or
    'stablehlo' for a program; '' for anything else, which is not read.
  what: it is, in words.
  remedy: what to do if it is not read.
  """

  format: str
  what: str = ''
  remedy: str = ''

  def refusal(self, path: pathlib.Path) -> str:
    """Returns the message on a path that is not read."""
    return f'{path} is {self.what}: {self.remedy}'


# The first bytes of files that are not read.
SIGNATURES = (
  (b'', 'an empty file', AGAIN),
  (
    b'version https://git-lfs.github.com/spec/',
    'a Git LFS pointer, not the file that it stands for',
    'run `git lfs pull` in its repository, or download the file itself',
  ),
  (
    b'/annex/objects/',
    'a git-annex pointer, not the file that it stands for',
    'run `git annex get` in its repository',
  ),
  (b'\x89HDF\r\n\x1a\n', 'an HDF5 file, as Keras writes (.h5)', CONVERT),
  (b'\x93NUMPY', 'a single NumPy array (.npy)', 'save several by numpy.savez'),
  (b'\x1f\x8b', 'a gzip archive', 'unpack it by `tar -xzf` or `gunzip`'),
  (b'BZh', 'a bzip2 archive', 'unpack it by `tar -xjf` or `bunzip2`'),
  (b'\xfd7zXZ\0', 'an xz archive', 'unpack it by `tar -xJf` or `unxz`'),
  (b'\x28\xb5\x2f\xfd', 'a zstd archive', 'unpack it by `unzstd`'),
  (b'7z\xbc\xaf\x27\x1c', 'a 7z archive', 'unpack it'),
  (b'Rar!', 'a rar archive', 'unpack it'),
  (b'GGUF', 'a language model (GGUF)', 'it is no image classifier'),
)
ONNX = re.compile(rb'\x08[\x02-\x20][\x12\x1a\x22\x28\x32\x3a\x42\x72\xa2]')
MSGPACK = re.compile(rb'([\x81-\x8f]|\xde..)([\xa1-\xbf]|\xd9.)', re.DOTALL)
MLIR = re.compile(rb'ML\xefR|\s*(//.*\s+)*(#\w+ =|module\b)')
HTML = re.compile(rb'\s*<(!doctype|html|\?xml|head|error)', re.IGNORECASE)


def of(path: pathlib.Path) -> Content | None:
  """Returns what is at a path; None if there is nothing to be read.

  Args:
    path: of a file or a folder.
  """
  if path.is_dir():
    return _folder(path)
  return _file(path) if path.is_file() else None


def _folder(path: pathlib.Path) -> Content | None:
  """Returns what a folder is; None for any folder without networks."""
  names = {x.name for x in path.iterdir()}
  if CARD in names:
    return Content('network')
  if (path / 'refs/main').exists() and 'snapshots' in names:
    return Content('hugging_face')
  if CONFIG in names and _is_configuration(path / CONFIG):
    if names.intersection(WEIGHTS):
      return Content('hugging_face')
    return Content(
      '',
      'a folder of Hugging Face without weights of PyTorch',
      f'it needs one of {", ".join(WEIGHTS)}',
    )
  if 'saved_model.pb' in names:
    return Content('', 'a SavedModel of TensorFlow', CONVERT)
  if names & {'_CHECKPOINT_METADATA', '_METADATA', 'manifest.ocdbt'}:
    return Content('', 'a checkpoint of orbax', CONVERT)
  if {'data.pkl', 'data'} <= names:
    return Content(
      '',
      'an unpacked file of PyTorch',
      'use the file itself, which some systems unpack after a download',
    )
  if any(x.endswith('.index') for x in names) and 'checkpoint' in names:
    return Content('', 'a checkpoint of TensorFlow', CONVERT)
  return None


def _is_configuration(path: pathlib.Path) -> bool:
  """Returns whether a file is the configuration of a network of the hub.

  A run has a `config.json`, too.
  """
  try:
    entries = json.loads(path.read_text())
  except (OSError, ValueError):
    return False
  keys = {'architectures', 'architecture', 'model_type'}
  return isinstance(entries, dict) and bool(keys & entries.keys())


def _file(path: pathlib.Path) -> Content:
  size = path.stat().st_size
  with path.open('rb') as file:
    head = file.read(HEAD)
  for begin, what, remedy in SIGNATURES:
    if head.startswith(begin) if begin else not head:
      return Content('', what, remedy)
  if head.startswith((torch_file.ZIP, b'PK\x05\x06')):
    return _archive(path, size)
  if torch_file.MAGIC in head[:32]:
    return Content('torch')
  if re.match(rb'\x80[\x02-\x05].', head, re.DOTALL):
    return Content('torch')  # a pickle, of arrays perhaps
  if head[8:9] == b'{' and int.from_bytes(head[:8], 'little') < 1 << 32:
    return _safetensors(int.from_bytes(head[:8], 'little'), size, path)
  if head[4:8] == b'TFL3':
    return Content('', 'a TensorFlow Lite model', CONVERT)
  if MLIR.match(head) or _has_stablehlo(path):
    return Content('stablehlo')
  if ONNX.match(head):
    return Content('onnx')
  if head.startswith(b'\x08\x01\x12') or re.match(rb'\n.{1,4}\n', head):
    return Content('', 'a graph of TensorFlow (.pb)', CONVERT)
  if MSGPACK.match(head):
    return Content('', "a msgpack file, as Flax's to_bytes writes", CONVERT)
  if head[257:262] == b'ustar':
    return Content('', 'a tar archive', 'unpack it by `tar -xf`')
  return _text(head)


def _has_stablehlo(path: pathlib.Path) -> bool:
  """Returns whether a file is what `jax.export` serializes."""
  with path.open('rb') as file:
    return b'ML\xefR\rStableHLO' in file.read(1 << 16)


def _text(head: bytes) -> Content:
  """Returns what a file without a known signature is."""
  if HTML.match(head):
    return Content(
      '',
      'a web page (HTML or XML), not the file that was to be downloaded',
      'open its address in a browser to see whether it asks for a login, a'
      ' licence or a confirmation',
    )
  if re.match(rb'\s*[{\[]', head):
    return Content(
      '', 'a JSON file', 'name the file of the weights, or their folder'
    )
  begin = head[:24]
  if re.fullmatch(rb'[\t\r\n -~]+', head):
    return Content(
      '', f'a text file ({begin.decode()!r} ...)', 'name the file of weights'
    )
  return Content(
    '',
    f'of an unknown format, or corrupt (it begins with {begin[:8].hex(" ")})',
    'state dicts (PyTorch, .safetensors, .npz), networks of jaxkd, .onnx and'
    ' .stablehlo files are read',
  )


def _safetensors(header: int, size: int, path: pathlib.Path) -> Content:
  """Returns what a file is that begins as .safetensors do.

  Args:
    header: bytes of the JSON that begins at byte 8.
    size: bytes of the file.
    path: of the file.
  """
  end = 8 + header
  if end <= size:
    with path.open('rb') as file:
      try:
        entries = json.loads(file.read(end)[8:])
        arrays = [x for k, x in entries.items() if k != '__metadata__']
        end += max((x['data_offsets'][1] for x in arrays), default=0)
      except (AttributeError, LookupError, TypeError, ValueError):
        return Content('', 'a corrupt .safetensors file', 'get it again')
  if end > size:
    return Content(
      '', f'cut off: it has {size:,} of at least {end:,} bytes', AGAIN
    )
  return Content('safetensors')


def _archive(path: pathlib.Path, size: int) -> Content:
  """Returns what a zip archive is."""
  try:
    with zipfile.ZipFile(path) as archive:
      names = archive.namelist()
  except torch_file.DAMAGE:
    return Content(
      '', f'a zip archive (.npz or PyTorch) cut off after {size:,} bytes', AGAIN
    )
  if PROGRAM in names:
    return Content('stablehlo')
  if CARD in names:
    return Content('network')
  if any(re.fullmatch(f'[^/]*{torch_file.PICKLE}', x) for x in names):
    return Content('torch')
  if names and all(x.endswith('.npy') for x in names):
    return Content('npz')
  if 'model.weights.h5' in names:
    return Content('', 'a model of Keras (.keras)', CONVERT)
  if any('data/weights/' in x for x in names):
    return Content(
      '',
      'a program of torch.export (.pt2)',
      'save the state_dict of what torch.export.load returns by torch.save',
    )
  listed = ', '.join(names[:3])
  return Content(
    '', f'a zip archive of {listed or "nothing"}', 'unpack it, and name a file'
  )
