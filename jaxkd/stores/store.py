"""The file of a store: a header with all that it depends on, then its rows.

  bytes     8  magic
            4  length of the header
            4  its checksum
               the header, JSON
               zeros up to a multiple of 4096
               rows: slot 0 of all examples, slot 1 of all examples, ...

Rows that are not written yet are holes of zeros, which take no space on disk.
Every row that is read is checked. Rows are read through a memory map and
written by `pwrite`, which reports a full disk where a memory map would kill the
process.
"""

import dataclasses
import json
import os
import pathlib
import shutil
import struct
import uuid
import zlib
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from jaxkd import disk
from jaxkd.disk import PARTIAL
from jaxkd.stores.rows import Rows, checksums

MAGIC = b'jaxkd\x00S1'
PREFIX = struct.Struct('<8sII')
ALIGNED = 4096
AGAIN = 'Remove it: the command that made it writes it again'


@dataclasses.dataclass(frozen=True)
class Header:
  """All that a store depends on.

  rows: how logits are stored.
  slots: V, views of each image.
  examples: N, images.
  data: of the images and their views, by name, as JSON values.
  views: how views are numbered, likewise.
  network: which network gave the logits, likewise.
  card: its model card with its test results, likewise.
  """

  rows: Rows
  slots: int
  examples: int
  data: Mapping[str, Any]
  views: Mapping[str, Any]
  network: Mapping[str, Any]
  card: Mapping[str, Any]

  def to_bytes(self) -> bytes:
    """Returns everything in front of the rows."""
    text = json.dumps(self.as_json(), sort_keys=True).encode()
    head = PREFIX.pack(MAGIC, len(text), zlib.crc32(text)) + text
    return head + b'\0' * (-len(head) % ALIGNED)

  @classmethod
  def from_json(cls, entries: Mapping[str, Any]) -> Self:
    """Returns the header of a file."""
    rows = dict(entries['rows'])
    shape = tuple(rows.pop('shape'))
    return cls(**{**entries, 'rows': Rows(shape=shape, **rows)})

  @property
  def size(self) -> int:
    """Bytes of the whole file."""
    table = self.slots * self.examples * self.rows.record.itemsize
    return len(self.to_bytes()) + table

  def as_json(self) -> dict[str, Any]:
    """Returns the header as it is after JSON, where tuples are lists."""
    entries = json.loads(json.dumps(dataclasses.asdict(self)))
    if not self.rows.pooled:  # as in files that are older than this field
      del entries['rows']['pooled']
    return entries


