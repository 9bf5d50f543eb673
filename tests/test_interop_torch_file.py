"""Files by PyTorch, read without it; `data/torch` has some that it wrote.

They are of an MLP [12] -> [4] -> [3] with random weights, and of the average of
two steps of its training, by PyTorch 2.13. `expected.npz` has their arrays.
"""

import contextlib
import io
import pathlib
import pickle
import struct
import sys
import tempfile
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxkd import checkpoints
from jaxkd.checkpoints import Kind
from jaxkd.interop import files, torch_file
from jaxkd.interop import torch as interop
from jaxkd.interop.torch_pickle import Object

DATA = pathlib.Path(__file__).parent / 'data/torch'
NET = dict(name='mlp', features=(4,))
WRAPPED = [
  'before_1_6.th',
  'compiled_parallel.pth.tar',
  'lightning.ckpt',
  'module_with_thop.pkl',
  'pickled.pkl',
  'script.pt',
]
WITH_AVERAGE = ['averaged.bin', 'timm.PTH']
ROUNDED = {  # files in other types of numbers, and their relative precision
  'bfloat16': 2**-8,
  'bfloat16.safetensors': 2**-8,
  'float8_e4m3fn.safetensors': 2**-4,
}


@pytest.fixture(autouse=True, scope='module')
def no_torch():
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(sys.modules, 'torch', None)
    yield


def expected(kind):
  with np.load(DATA / 'expected.npz') as file:
    return {
      name.removeprefix(f'{kind}.'): file[name]
      for name in file.files
      if name.startswith(kind)
    }


def close(name, kind, weights='', rtol=0.0, atol=0.0):
  """Compares a file's weights with the expected ones."""
  checkpoint, card = files.read(DATA / name)
  assert card == {}
  got = interop.from_state_dict(state_dict=checkpoint, weights=weights, **NET)[
    'params'
  ]
  for key, want in expected(kind).items():
    module, _, leaf = key.partition('.')
    ours = got[module][{'weight': 'kernel', 'bias': 'bias'}[leaf]]
    np.testing.assert_allclose(ours.T, want, rtol, atol)


@pytest.mark.parametrize('name', WRAPPED)
def test_reads_files_of_pytorch(name):
  assert checkpoints.kind_of(DATA / name) is Kind.STATE_DICT
  close(name, 'raw')


@pytest.mark.parametrize('name', WITH_AVERAGE)
def test_reads_the_raw_and_the_averaged_weights(name):
  close(name, 'average')
  close(name, 'average', 'average')
  close(name, 'raw', 'raw')


@pytest.mark.parametrize(('name', 'rtol'), ROUNDED.items())
def test_reads_short_floating_point_numbers(name, rtol):
  close(name, 'raw', rtol=rtol, atol=2**-10)


def test_quantised_files_are_refused():
  checkpoint, _ = files.read(DATA / 'int8.safetensors')
  with pytest.raises(ValueError, match=r'\.\w+ has numbers of type int8.*quan'):
    interop.from_state_dict(state_dict=checkpoint, **NET)


def test_every_file_is_tested():
  names = {*WRAPPED, *WITH_AVERAGE, *ROUNDED, 'int8.safetensors'}
  assert {x.name for x in DATA.iterdir()} == {*names, 'expected.npz'}


def test_other_objects_are_read_as_their_values():
  content = torch_file.read(DATA / 'lightning.ckpt')
  parameters = content['hyper_parameters']
  assert type(parameters).__name__ == 'Settings'
  assert parameters['lr'] == 0.1
  assert parameters['where']['path'] == 'x'
  assert content['optimizer_states'][0]['param_groups'][0]['momentum'] == 0.9


# Files that PyTorch did not write


class Tensor:
  """Pickles as a tensor in a storage of four numbers does."""

  def __init__(self, offset=0, shape=(4,), strides=(1,), function=''):
    self.arguments = offset, shape, strides
    self.function = function

  def __reduce__(self):
    function = Named(f'torch._utils\n{self.function or "_rebuild_tensor_v2"}')
    return function, (Storage(), *self.arguments, False, None)


