"""3 x 3 convolutions of stride 1 by minimal filtering (Winograd), for CPUs.

Lavin and Gray 2016, https://arxiv.org/abs/1509.09308: tiles of the map, with
all channels, are transformed along H and W, so that the convolution is one
matrix product for each of the entries of a tile, and has 2.25 (tiles of 2 x 2
outputs) or 4 times (4 x 4) fewer multiplications. The gradient of the kernel
is computed in the same way.

The batch goes through in blocks, whose transforms stay in the cache of a core:
with the whole batch at once, writing and reading them takes as long as is
gained.

Letters: K output channels, m outputs of a tile along an axis, n = m + 2 inputs
of it. The entries of a tile are in the order of columns, then rows.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxkd.types import Array

ONE = ((1, 1), (1, 1))  # the pads of a 3 x 3 convolution that keeps H and W
CACHE = 4 * 2**20  # bytes of the transforms of a block

Tile = tuple[int, int]  # m along H and W


class Transform(NamedTuple):
  """Matrices of Winograd's F(m, 3): y = outputs [(kernel g) * (inputs d)].

  inputs: [n, n].
  kernel: [n, 3].
  outputs: [m, n].
  """

  inputs: np.ndarray
  kernel: np.ndarray
  outputs: np.ndarray


# The points of F(4, 3) are 0, 1, -1, 1/2, -2 and infinity. Rounding errors are
# a third of those with the usual 2 in place of 1/2.
TRANSFORMS = {
  2: Transform(
    np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, -1, 0, 1]]),
    np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]]) / 2,
    np.array([[1, 1, 1, 0], [0, 1, -1, 1]]),
  ),
  4: Transform(
    np.array(
      [
        [2, -3, -4, 3, 2, 0],
        [0, -2, 1, 5, 2, 0],
        [0, -2, 5, -1, -2, 0],
        [0, 2, 1, -2, -1, 0],
        [0, 1, -2, -1, 2, 0],
        [0, 2, -3, -4, 3, 2],
      ]
    ),
    np.array(
      [
        [45, 0, 0],
        [15, 15, 15],
        [15, -15, 15],
        [96, 48, 24],
        [3, -6, 12],
        [0, 0, 45],
      ]
    )
    / 90,
    np.array(
      [
        [1, 1, 1, 1, 1, 0],
        [0, 1, -1, 1 / 2, -2, 0],
        [0, 1, 1, 1 / 4, 4, 0],
        [0, 1, -1, 1 / 8, -8, 1],
      ]
    ),
  ),
}


def winograd(x: Array, kernel: Array, tile: Tile) -> Array:
  """Returns a 3 x 3 convolution, [B, H, W, K].

  Args:
    x: [B, H, W, C], H and W multiples of the tile.
    kernel: [3, 3, C, K].
    tile: outputs of a tile.
  """
  # The transforms wait for the map: those of all layers at the beginning of a
  # program would be in memory together. So would the results, if they started
  # as constants.
  x, kernel = lax.optimization_barrier((x, kernel))
  inner, shape = _transformed_kernel(kernel, tile), x.shape[:3]
  x = _blocks(x, kernel.shape[-1], tile)
  y = jnp.full((*x.shape[:-1], kernel.shape[-1]), x[(0,) * x.ndim])

  def block(i: Array | int, y: Array) -> Array:
    images = lax.dynamic_index_in_dim(x, i, axis=1, keepdims=False)
    products = jnp.einsum('estc,eck->estk', _inputs(images, tile), inner)
    outputs = _outputs(products, images.shape[:-1], tile)
    return lax.dynamic_update_index_in_dim(y, outputs, i, axis=1)

  return lax.fori_loop(0, x.shape[1], block, y).reshape(*shape, -1)


def winograd_by_kernel(x: Array, g: Array, tile: Tile) -> Array:
  """Returns the gradient of a 3 x 3 kernel, [3, 3, C, K].

  The sum over shards, which devices may share, is outside the loop.

  Args:
    x: [B, H, W, C], H and W multiples of the tile.
    g: the gradient of the output, [B, H, W, K].
    tile: outputs of a tile.
  """
  x, g = lax.optimization_barrier((x, g))  # as in `winograd`
  x = _blocks(x, g.shape[-1], tile)
  g = g.reshape(*x.shape[:-1], -1)

  def block(total: Array, i: Array | int) -> tuple[Array, None]:
    images, gradients = (
      lax.dynamic_index_in_dim(array, i, axis=1, keepdims=False)
      for array in (x, g)
    )
    products = jnp.einsum(
      'estc,estk->esck',
      _inputs(images, tile),
      _output_gradients(gradients, tile),
    )
    return total + products, None

  zeros = (math.prod(m + 2 for m in tile), len(x), x.shape[-1], g.shape[-1])
  total = jnp.zeros(zeros, x.dtype)
  if x.shape[1] > 1:
    total, _ = lax.scan(block, total, jnp.arange(x.shape[1]))
  else:
    total, _ = block(total, 0)
  high, wide = tile
  total = jnp.sum(total, axis=1).reshape(wide + 2, high + 2, *zeros[2:])
  by_row = _combined(TRANSFORMS[wide].kernel.T, list(total))  # [3, n, C, K]
  by_row = [by_row[:, i] for i in range(high + 2)]
  return _combined(TRANSFORMS[high].kernel.T, by_row)


def _blocks(x: Array, columns: int, tile: Tile) -> Array:
  """Returns a batch in blocks, [shards, blocks, images, H, W, C].

  Devices that share the batch hold whole shards; each block has images of all.

  Args:
    x: [B, H, W, C].
    columns: K.
    tile: outputs of a tile.
  """
  config: Any = jax.config  # its options are not declared
  shards = math.gcd(len(x), max(1, config.jax_num_cpu_devices))
  images = len(x) // shards
  growth = math.prod((m + 2) / m for m in tile)
  _, h, w, c = x.shape
  at_once = CACHE / (growth * h * w * (c + columns) * x.dtype.itemsize)
  limit = max(1, min(images, int(at_once)))
  size = max(n for n in range(1, limit + 1) if images % n == 0)
  return x.reshape(shards, images // size, size, h, w, c)


def _transformed_kernel(kernel: Array, tile: Tile) -> Array:
  """Returns the kernel for each entry of a tile, [n n, C, K]."""
  high, wide = tile
  rows = _combined(TRANSFORMS[high].kernel, list(kernel))  # [n, 3, C, K]
  entries = _combined(TRANSFORMS[wide].kernel, [rows[:, j] for j in range(3)])
  return entries.reshape(-1, *kernel.shape[2:])


def _inputs(x: Array, tile: Tile) -> Array:
  """Returns the transformed inputs of all tiles, [n n, shards, tiles, C].

  Args:
    x: [shards, images, H, W, C].
    tile: outputs of a tile.
  """
  shards, _, h, w, c = x.shape
  (high, wide), matrices = tile, [TRANSFORMS[m].inputs for m in tile]
  x = jnp.pad(x, ((0, 0), (0, 0), *ONE, (0, 0)))
  rows = [x[:, :, i : i + h - 1 : high] for i in range(high + 2)]
  x = _combined(matrices[0], rows)
  columns = [x[:, :, :, :, j : j + w - 1 : wide] for j in range(wide + 2)]
  x = _combined(matrices[1], columns)
  return x.reshape(len(x) * (high + 2), shards, -1, c)


def _outputs(products: Array, shape: Sequence[int], tile: Tile) -> Array:
  """Returns the map of transformed tiles, [shards, images, H, W, K].

  Args:
    products: [n n, shards, tiles, K].
    shape: (shards, images, H, W).
    tile: outputs of a tile.
  """
  (high, wide), matrices = tile, [TRANSFORMS[m].outputs for m in tile]
  shards, images, h, w = shape
  grid = shards, images, h // high, w // wide
  y = products.reshape(wide + 2, high + 2, *grid, -1)
  y = _combined(matrices[0], [y[:, i] for i in range(high + 2)])
  y = _combined(matrices[1], [y[:, j] for j in range(wide + 2)])
  return y.transpose(2, 3, 4, 1, 5, 0, 6).reshape(*shape, -1)


def _output_gradients(g: Array, tile: Tile) -> Array:
  """Returns the transpose of `_outputs`, [n n, shards, tiles, K].

  Args:
    g: [shards, images, H, W, K].
    tile: outputs of a tile.
  """
  (high, wide), matrices = tile, [TRANSFORMS[m].outputs.T for m in tile]
  g = _combined(matrices[0], [g[:, :, i::high] for i in range(high)])
  g = _combined(matrices[1], [g[:, :, :, :, j::wide] for j in range(wide)])
  return g.reshape(-1, len(g[0, 0]), math.prod(g.shape[3:-1]), g.shape[-1])


def _combined(matrix: np.ndarray, parts: Sequence[Array]) -> Array:
  """Returns the products of a matrix and parts, stacked along a first axis.

  They are sums that skip zeros: a matrix product with so few columns would be
  slower. The barrier keeps XLA from computing a sum again for each of its uses.
  """
  sums = []
  for row in matrix:
    terms = [
      part if value == 1 else -part if value == -1 else float(value) * part
      for value, part in zip(row, parts, strict=True)
      if value
    ]
    sums.append(sum(terms[1:], terms[0]))
  return lax.optimization_barrier(jnp.stack(sums))
