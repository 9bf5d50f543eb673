"""Files that `torch.save` wrote, read without PyTorch.

They are pickles, with the numbers of tensors beside them: entries of a zip
archive since PyTorch 1.6, one after another at the end of the file before that
(https://docs.pytorch.org/docs/stable/notes/serialization.html).
"""

import io
import pathlib
import pickle
import re
import struct
import zipfile
import zlib
from typing import Any, BinaryIO

import numpy as np

from jaxkd.interop.torch_pickle import (
  FindStorage,
  Storage,
  Unpickler,
  UnsupportedError,
)

ZIP = b'PK\x03\x04'
# How a file of the old format begins, after the opcodes of the protocol.
MAGIC = b'\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'
PICKLE = '/data.pkl'  # in the archive, below a folder of any name
# What reading a corrupt pickle or archive may raise.
DAMAGE = (
  ArithmeticError,
  AttributeError,
  EOFError,
  LookupError,
  MemoryError,
  OSError,
  RuntimeError,
  TypeError,
  ValueError,
  pickle.UnpicklingError,
  struct.error,
  zipfile.BadZipFile,
)


def read(path: pathlib.Path) -> Any:
  """Returns what a file of `torch.save`, or of `pickle.dump`, holds.

  Tensors are views of the file: their numbers are loaded when they are used.

  Args:
    path: of the file.

  Returns:
    An object of Python; tensors are NumPy arrays, and objects of other classes
    are dicts, see `torch_pickle.Object`.

  Raises:
    FileNotFoundError: there is no such file.
    UnsupportedError: it has quantised tensors.
    ValueError: it is corrupt.
  """
  with path.open('rb') as file:
    try:
      return _read(file, np.memmap(path, np.uint8, mode='r'))
    except UnsupportedError as error:
      raise UnsupportedError(f'{path} {error}') from error
    except DAMAGE as error:
      raise ValueError(
        f'{path} is corrupt or cut off ({error}): get it again'
      ) from error


def _read(file: BinaryIO, content: np.ndarray) -> Any:
  """Returns what a file holds, by its format.

  Args:
    file: at its start.
    content: uint8 [N], all of it.
  """
  if bytes(content[:4]) == ZIP:
    return _read_zip(file, content)
  if MAGIC in bytes(content[:32]):
    return _read_stream(file, content)
  return _load(file, _unknown)


def _load(file: BinaryIO, find: FindStorage) -> Any:
  """Reads one pickle, and advances the file to its end."""
  return Unpickler(file, find, _load_bytes).load()


def _load_bytes(data: bytes) -> Any:
  return _read(io.BytesIO(data), np.frombuffer(data, np.uint8))


def _unknown(key: str, dtype: np.dtype, size: int) -> None:
  raise ValueError(f'the pickle lacks the {size} numbers {key!r}')


def _read_zip(file: BinaryIO, content: np.ndarray) -> Any:
  with zipfile.ZipFile(file) as archive:
    entries = {entry.filename: entry for entry in archive.infolist()}
    (main,) = [x for x in entries if re.fullmatch(f'[^/]*{PICKLE}', x)]
    folder = main.removesuffix(PICKLE)
    order = entries.get(f'{folder}/byteorder')
    if order and archive.read(order) != b'little':
      raise UnsupportedError('has big-endian numbers, which are not read')
    text = archive.read(main)

  def find(key: str, dtype: np.dtype, size: int) -> Storage:
    entry = entries[f'{folder}/data/{key}']
    lengths = bytes(content[entry.header_offset :][26:30])  # of name and extra
    start = entry.header_offset + 30 + sum(struct.unpack('<HH', lengths))
    part = content[: start + entry.file_size]
    storage = _storage(part, start, dtype, size)
    if zlib.crc32(storage.content.data) != entry.CRC:
      raise ValueError(f'the checksum of {entry.filename} is another')
    return storage

  return _load(io.BytesIO(text), find)


def _read_stream(file: BinaryIO, content: np.ndarray) -> Any:
  """Reads the format before PyTorch 1.6: pickles, then the numbers."""
  _, _, system = (_load(file, _unknown) for _ in range(3))
  if not system.get('little_endian', True):
    raise UnsupportedError('has big-endian numbers, which are not read')
  start = file.tell()
  sizes: dict[str, int] = {}  # in bytes

  def note(key: str, dtype: np.dtype, size: int) -> None:
    sizes[key] = dtype.itemsize * size

  _load(file, note)  # to know where the numbers are
  keys = _load(file, _unknown)
  at, places = file.tell(), {}
  for key in keys:
    places[key] = at + 8  # after their number
    at = places[key] + sizes[key]
  file.seek(start)
  return _load(
    file, lambda key, dtype, size: _storage(content, places[key], dtype, size)
  )


def _storage(
  content: np.ndarray, start: int, dtype: np.dtype, size: int
) -> Storage:
  """Returns a part of a file, without copying it."""
  part = content[start : start + dtype.itemsize * size]
  if size < 0 or part.size != dtype.itemsize * size:
    raise ValueError(f'it ends before the {size} numbers at byte {start}')
  return Storage(part, dtype)
