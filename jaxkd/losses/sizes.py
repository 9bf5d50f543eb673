"""Conversion and resizing of maps, so that they can be compared."""

import math

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxkd.types import Array

Size = tuple[int, int]


def as_map(x: Array, aspect: Size) -> Array:
  """Returns a map, tokens or a vector as a float32 map [B, H, W, C].

  Args:
    x: [B, H, W, C], [B, N, D] or [B, D].
    aspect: height and width, or their ratio, of the image that the tokens are a
      grid of; up to two tokens in front of them, of the class and of the
      distillation, are left out.

  Raises:
    ValueError: the tokens are not a grid.

  >>> as_map(jnp.zeros((2, 1 + 16, 5)), (4, 16)).shape
  (2, 2, 8, 5)
  """
  x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  if x.ndim == 4:
    return x
  if x.ndim == 2:
    return x[:, None, None]
  b, n, d = x.shape
  height, width = aspect
  for first in (0, 1, 2):  # tokens in front of the patches
    h = math.isqrt((n - first) * height // width)
    w = h * width // height
    if h * w == n - first > 0:
      return x[:, first:].reshape(b, h, w, d)
  raise ValueError(
    f'{n} tokens, with up to two in front of the patches, are not a grid with'
    f' the ratio {height}:{width}: use a tap that is a map [B, H, W, C]'
  )


def match(first: Array, second: Array) -> tuple[Array, Array]:
  """Returns two maps pooled to the smaller size of both along each axis.

  Args:
    first: [B, H1, W1, C1].
    second: [B, H2, W2, C2].

  Returns:
    Both maps, [B, min(H1, H2), min(W1, W2), ...].
  """
  (h1, w1), (h2, w2) = first.shape[1:3], second.shape[1:3]
  size = min(h1, h2), min(w1, w2)
  return adaptive_average_pool(first, size), adaptive_average_pool(second, size)


def adaptive_average_pool(x: Array, size: Size) -> Array:
  """Adaptive average pooling: averages a map over windows that cover it.

  From n to m rows, row i is the mean of rows floor(i n / m) to
  ceil((i + 1) n / m) - 1, as in PyTorch: windows overlap if m does not divide
  n, and rows are repeated if m > n. The same holds for columns.

  Args:
    x: [B, H, W, C].
    size: h and w; may be smaller or larger than H and W.

  Returns:
    [B, h, w, C].

  >>> adaptive_average_pool(jnp.arange(5.0).reshape(1, 5, 1, 1), (2, 1)).ravel()
  Array([1., 3.], dtype=float32)
  """
  for axis, cells in zip((1, 2), size, strict=True):
    x = _pooled(x, axis, cells)
  return x


def _pooled(x: Array, axis: int, cells: int) -> Array:
  extent = x.shape[axis]
  if extent == cells:
    return x
  if extent % cells == 0:
    # Ten times faster on a CPU than the matrix product below.
    window = (cells, extent // cells)
    windows = x.reshape(*x.shape[:axis], *window, *x.shape[axis + 1 :])
    return jnp.mean(windows, axis=axis + 1)
  weights = jnp.asarray(_window_weights(extent, cells), x.dtype)
  # The default precision of accelerators would round x to 8 or 11 bits.
  product = jnp.tensordot(x, weights, axes=(axis, 1), precision='highest')
  return jnp.moveaxis(product, -1, axis)


def _window_weights(extent: int, cells: int) -> np.ndarray:
  """Returns the weights of rows in each window, [cells, extent]."""
  start = np.arange(cells)[:, None] * extent // cells
  stop = -(-(np.arange(cells)[:, None] + 1) * extent // cells)
  row = np.arange(extent)
  return ((start <= row) & (row < stop)) / (stop - start)


def nearest(x: Array, size: Size) -> Array:
  """Nearest-neighbour resizing, as PyTorch's mode 'nearest'.

  From n to m rows, row i is row floor(i n / m). The same holds for columns.

  Args:
    x: [B, H, W, C].
    size: h and w; may be smaller or larger than H and W.

  Returns:
    [B, h, w, C].

  >>> nearest(jnp.arange(3.0).reshape(1, 3, 1, 1), (5, 1)).ravel()
  Array([0., 0., 1., 1., 2.], dtype=float32)
  """
  for axis, cells in zip((1, 2), size, strict=True):
    x = _resized(x, axis, cells)
  return x


def _resized(x: Array, axis: int, cells: int) -> Array:
  extent = x.shape[axis]
  if extent == cells:
    return x
  # The gradients of the first two cases are a sum and a dilation with zeros,
  # which are faster than the scatter of an index's gradient.
  if cells % extent == 0:
    before, after = x.shape[: axis + 1], x.shape[axis + 1 :]
    x = jnp.expand_dims(x, axis + 1)
    x = jnp.broadcast_to(x, (*before, cells // extent, *after))
    return x.reshape(*before[:-1], cells, *after)
  if extent % cells == 0:
    return lax.slice_in_dim(x, 0, None, extent // cells, axis)
  return jnp.take(x, np.arange(cells) * extent // cells, axis=axis)
