"""Pickles of PyTorch, read without PyTorch and without running code.

A pickle names the functions and classes that rebuild its objects. Here the few
of tensors and arrays are replaced by functions of NumPy, and any other object
becomes a dict of its items and attributes: nothing that a pickle names is
imported or called. So settings, optimizers and whole modules are read, but only
as their values.
"""

import pickle
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from jaxkd.data.pickles import ARRAY_GLOBALS

STORAGES = {  # PyTorch's classes, and what NumPy calls their numbers
  'BFloat16Storage': 'bfloat16',
  'BoolStorage': 'bool',
  'ByteStorage': 'uint8',
  'CharStorage': 'int8',
  'ComplexDoubleStorage': 'complex128',
  'ComplexFloatStorage': 'complex64',
  'DoubleStorage': 'float64',
  'FloatStorage': 'float32',
  'HalfStorage': 'float16',
  'IntStorage': 'int32',
  'LongStorage': 'int64',
  'ShortStorage': 'int16',
  'UntypedStorage': 'uint8',
}
FLOATS = ('bfloat16', 'float8_e4m3fn', 'float8_e5m2')  # that NumPy lacks
INTEGERS = ('uint16', 'uint32', 'uint64')  # without a storage class
DTYPES = {x: np.dtype(getattr(ml_dtypes, x)) for x in FLOATS} | {
  x: np.dtype(x) for x in (*STORAGES.values(), *INTEGERS) if x not in FLOATS
}


class UnsupportedError(ValueError):
  """The file is whole, but has numbers of a kind that is not read."""


class Storage(NamedTuple):
  """The numbers of one tensor or more.

  content: uint8 [N], a view of the file.
  dtype: of the numbers.
  """

  content: np.ndarray
  dtype: np.dtype


# (key, dtype, number of numbers) -> where they are, or None if it is not known.
FindStorage = Callable[[str, np.dtype, int], Storage | None]


class Object(dict[str, Any]):
  """Stands for an object of any class: its items and attributes by name."""

  __eq__ = object.__eq__

  def __new__(cls, *args: Any, **kwargs: Any):
    """Ignores what the class would be made of."""
    del args, kwargs
    return super().__new__(cls)

  def __init__(self, *args: Any, **kwargs: Any):
    """Ignores what the object would be made of."""
    del args, kwargs
    super().__init__()

  def __hash__(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
    """Pickles have objects as keys, too."""
    return id(self)

  def __call__(self, *args: Any, **kwargs: Any) -> 'Object':
    """Stands for a function, too."""
    return self

  def __setstate__(self, state: Any) -> None:
    """Takes the attributes: a dict, or a pair of dicts with those of slots."""
    for part in state if isinstance(state, tuple) else (state,):
      if isinstance(part, Mapping):
        self.update(part)

  def append(self, item: Any) -> None:
    """Ignores an item of a list."""

  add = extend = append


class Ordered(Object):
  """Stands for an `OrderedDict`; old pickles make it from a list of pairs."""

  def __init__(self, pairs: Any = ()):
    """Takes the pairs."""
    super().__init__()
    self.update(pairs)


class Unpickler(pickle.Unpickler):
  """Reads one pickle, with tensors as NumPy arrays and `Object`s.

  Its functions and classes are its own, since a pickle can set attributes of
  what it names.
  """

  def __init__(
    self,
    file: BinaryIO,
    find: FindStorage,
    load_bytes: Callable[[bytes], Any],
  ):
    """Makes an unpickler of one pickle.

    Args:
      file: at the start of the pickle.
      find: returns the numbers of tensors.
      load_bytes: reads a file of PyTorch within the pickle.
    """
    super().__init__(file, encoding='latin1')
    self._find = find
    self._stand_ins: dict[tuple[str, str], Any] = {}
    self._functions: dict[str, Callable[..., Any]] = {
      '_rebuild_tensor': lambda *args: _tensor(*args),
      '_rebuild_tensor_v2': lambda *args: _tensor(*args[:4]),
      '_rebuild_tensor_v3': lambda *args: _tensor(*args[:4], dtype=args[6]),
      '_rebuild_parameter': lambda data, *_: data,
      '_rebuild_parameter_with_state': lambda data, *_: data,
      '_rebuild_from_type_v2': lambda *args: args[0](*args[2]),
      '_load_from_bytes': lambda data: load_bytes(data),
    }

  def find_class(self, module: str, name: str) -> Any:
    """Returns what stands for a function or class."""
    if (module, name) in ARRAY_GLOBALS:
      return ARRAY_GLOBALS[module, name]
    if module in ('torch', 'torch.storage') and name in {**STORAGES, **DTYPES}:
      return STORAGES.get(name, name)
    inner = module in ('torch._utils', 'torch._tensor', 'torch.storage')
    if inner and name in self._functions:
      return self._functions[name]
    if (module, name) not in self._stand_ins:
      base = Ordered if name == 'OrderedDict' else Object
      stand_in = type(name, (base,), {'__module__': module})
      self._stand_ins[module, name] = stand_in
    return self._stand_ins[module, name]

  def persistent_load(self, pid: Any) -> Any:
    """Returns the numbers that a tensor refers to."""
    kind, dtype, *rest = pid
    if kind == 'module':  # a class, with its source
      return dtype
    key, _, size, *view = rest
    if any(view):
      raise ValueError('it has tensors of before PyTorch 0.4')
    if not isinstance(dtype, str):
      raise UnsupportedError(
        f'has quantised tensors ({dtype.__name__}), which are not read: save'
        ' the network before it is quantised'
      )
    return self._find(key, DTYPES[dtype], size)


def _tensor(
  storage: Storage | None,
  offset: int,
  shape: tuple[int, ...],
  strides: tuple[int, ...],
  dtype: str = '',
) -> Any:
  """Returns a tensor as a view of its numbers, which may be shared.

  Args:
    storage: of the numbers, or None if they are not known yet.
    offset: of the first one, in numbers.
    shape: of the tensor.
    strides: in numbers.
    dtype: of the numbers; '': that of the storage.
  """
  if storage is None:
    return Object()
  kind = DTYPES[dtype] if dtype else storage.dtype
  if 0 in shape:
    return np.empty(shape, kind)
  start, steps = kind.itemsize * offset, [kind.itemsize * x for x in strides]
  # NumPy checks that all of it lies inside of the storage.
  return np.ndarray(shape, kind, storage.content.data, start, steps)
