"""Convolution of float32 maps that is fast on CPUs, too.

XLA's CPU backend computes a convolution and its two gradients directly. For
CPUs, three kinds of them are compiled to other programs with the same result:

* 3 x 3 with stride 1 and many channels, by Winograd's minimal filtering.
* 3 x 3 with stride 1 and few output channels, as a convolution that computes
  two or four neighbouring pixels at once, as further channels. Vector registers
  are then full.
* 1 x 1 with a stride, on the pixels that it reads.

Which of them is a rule of shapes, measured (docs/results.md). All the rest is
XLA's convolution, as everything is on other platforms and in other types: the
choice is made when a program is lowered.

K is the number of output channels, H' and W' are the output's height and width.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxkd.models.depthwise import Pads
from jaxkd.models.winograd import ONE, winograd, winograd_by_kernel
from jaxkd.types import Array


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
  if size == (1, 1) and stride > 1 and h * w >= 256 and not any(map(any, pads)):
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
  return partial(winograd, tile=(2, 2) if h * w < 64 else (4, 4))


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
  return partial(winograd_by_kernel, tile=(2, 2) if h * w < 64 else (4, 4))


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
