"""Reading arrays out of pickle files without running what is inside them."""

import io
import pickle
from typing import Any

import numpy as np


class ForeignPickleError(ValueError):
  """A pickle that asks for more than NumPy arrays."""


def _latin1(value: str, encoding: str) -> bytes:
  """Stands in for `codecs.encode`, which could run any codec."""
  if encoding != 'latin1':
    raise ForeignPickleError(f'a pickle may not ask for the codec {encoding!r}')
  return value.encode('latin1')


# The functions that NumPy's own pickles call, under the names of NumPy 1 and 2,
# taken from NumPy itself so that neither private module needs an import.
_REBUILD = {
  ('multiarray', '_reconstruct'): np.empty(0).__reduce__()[0],
  ('multiarray', 'scalar'): np.int64(0).__reduce__()[0],
  ('numeric', '_frombuffer'): np.empty(0).__reduce_ex__(5)[0],
}
# All that a pickle of arrays names: harmless functions and types.
ARRAY_GLOBALS = {
  ('numpy', 'ndarray'): np.ndarray,
  ('numpy', 'dtype'): np.dtype,
  # How Python 3 writes bytes in protocols 0 to 2.
  ('_codecs', 'encode'): _latin1,
} | {
  (f'numpy.{core}.{module}', name): function
  for core in ('core', '_core')
  for (module, name), function in _REBUILD.items()
}

_DAMAGE = (
  pickle.UnpicklingError,
  ArithmeticError,
  AttributeError,
  LookupError,
  MemoryError,
  TypeError,
  ValueError,
)


class _Unpickler(pickle.Unpickler):
  """Refuses every global but those that rebuild arrays."""

  source: str

  def find_class(self, module: str, name: str) -> Any:
    if (module, name) not in ARRAY_GLOBALS:
      raise ForeignPickleError(
        f'{self.source} refers to {module}.{name}, which reading it would '
        'run: only NumPy arrays are read. Replace it by a file from a source '
        'that you trust'
      )
    return ARRAY_GLOBALS[module, name]


def read(content: bytes, source: str) -> dict[str, Any]:
  """Unpickles a dict of arrays, lists, numbers and strings.

  Pickles written by Python 2 are read as Latin-1 text; keys that are bytes
  become text.

  Args:
    content: of the file.
    source: the file's name, for messages.

  Raises:
    ForeignPickleError: the pickle refers to anything else.
    ValueError: it is truncated, corrupt, or not a pickled dict.
  """
  unpickler = _Unpickler(io.BytesIO(content), encoding='latin1')
  unpickler.source = source
  try:
    value = unpickler.load()
  except ForeignPickleError:
    raise
  except (EOFError, *_DAMAGE) as error:
    if isinstance(error, EOFError) or 'truncated' in str(error):
      raise ValueError(
        f'{source} is truncated: it ends after {len(content)} bytes in the '
        'middle of a value. Download or extract it again'
      ) from error
    raise ValueError(
      f'{source} is corrupt, or not a pickle ({error}): download or '
      'extract it again'
    ) from error
  if not isinstance(value, dict):
    raise ValueError(
      f'{source} holds a {type(value).__name__}, not a dict: is it the right '
      'file?'
    )
  return {text(key): item for key, item in value.items()}


def text(value: str | bytes) -> str:
  """Returns text, whether it was pickled as text or as bytes."""
  return value.decode('latin1') if isinstance(value, bytes) else str(value)