class Storage:
  """Pickles as a reference to a storage."""


class Named:
  """Pickles as a global of this name."""

  def __init__(self, name):
    self.name = name

  def __call__(self):
    """Pickles of functions need it."""


class Pickler(pickle._Pickler):
  """Writes names that cannot be imported."""

  def persistent_id(self, obj):
    if isinstance(obj, Storage):
      return 'storage', Named('torch\nFloatStorage'), '0', 'cpu', 4
    return None

  def save(self, obj, save_persistent_id=True):
    if isinstance(obj, Named):
      return self.write(b'c' + obj.name.encode() + b'\n')
    return super().save(obj, save_persistent_id)


def dumps(value, pickler=Pickler):
  file = io.BytesIO()
  pickler(file, 2).dump(value)
  return file.getvalue()


NUMBERS = np.arange(4, dtype='<f4')
CONTENT = NUMBERS.tobytes()


def archive(path, value, numbers=CONTENT, **entries):
  """Writes a file as PyTorch does since 1.6."""
  with zipfile.ZipFile(path, 'w') as file:
    file.writestr('x/data.pkl', dumps(value))
    for name, text in entries.items():
      file.writestr(f'x/{name}', text)
    file.writestr('x/data/0', numbers)
  return path


def stream(path, value, numbers=CONTENT, little_endian=True):
  """Writes a file as PyTorch did before."""
  system = {'little_endian': little_endian}
  parts = [0x1950A86A20F9469CFC6C, 1001, system, value, ['0']]
  content = b''.join(map(dumps, parts)) + struct.pack('<q', 4) + numbers
  path.write_bytes(content)
  return path


both = pytest.mark.parametrize('write', [archive, stream])


@both
def test_tensors_are_views_of_their_numbers(tmp_path, write):
  tensors = {
    'all': Tensor(),
    'last': Tensor(3, (), ()),
    'transposed': Tensor(0, (2, 2), (1, 2)),
    'repeated': Tensor(1, (3, 2), (0, 1)),
    'empty': Tensor(0, (0, 7), (7, 1)),
  }
  got = torch_file.read(write(tmp_path / 'x', tensors))
  for name, want in {
    'all': [0, 1, 2, 3],
    'last': 3,
    'transposed': [[0, 2], [1, 3]],
    'repeated': [[1, 2]] * 3,
    'empty': np.empty((0, 7)),
  }.items():
    np.testing.assert_array_equal(got[name], want)
    assert got[name].dtype == np.float32


@both
@pytest.mark.parametrize(
  'tensor',
  [
    Tensor(1, (4,), (1,)),
    Tensor(-1, (1,), (1,)),
    Tensor(0, (2,), (4,)),
    Tensor(2, (4,), (-1,)),
    Tensor(0, (2**40, 2**40), (0, 1)),
    Tensor(2**62, (1,), (1,)),
    Tensor(0, (-1,), (1,)),
  ],
)
def test_a_tensor_outside_of_its_numbers_is_refused(tmp_path, write, tensor):
  with pytest.raises(ValueError, match='is corrupt or cut off'):
    np.asarray(torch_file.read(write(tmp_path / 'x', [tensor]))[0])


@both
@pytest.mark.parametrize('size', [0, 3, 15])
def test_a_file_without_all_numbers_is_refused(tmp_path, write, size):
  path = write(tmp_path / 'x', [Tensor()], CONTENT[:size])
  with pytest.raises(ValueError, match='cut off .*ends before the 4 numbers'):
    torch_file.read(path)


def test_changed_numbers_are_noticed(tmp_path):
  path = archive(tmp_path / 'x', [Tensor()])
  content = path.read_bytes()
  path.write_bytes(content.replace(NUMBERS[1:2].tobytes(), b'\1\2\3\4', 1))
  with pytest.raises(ValueError, match='checksum of x/data/0'):
    torch_file.read(path)


def test_a_program_without_parameters_is_explained(tmp_path):
  program = Call('__torch__\nNet', state={'training': False})
  path = archive(tmp_path / 'x', program)
  with pytest.raises(ValueError, match='frozen program of TorchScript'):
    files.read(path)