class Store:
  """An open store."""

  def __init__(self, path: str | os.PathLike[str], writable: bool = False):
    """Opens a file and checks its header and its length.

    Args:
      path: of the file.
      writable: whether rows are to be written.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is corrupt, or not a store.
    """
    self.path = path = disk.expanded(path)
    if not path.is_file():
      partial = path.with_name(path.name + PARTIAL)
      more = (
        f': {partial.name} is unfinished, and the command that began it'
        ' resumes it'
        if partial.exists()
        else ': --mode=store --output=FILE writes one'
      )
      raise FileNotFoundError(f'no stored outputs in {path}{more}')
    self.header, self._offset = _read_header(path)
    self.rows = self.header.rows
    length = path.stat().st_size
    if length != self.header.size:
      raise ValueError(
        f'{path} is corrupt: it has {length:,} bytes, and its header describes'
        f' {self.header.size:,}. {AGAIN}'
      )
    self._table = np.memmap(
      path,
      self.rows.record,
      'r',
      self._offset,
      (self.header.slots * self.header.examples,),
    )
    self._file = os.open(path, os.O_WRONLY) if writable else None

  def __str__(self) -> str:
    return str(self.path)

  def present(self, slot: np.ndarray | int, index: np.ndarray) -> np.ndarray:
    """Returns bool [N]: which rows are there and intact.

    Args:
      slot: int [N], or one for all.
      index: int [N], positions of the examples in their split.
    """
    position = self._position(slot, index)
    rows = self._table[position]
    there = rows['check'] != 0
    there[there] = rows['check'][there] == checksums(
      rows[there], position[there]
    )
    return there

  def complete(self) -> bool:
    """Returns whether every row has been written; checks no checksum."""
    return bool(np.all(self._table['check']))

  def read(self, slot: np.ndarray | int, index: np.ndarray) -> np.ndarray:
    """Returns logits, float32 [N, ...].

    Args:
      slot: int [N], or one for all.
      index: int [N], positions of the examples in their split.

    Raises:
      ValueError: a row is missing or corrupt.
    """
    return self.rows.decode(self._intact(slot, index))

  def outputs(
    self, slot: np.ndarray | int, index: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns logits and `pooled` features, if there are any; see `read`."""
    rows = self._intact(slot, index)
    pooled = self.rows.features(rows) if self.rows.pooled else None
    return self.rows.decode(rows), pooled

  def _intact(self, slot: np.ndarray | int, index: np.ndarray) -> np.ndarray:
    """Returns checked rows; see `read`."""
    position = self._position(slot, index)
    rows = self._table[position]
    wrong = np.flatnonzero(rows['check'] != checksums(rows, position))
    if len(wrong):
      place = int(position[wrong[0]])
      view, example = divmod(place, self.header.examples)
      begin = self._offset + place * self.rows.record.itemsize
      end = begin + self.rows.record.itemsize - 1
      what = 'is corrupt' if rows['check'][wrong[0]] else 'is missing'
      raise ValueError(
        f'{self.path}: the row of view {view} and example {example} (bytes'
        f' {begin:,} to {end:,}) {what}. {AGAIN}'
      )
    return rows

  def write(
    self,
    slot: np.ndarray | int,
    index: np.ndarray,
    logits: np.ndarray,
    pooled: np.ndarray | None = None,
  ) -> None:
    """Writes logits; a row that is written twice is replaced.

    Args:
      slot: int [N], or one for all.
      index: int [N], positions of the examples in their split.
      logits: [N, ...].
      pooled: [N, D], if the rows have such features.

    Raises:
      OSError: the disk is full; the message names the file.
      ValueError: logits that are NaN or infinite.
    """
    assert self._file is not None, 'the store is read-only'
    position = self._position(slot, index)
    rows = self.rows.encode(logits, position, pooled)
    size = self.rows.record.itemsize
    # One write for each run of neighbours.
    ends = np.flatnonzero(np.diff(position) != 1) + 1
    for part in np.split(np.arange(len(position)), ends):
      place = self._offset + int(position[part[0]]) * size
      data = memoryview(rows[part].tobytes())
      while data:
        try:
          written = os.pwrite(self._file, data, place)
        except OSError as error:  # which does not know the file
          error.filename = str(self.path)
          raise
        data, place = data[written:], place + written

  def lock(self) -> None:
    """Keeps other processes from writing this file, until it is closed.

    Raises:
      ValueError: another process is writing it.
    """
    import fcntl  # of POSIX systems

    assert self._file is not None, 'the store is read-only'
    try:
      fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise ValueError(
        f'{self.path} is being written by another process: wait until it has'
        ' finished, or name another file'
      ) from error

  def close(self) -> None:
    """Ends writing: what was written is on disk when this returns."""
    if self._file is not None:
      os.fsync(self._file)
      os.close(self._file)
      self._file = None

  def _position(self, slot: np.ndarray | int, index: np.ndarray) -> np.ndarray:
    return np.asarray(slot, np.int64) * self.header.examples + np.asarray(
      index, np.int64
    )


def create(path: pathlib.Path, header: Header) -> Store:
  """Returns the writable store at a path, which is made if there is none.

  Of two that are made at once, one is kept.

  Args:
    path: of the file; its folder is made.
    header: of the store.

  Raises:
    ValueError: the file there has another header; the message lists how they
      differ. It is corrupt.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  if not path.exists():
    partial = path.with_name(f'{path.name}.{uuid.uuid4().hex}{PARTIAL}')
    try:
      partial.write_bytes(header.to_bytes())
      os.truncate(partial, header.size)
      try:
        os.link(partial, path)
      except FileExistsError:
        pass
    finally:
      partial.unlink(missing_ok=True)
  store = Store(path, writable=True)
  lines = differing(store.header.as_json(), header.as_json())
  if lines:
    raise ValueError(
      f'{path} holds other outputs than are to be written; remove it, or name'
      ' another file:\n' + '\n'.join(f'  {line}' for line in lines)
    )
  return store


def differing(
  old: Mapping[str, Any], new: Mapping[str, Any], at: str = ''
) -> list[str]:
  """Returns a line for each entry that differs: 'name: old -> new'."""
  lines = []
  for key in dict.fromkeys([*old, *new]):
    before, after = old.get(key), new.get(key)
    if isinstance(before, Mapping) and isinstance(after, Mapping):
      lines += differing(before, after, f'{at}{key}.')
    elif before != after:
      lines.append(f'{at}{key}: {before!r} -> {after!r}')
  return lines


def check_space(path: pathlib.Path, needed: int) -> None:
  """Checks that a file fits on its disk.

  Args:
    path: of the file, which need not exist, nor its folder.
    needed: bytes that are still to be written.

  Raises:
    OSError: there is less free space.
  """
  folder = path.absolute().parent
  while not folder.exists():
    folder = folder.parent
  free = shutil.disk_usage(folder).free
  if free < needed:
    raise OSError(
      f'{path} needs {needed:,} more bytes, and {folder} has {free:,} free:'
      ' free some space, or store fewer views, a smaller type (store.dtype) or'
      ' only the largest logits (store.top)'
    )


def _read_header(path: pathlib.Path) -> tuple[Header, int]:
  """Returns a file's header, and where its rows begin."""
  with path.open('rb') as file:
    prefix = file.read(PREFIX.size)
    if len(prefix) < PREFIX.size or not prefix.startswith(MAGIC):
      raise ValueError(
        f'{path} is not a file of stored outputs: --mode=store --output=FILE'
        ' writes one'
      )
    _, length, check = PREFIX.unpack(prefix)
    text = file.read(length)
  if len(text) != length or zlib.crc32(text) != check:
    raise ValueError(f'{path} is corrupt in its header. {AGAIN}')
  offset = PREFIX.size + length
  return Header.from_json(json.loads(text)), offset + -offset % ALIGNED
