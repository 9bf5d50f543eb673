"""The rows of a store: logits as bytes, all of them or the largest.

A row is: a checksum, the number that is subtracted from the logits before they
are rounded, and the logits. With z the logits and m their maximum,

  float32                z                                    exact
  float16, bfloat16      m, and z - m rounded                 all K classes
  top k                  the k largest, their classes, and
                         r = log sum exp of the other K - k   in float32

Rounding z - m in place of z keeps the probable classes the most exact, and
finite logits inside the range of float16 (those below m - 65504 become that;
-inf stays). Of the top k, softmax gives the kept classes their probabilities,
and each of the others exp(r) / (K - k) / sum exp z: its share of what remains.

A row can have the network's `pooled` features besides, rounded as they are.
"""

import dataclasses
import math
import zlib
from typing import Any

import ml_dtypes
import numpy as np

from jaxkd.catalog import lookup

DTYPES = {
  'bfloat16': np.dtype(ml_dtypes.bfloat16),
  'float16': np.dtype('<f2'),
  'float32': np.dtype('<f4'),
}


@dataclasses.dataclass(frozen=True)
class Rows:
  """How logits are stored.

  shape: of the logits of one image: [K], or [..., K] for other problems.
  dtype: a key of `DTYPES`.
  top: how many of the largest logits are stored; 0: all.
  pooled: D, the width of the `pooled` features that are stored with them; 0:
    logits alone.

  Raises:
    KeyError: no such type, with suggestions.
    ValueError: no or all classes are left out, or logits are no vector.
  """

  shape: tuple[int, ...]
  dtype: str = 'float16'
  top: int = 0
  pooled: int = 0

  def __post_init__(self):
    lookup('type of stored logits', DTYPES, self.dtype)
    if self.top and len(self.shape) != 1:
      raise ValueError(
        f'store.top must be 0 for logits of shape {list(self.shape)}, got'
        f' {self.top}: only those of one vector for each image are ranked'
      )
    if self.top and not 0 < self.top < self.shape[0]:
      raise ValueError(
        f'store.top must be at least 0 and below the {self.shape[0]} classes,'
        f' got {self.top}: 0 stores all of them'
      )

  @property
  def record(self) -> np.dtype[Any]:
    """The type of one row."""
    # bfloat16 is no type of a field: its bits are stored.
    values = '<u2' if self.dtype == 'bfloat16' else DTYPES[self.dtype]
    fields: list[Any] = [('check', '<u4'), ('shift', '<f4')]
    if self.pooled:
      fields.append(('pooled', values, self.pooled))
    if not self.top:
      return np.dtype([*fields, ('logits', values, self.shape)])
    index = '<u2' if self.shape[0] <= 2**16 else '<u4'
    fields += [('rest', '<f4'), ('index', index, self.top)]
    return np.dtype([*fields, ('logits', values, self.top)])

  def encode(
    self,
    logits: np.ndarray,
    position: np.ndarray,
    pooled: np.ndarray | None = None,
    checked: bool = True,
  ) -> np.ndarray:
    """Returns logits as rows.

    Args:
      logits: [N, ...], finite or -inf.
      position: int [N], of each row in its table.
      pooled: [N, D], if the rows have such features.
      checked: whether logits have to be finite also in float32, which does not
        need it.

    Raises:
      ValueError: logits that are NaN, infinite, or all -inf.
    """
    z = np.asarray(logits, np.float32)
    assert z.shape[1:] == self.shape, f'logits {z.shape}, rows {self.shape}'
    flat = z.reshape(len(z), math.prod(self.shape))
    maximum = flat.max(axis=1)
    exact = self.dtype == 'float32'
    sound = np.isfinite(maximum).all() and not np.isnan(flat).any()
    if not sound and (checked or not exact):
      raise ValueError(
        'the logits of an image are NaN, infinite or all -inf, so they cannot'
        ' be stored: evaluate the network on this data set first'
      )
    rows = np.zeros(len(z), self.record)
    rows['shift'] = shift = np.zeros_like(maximum) if exact else maximum
    values = flat - shift[:, None]
    if self.top:
      order = np.argsort(-values, axis=1, kind='stable')
      rows['index'] = order[:, : self.top]
      rest = np.take_along_axis(values, order[:, self.top :], axis=1)
      values = np.take_along_axis(values, order[:, : self.top], axis=1)
      rows['rest'] = _log_sum_exp(rest)
    rows['logits'] = self._rounded(values).reshape(rows['logits'].shape)
    if self.pooled:
      assert pooled is not None, 'rows with pooled features need them'
      rows['pooled'] = self._rounded(np.asarray(pooled, np.float32))
    rows['check'] = checksums(rows, position)
    return rows

  def _rounded(self, values: np.ndarray) -> np.ndarray:
    dtype = DTYPES[self.dtype]
    if self.dtype == 'float16':
      range_ = np.finfo(np.float16)
      inside = np.clip(values, range_.min, range_.max)
      values = np.where(np.isneginf(values), values, inside)
    rounded = values.astype(dtype)
    return rounded.view('<u2') if self.dtype == 'bfloat16' else rounded

  def decode(self, rows: np.ndarray) -> np.ndarray:
    """Returns the logits of rows, float32 [N, ...]."""
    values = self._values(rows['logits'])
    axes = (len(rows),) + (1,) * (values.ndim - 1)
    if self.dtype != 'float32':  # where the shift is 0: -0.0 + 0 is not -0.0
      values += rows['shift'].reshape(axes)
    if not self.top:
      return values
    (classes,) = self.shape
    rest = rows['shift'] + rows['rest'] - np.float32(np.log(classes - self.top))
    logits = np.repeat(rest[:, None], classes, axis=1)
    np.put_along_axis(logits, rows['index'].astype(np.int64), values, axis=1)
    return logits

  def features(self, rows: np.ndarray) -> np.ndarray:
    """Returns the `pooled` features of rows that have them, float32 [N, D]."""
    return self._values(rows['pooled'])

  def _values(self, stored: np.ndarray) -> np.ndarray:
    """Returns stored numbers as float32, in memory of their own."""
    stored = np.ascontiguousarray(stored)
    if self.dtype == 'bfloat16':
      stored = stored.view(DTYPES[self.dtype])
    return stored.astype(np.float32)


def checksums(rows: np.ndarray, position: np.ndarray) -> np.ndarray:
  """Returns uint32 [N]: a checksum of each row and its position, never 0.

  The position counts, so that a row at another row's place is an error; 0 marks
  a row that is not there.
  """
  size = rows.dtype.itemsize
  data = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), size)
  skip = rows.dtype['check'].itemsize
  return np.array(
    [
      zlib.crc32(row, place & 0xFFFFFFFF) or 1
      for row, place in zip(data[:, skip:], position.tolist(), strict=True)
    ],
    np.uint32,
  )


def _log_sum_exp(values: np.ndarray) -> np.ndarray:
  """Returns log sum exp of each line, float64 inside; -inf for all -inf."""
  top = values.max(axis=1, keepdims=True).astype(np.float64)
  top = np.where(np.isneginf(top), 0, top)
  with np.errstate(divide='ignore'):
    return (np.log(np.exp(values - top).sum(axis=1)) + top[:, 0]).astype(
      np.float32
    )
