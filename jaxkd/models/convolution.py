"""Convolution of float32 maps that is fast on CPUs, too.

XLA's CPU backend computes a convolution and its two gradients directly. For
CPUs, three kinds of them are compiled to other programs with the same result:

* 3 x 3 with stride 1 and many channels, by Winograd's minimal filtering (Lavin
  and Gray 2016, https://arxiv.org/abs/1509.09308): tiles of the map, with all
  channels, are transformed along H and W, so that the convolution is one matrix
  product for each of the 16 to 36 entries of a tile. The batch goes through in
  blocks, whose transforms stay in the cache of a core; with the whole batch at
  once, writing and reading them takes as long as is gained.
* 3 x 3 with stride 1 and few output channels, as a convolution that computes
  two or four neighbouring pixels at once, as further channels. Vector registers
  are then full.
* 1 x 1 with a stride, on the pixels that it reads.

Which of them is a rule of shapes, measured (docs/results.md). All the rest is
XLA's convolution, as everything is on other platforms and in other types: the
choice is made when a program is lowered.

Letters: K output channels, m outputs of a tile along an axis, n = m + 2 inputs
of it.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxkd.models.depthwise import Pads
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


class Program(NamedTuple):
  """How a CPU computes a convolution; None is XLA's.

  forward: (map, kernel) -> map.
  by_map: (gradient of the output, kernel) -> gradient of the map.
  by_kernel: (map, gradient of the output) -> gradient of the kernel.
  """

  forward: Callable[[Array, Array], Array] | None = None
  by_map: Callable[[Array, Array], Array] | None = None
  by_kernel: Callable[[Array, Array], Array] | None = None


def convolution(
  x: Array, kernel: Array, stride: int, pads: Pads, groups: int = 1
) -> Array:
  """Returns the convolution of a map and a kernel, [B, H', W', K].

  It has gradients of any order in reverse mode; forward mode only where the
  program is XLA's on all platforms.

  Args:
    x: [B, H, W, C].
    kernel: [k, k, C / groups, K] of the same type.
    stride: along H and W.
    pads: zeros (above, below) and (left, right) of the map.
    groups: of channels.
  """
  shapes = x.shape, kernel.shape
  if (
    groups == 1
    and x.dtype == kernel.dtype == jnp.float32
    and all(isinstance(size, int) for shape in shapes for size in shape)
    and program(*shapes, stride, pads) != Program()
  ):
    return _convolution(x, kernel, stride, pads)
  return _by_xla(x, kernel, stride, pads, groups)


def program(
  shape: Sequence[int], kernel: Sequence[int], stride: int, pads: Pads
) -> Program:
  """Returns how a CPU computes a convolution: the measured rule.

  Args:
    shape: of the map.
    kernel: its shape.
    stride: along H and W.
    pads: zeros around the map.
  """
  size, (_, h, w, _), (before, after) = kernel[:2], shape, kernel[2:]
  if size == (1, 1) and stride > 1 and not any(map(any, pads)):
    return Program(
      partial(_sliced, stride=stride),
      partial(_spread, stride=stride, sides=(h, w)),
      partial(_sliced_by_kernel, stride=stride),
    )
  if (size, stride, tuple(map(tuple, pads))) != ((3, 3), 1, ONE):
    return Program()
  return Program(
    _forward_of(h, w, before, after),
    _flipped(_forward_of(h, w, after, before)),
    _by_kernel_of(h, w, before, after),
  )


def _forward_of(
  h: int, w: int, before: int, after: int
) -> Callable[[Array, Array], Array] | None:
  """Returns how a CPU computes a 3 x 3 convolution of stride 1.

  Args:
    h: H.
    w: W.
    before: C.
    after: K.
  """
  few, many = sorted((before, after))
  if after <= 16 and h * w >= 1024 and w % 4 == 0:
    return partial(_neighbours, count=4 if before < 8 else 2)
  if h % 4 or w % 4 or few < 32 or many < 64 or few * h * w < 2048:
    return None
  return partial(_winograd, tile=(2, 2) if h * w < 64 else (4, 4))


def _by_kernel_of(
  h: int, w: int, before: int, after: int
) -> Callable[[Array, Array], Array] | None:
  """Returns how a CPU computes the gradient of a 3 x 3 kernel.

  Args:
    h: H.
    w: W.
    before: C.
    after: K.
  """
  few = min(before, after)
  if h % 4 or w % 4 or few < 32 or few * h * w < 4096:
    return None
  return partial(_winograd_by_kernel, tile=(2, 2) if h * w < 64 else (4, 4))


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolution(x: Array, kernel: Array, stride: int, pads: Pads) -> Array:
  ours = program(x.shape, kernel.shape, stride, pads).forward
  xla = partial(_by_xla, stride=stride, pads=pads)
  return _on_cpu(ours, xla, x, kernel)


def _forward(
  x: Array, kernel: Array, stride: int, pads: Pads
) -> tuple[Array, tuple[Array, Array]]:
  return _convolution(x, kernel, stride, pads), (x, kernel)


def _backward(
  stride: int, pads: Pads, inputs: tuple[Array, Array], g: Array
) -> tuple[Array, Array]:
  """Returns the gradients of map and kernel, by separate programs.

  One that is not needed is then left out of what is compiled.

  Args:
    stride: along H and W.
    pads: zeros around the map.
    inputs: map and kernel.
    g: the gradient of the output.
  """
  x, kernel = inputs
  ours = program(x.shape, kernel.shape, stride, pads)
  xla = partial(_by_xla, stride=stride, pads=pads)

  def map_by_xla(g: Array, kernel: Array) -> Array:
    return jax.vjp(lambda x: xla(x, kernel), x)[1](g)[0]

  def kernel_by_xla(x: Array, g: Array) -> Array:
    return jax.vjp(lambda kernel: xla(x, kernel), kernel)[1](g)[0]

  return (
    _on_cpu(ours.by_map, map_by_xla, g, kernel),
    _on_cpu(ours.by_kernel, kernel_by_xla, x, g),
  )


_convolution.defvjp(_forward, _backward)


def _on_cpu(
  ours: Callable[..., Array] | None, xla: Callable[..., Array], *arrays: Array
) -> Array:
  """Returns our program's result on a CPU, if there is one, and XLA's else."""
  if ours is None:
    return xla(*arrays)
  return lax.platform_dependent(*arrays, cpu=ours, default=xla)


def _by_xla(
  x: Array, kernel: Array, stride: int, pads: Pads, groups: int = 1
) -> Array:
  return lax.conv_general_dilated(
    x,
    kernel,
    window_strides=(stride, stride),
    padding=pads,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=groups,
  )


def _flipped(
  forward: Callable[[Array, Array], Array] | None,
) -> Callable[[Array, Array], Array] | None:
  """Returns the map's gradient as a convolution with the flipped kernel."""
  if forward is None:
    return None
  return lambda g, kernel: forward(g, kernel[::-1, ::-1].swapaxes(2, 3))


