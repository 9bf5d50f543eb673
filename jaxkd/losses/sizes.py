"""Maps of different sizes: what is done to them before they are compared."""

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
    aspect: height to width of the image, in which tokens are laid out.

  Raises:
    ValueError: tokens that are no grid.

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
  for first in (0, 1):  # patches alone, or after the class token
    h = math.isqrt((n - first) * height // width)
    w = h * width // height
    if h * w == n - first > 0:
      return x[:, first:].reshape(b, h, w, d)
  raise ValueError(
    f'{n} tokens are no grid of {height}:{width}, with or without a class'
    ' token: let the network have its map [B, H, W, C] as the tap'
  )


def match(first: Array, second: Array) -> tuple[Array, Array]:
  """Returns two maps in one size: along each axis, the smaller one's.

  Args:
    first: [B, H1, W1, C1].
    second: [B, H2, W2, C2].

  Returns:
    Both, averaged to [B, min(H1, H2), min(W1, W2), ...].
  """
  (h1, w1), (h2, w2) = first.shape[1:3], second.shape[1:3]
  size = min(h1, h2), min(w1, w2)
  return adaptive_average_pool(first, size), adaptive_average_pool(second, size)


def adaptive_average_pool(x: Array, size: Size) -> Array:
  """Averages a map over windows that cover it: adaptive average pooling.

  Of n rows that become m, row i is the mean of rows floor(i n / m) to
  ceil((i + 1) n / m) - 1, as in PyTorch: windows overlap where m does not
  divide n, and repeat rows where m > n. Columns likewise.

  Args:
    x: [B, H, W, C].
    size: h and w, any.

  Returns:
    [B, h, w, C].

  >>> adaptive_average_pool(jnp.arange(5.0).reshape(1, 5, 1, 1), (2, 1)).ravel()
  Array([1., 3.], dtype=float32)
  """
  for axis, cells in zip((1, 2), size, strict=True):
    x = _averaged(x, axis, cells)
  return x


def _averaged(x: Array, axis: int, cells: int) -> Array:
  extent = x.shape[axis]
  if extent == cells:
    return x
  if extent % cells == 0:
    # On a CPU ten times faster than the product below.
    window = (cells, extent // cells)
    windows = x.reshape(*x.shape[:axis], *window, *x.shape[axis + 1 :])
    return jnp.mean(windows, axis=axis + 1)
  weights = jnp.asarray(_windows(extent, cells), x.dtype)
  # The default precision of accelerators would round x to 8 or 11 bits.
  product = jnp.tensordot(x, weights, axes=(axis, 1), precision='highest')
  return jnp.moveaxis(product, -1, axis)


def _windows(extent: int, cells: int) -> np.ndarray:
  """Returns the weight [cells, extent] of each row in each mean of rows."""
  start = np.arange(cells)[:, None] * extent // cells
  stop = -(-(np.arange(cells)[:, None] + 1) * extent // cells)
  row = np.arange(extent)
  return ((start <= row) & (row < stop)) / (stop - start)


def nearest(x: Array, size: Size) -> Array:
  """Resizes a map by repeating or leaving out pixels, as PyTorch's 'nearest'.

  Of n rows that become m, row i is row floor(i n / m). Columns likewise.

  Args:
    x: [B, H, W, C].
    size: h and w, any.

  Returns:
    [B, h, w, C].

  >>> nearest(jnp.arange(3.0).reshape(1, 3, 1, 1), (5, 1)).ravel()
  Array([0., 0., 1., 1., 2.], dtype=float32)
  """
  for axis, cells in zip((1, 2), size, strict=True):
    x = _picked(x, axis, cells)
  return x


def _picked(x: Array, axis: int, cells: int) -> Array:
  extent = x.shape[axis]
  if extent == cells:
    return x
  # The gradients of these two are a sum and zeros in between, that of an index
  # is a scatter.
  if cells % extent == 0:
    before, after = x.shape[: axis + 1], x.shape[axis + 1 :]
    x = jnp.expand_dims(x, axis + 1)
    x = jnp.broadcast_to(x, (*before, cells // extent, *after))
    return x.reshape(*before[:-1], cells, *after)
  if extent % cells == 0:
    return lax.slice_in_dim(x, 0, None, extent // cells, axis)
  return jnp.take(x, np.arange(cells) * extent // cells, axis=axis)
