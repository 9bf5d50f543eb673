"""Average pooling of maps to a given size."""

import jax.numpy as jnp
import numpy as np

from jaxkd.losses.numerics import einsum
from jaxkd.types import Array


def _windows(before: int, after: int) -> np.ndarray:
  """Returns the weights [after, before] of averages over PyTorch's windows."""
  weights = np.zeros((after, before))
  for i in range(after):
    start, end = i * before // after, -(-(i + 1) * before // after)
    weights[i, start:end] = 1 / (end - start)
  return weights


def adaptive_average_pool(x: Array, size: tuple[int, int]) -> Array:
  """Average pooling to a size, over the windows that PyTorch takes.

  Window i of h covers floor(i H / h) to ceil((i + 1) H / h): windows overlap
  where h does not divide H.

  Args:
    x: map [B, H, W, C].
    size: (h, w).

  Returns:
    Map [B, h, w, C].

  >>> x = jnp.arange(3.0).reshape(1, 3, 1, 1)
  >>> adaptive_average_pool(x, (2, 1)).ravel()
  Array([0.5, 1.5], dtype=float32)
  """
  batch, height, width, channels = x.shape
  h, w = size
  if height % h == 0 and width % w == 0:
    tiles = x.reshape(batch, h, height // h, w, width // w, channels)
    return jnp.mean(tiles, axis=(2, 4))
  rows, columns = (
    jnp.asarray(_windows(*sizes), x.dtype)
    for sizes in ((height, h), (width, w))
  )
  return einsum('bhwc,ih,jw->bijc', x, rows, columns)