# 1 x 1 with a stride


def _sliced(x: Array, kernel: Array, stride: int) -> Array:
  return _by_xla(x[:, ::stride, ::stride], kernel, 1, ((0, 0), (0, 0)))


def _spread(
  g: Array, kernel: Array, stride: int, sides: tuple[int, int]
) -> Array:
  """Returns the map's gradient, zero at pixels that are not read.

  Args:
    g: the gradient of the output.
    kernel: [1, 1, C, K].
    stride: along H and W.
    sides: H and W.
  """
  g = _by_xla(g, kernel.swapaxes(2, 3), 1, ((0, 0), (0, 0)))
  zeros = [
    (0, side - 1 - (n - 1) * stride, stride - 1)
    for side, n in zip(sides, g.shape[1:3], strict=True)
  ]
  none = (0, 0, 0)
  return lax.pad(g, jnp.zeros((), g.dtype), (none, *zeros, none))


def _sliced_by_kernel(x: Array, g: Array, stride: int) -> Array:
  x = x[:, ::stride, ::stride]
  return jnp.einsum('bhwc,bhwk->ck', x, g)[None, None]


# Neighbouring pixels as channels


def _neighbours(x: Array, kernel: Array, count: int) -> Array:
  """Returns a 3 x 3 convolution, computed for `count` pixels of a row at once.

  The kernel is as wide as the pixels that these read, and zero where one of
  them does not read: [3, count + 2, C, count K].

  Args:
    x: [B, H, W, C], W a multiple of `count`.
    kernel: [3, 3, C, K].
    count: of pixels.
  """
  none = (0, 0)
  kernels = [
    jnp.pad(kernel, (none, (i, count - 1 - i), none, none))
    for i in range(count)
  ]
  y = lax.conv_general_dilated(
    x,
    jnp.concatenate(kernels, axis=-1),
    window_strides=(1, count),
    padding=ONE,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  return y.reshape(*x.shape[:3], kernel.shape[-1])


# Winograd


def _winograd(x: Array, kernel: Array, tile: Tile) -> Array:
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


def _winograd_by_kernel(x: Array, g: Array, tile: Tile) -> Array:
  """Returns the gradient of a 3 x 3 kernel, [3, 3, C, K].

  The sum over shards, which devices may share, is outside the loop.

  Args:
    x: [B, H, W, C], H and W multiples of the tile.
    g: the gradient of the output, [B, H, W, K].
    tile: outputs of a tile.
  """
  x, g = lax.optimization_barrier((x, g))  # as in `_winograd`
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
  shards = math.gcd(len(x), max(1, jax.config.jax_num_cpu_devices))
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