def test_big_endian_numbers_are_refused(tmp_path):
  for path in (
    archive(tmp_path / 'new', [Tensor()], byteorder='big'),
    stream(tmp_path / 'old', [Tensor()], little_endian=False),
  ):
    with pytest.raises(ValueError, match='big-endian'):
      torch_file.read(path)


class Call:
  """Pickles as the call of a function."""

  def __init__(self, name, *arguments, state=None):
    self.call = Named(name), arguments
    self.state = state

  def __reduce__(self):
    return (*self.call, self.state) if self.state else self.call


@both
def test_nothing_that_a_file_names_is_called(tmp_path, write):
  touched = tmp_path / 'touched'
  calls = {
    'system': Call('posix\nsystem', f'touch {touched}'),
    'eval': Call('builtins\neval', f'open({str(touched)!r}, "w")'),
    'exec': Call('__builtin__\nexec', f'open({str(touched)!r}, "w")'),
    'open': Call('io\nopen', str(touched), 'w'),
    'getattr': Call('builtins\ngetattr', Named('os\nsys'), 'exit'),
    'state': Call('a.b\nC', state={'x': Call('os\nsystem', 'touch x')}),
    'tensor': Tensor(),
  }
  got = torch_file.read(write(tmp_path / 'x', calls))
  assert not touched.exists()
  np.testing.assert_array_equal(got.pop('tensor'), NUMBERS)
  assert all(isinstance(x, Object) for x in got.values())


@both
def test_a_file_cannot_change_how_others_are_read(tmp_path, write):
  """Pickles can set attributes of what they name."""

  class Changed:
    def __init__(self, name):
      self.name = name

    def __reduce__(self):
      raise NotImplementedError

  def save(pickler, obj):
    pickler.write(b'c' + obj.name.encode() + b'\n')
    pickler.save((None, {'__defaults__': (1, 2), '__init__': 3, 'extra': 4}))
    pickler.write(pickle.BUILD)

  class Changing(Pickler):
    def save(self, obj, save_persistent_id=True):
      if isinstance(obj, Changed):
        return save(self, obj)
      return super().save(obj, save_persistent_id)

  tensor = 'torch._utils\n_rebuild_tensor_v2'
  for name in (tensor, 'collections\nOrderedDict', 'a\nB'):
    path = tmp_path / 'x.pkl'
    path.write_bytes(dumps([Changed(name)], Changing))
    with contextlib.suppress(ValueError):
      torch_file.read(path)
  got = torch_file.read(
    write(tmp_path / 'y', [Tensor(), Call('a\nB'), Call('c\nOrderedDict')])
  )
  np.testing.assert_array_equal(got[0], NUMBERS)
  assert not hasattr(type(got[1]), 'extra')
  assert not hasattr(Object, 'extra')


@pytest.mark.parametrize('share', [0.2, 0.5, 0.9, 0.99])
@pytest.mark.parametrize('name', ['before_1_6.th', 'bfloat16', 'pickled.pkl'])
def test_a_file_that_is_cut_off_is_named(tmp_path, name, share):
  content = (DATA / name).read_bytes()
  path = tmp_path / 'x'
  path.write_bytes(content[: int(share * len(content))])
  with pytest.raises(ValueError, match=r'x is (corrupt or|a zip.*) cut off'):
    files.read(path)


@settings(max_examples=150)
@given(
  st.sampled_from(['before_1_6.th', 'timm.PTH', 'pickled.pkl', 'script.pt']),
  st.floats(0, 1, exclude_max=True),
  st.binary(min_size=1, max_size=4),
  st.booleans(),
)
def test_a_damaged_file_is_read_or_refused(name, place, changed, inserted):
  content = (DATA / name).read_bytes()
  at = int(place * len(content))
  rest = content[at if inserted else at + len(changed) :]
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / 'x'
    path.write_bytes(content[:at] + changed + rest)
    with contextlib.suppress(ValueError):
      files.read(path)
