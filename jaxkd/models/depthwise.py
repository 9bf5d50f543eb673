"""Depthwise convolution that is fast on CPUs, too.

XLA's CPU backend takes ten times as long for a depthwise convolution and its
gradients as for a sum of shifted products, and a hundred times for the input's
gradient at stride 2. So it is compiled to such sums for CPUs, and to XLA's
convolution for other devices. The choice is made at lowering: a program that is
exported for several platforms contains both.

Letters: k size of the kernel, s stride, m output channels per input channel,
H' and W' height and width of the output. Pads are the numbers of zeros (above,
below) and (left, right) of the map, each less than k; () is k // 2 everywhere.
"""

from functools import partial, reduce

import jax
import jax.numpy as jnp
from jax import lax

from jaxkd.types import Array

Pads = tuple[tuple[int, int], ...]


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def depthwise(x: Array, kernel: Array, stride: int, pads: Pads = ()) -> Array:
  """Depthwise convolution with zeros around the map.

  It has gradients of any order, in reverse mode only.

  Args:
    x: [B, H, W, C].
    kernel: [k, k, 1, C m] of the same type, k odd; output channel i reads input
      channel i // m.
    stride: s, along H and W.
    pads: see above.

  Returns:
    [B, H', W', C m], with H' = ceil(H / s) for symmetric pads; on a CPU, sums
    are in at least float32.
  """
  return lax.platform_dependent(
    x,
    kernel,
    cpu=partial(_by_shifts, stride=stride, pads=pads),
    default=partial(_by_xla, stride=stride, pads=pads),
  )


def _forward(
  x: Array, kernel: Array, stride: int, pads: Pads
) -> tuple[Array, tuple[Array, Array]]:
  return depthwise(x, kernel, stride, pads), (x, kernel)


def _backward(
  stride: int, pads: Pads, inputs: tuple[Array, Array], g: Array
) -> tuple[Array, Array]:
  """Returns the gradients of x and kernel.

  JAX's automatic gradient would keep k² shifted maps of the forward pass in
  memory.

  Args:
    stride: s.
    pads: see above.
    inputs: x and kernel.
    g: the gradient of the output, [B, H', W', C m].
  """
  x, kernel = inputs
  return lax.platform_dependent(
    x,
    kernel,
    g,
    cpu=partial(_gradients_by_shifts, stride=stride, pads=pads),
    default=partial(_gradients_by_xla, stride=stride, pads=pads),
  )


depthwise.defvjp(_forward, _backward)


def _by_xla(x: Array, kernel: Array, stride: int, pads: Pads = ()) -> Array:
  return lax.conv_general_dilated(
    x,
    kernel,
    window_strides=(stride, stride),
    padding=pads or _symmetric(kernel),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=x.shape[-1],
  )


def _gradients_by_xla(
  x: Array, kernel: Array, g: Array, stride: int, pads: Pads
) -> tuple[Array, Array]:
  return jax.vjp(partial(_by_xla, stride=stride, pads=pads), x, kernel)[1](g)


def _by_shifts(x: Array, kernel: Array, stride: int, pads: Pads) -> Array:
  return _correlate(_read(x, kernel, pads), kernel, stride)


def _gradients_by_shifts(
  x: Array, kernel: Array, g: Array, stride: int, pads: Pads
) -> tuple[Array, Array]:
  by_reader = _input_gradient(kernel, g, stride, pads, x.shape[1:3])
  by_reader = by_reader.reshape(*x.shape, -1)
  by_kernel = _kernel_gradient(x, kernel, g, stride, pads)
  return jnp.sum(by_reader, axis=-1), by_kernel


def _symmetric(kernel: Array) -> Pads:
  half = len(kernel) // 2
  return ((half, half), (half, half))


def _read(x: Array, kernel: Array, pads: Pads) -> Array:
  """Returns the padded input channel of each output channel.

  Args:
    x: [B, H, W, C].
    kernel: [k, k, 1, C m].
    pads: see above.
  """
  x = jnp.repeat(x, kernel.shape[-1] // x.shape[-1], axis=-1)
  return jnp.pad(x, ((0, 0), *(pads or _symmetric(kernel)), (0, 0)))


def _correlate(x: Array, kernel: Array, stride: int) -> Array:
  """Returns the sum of k² shifted products at each position in x.

  Args:
    x: [B, (H' - 1) s + k, (W' - 1) s + k, C], or up to s - 1 more.
    kernel: [k, k, 1, C].
    stride: s.
  """
  size = len(kernel)
  h, w = (n - size + 1 for n in x.shape[1:3])
  products = [
    _exact(x[:, i : i + h : stride, j : j + w : stride])
    * kernel[i : i + 1, j : j + 1]
    for i in range(size)
    for j in range(size)
  ]
  return reduce(jnp.add, products).astype(x.dtype)


def _input_gradient(
  kernel: Array, g: Array, stride: int, pads: Pads, sides: tuple[int, ...]
) -> Array:
  """Returns g, dilated by the stride, correlated with the flipped kernel.

  Args:
    kernel: [k, k, 1, C].
    g: [B, H', W', C].
    stride: s.
    pads: see above.
    sides: H and W.

  Returns:
    [B, H, W, C].
  """
  size = len(kernel)
  zeros = [(0, 0, 0)] * 4
  lows = [low for low, _ in pads or _symmetric(kernel)]
  for axis, (side, low) in enumerate(zip(sides, lows, strict=True), start=1):
    before = size - 1 - low
    spread = (g.shape[axis] - 1) * stride + 1
    zeros[axis] = (before, side + size - 1 - before - spread, stride - 1)
  g = lax.pad(g, jnp.zeros((), g.dtype), zeros)
  return _correlate(g, kernel[::-1, ::-1], 1)


def _kernel_gradient(
  x: Array, kernel: Array, g: Array, stride: int, pads: Pads
) -> Array:
  """Returns the gradient of the kernel: products of g and shifted x, summed.

  It is a loop, so that only one shifted map is in memory at a time. The sum
  over the batch, which may be sharded, is outside the loop.

  Args:
    x: [B, H, W, C].
    kernel: [k, k, 1, C m]; only shape and type are used.
    g: [B, H', W', C m].
    stride: s.
    pads: see above.
  """
  size, padded = len(kernel), _read(x, kernel, pads)
  h, w = ((n - 1) * stride + 1 for n in g.shape[1:3])
  sizes = (x.shape[0], h, w, g.shape[-1])

  def entry(n: Array) -> Array:
    starts = (0, n // size, n % size, 0)
    window = lax.dynamic_slice(padded, starts, sizes)[:, ::stride, ::stride]
    return jnp.sum(_exact(window) * g, axis=(1, 2))

  by_image = lax.map(entry, jnp.arange(size**2))  # [k k, B, C m]
  gradient = jnp.sum(by_image, axis=1).reshape(kernel.shape)
  return gradient.astype(kernel.dtype)


def _exact(x: Array) -> Array:
  """Returns x, as float32 if its type is less precise."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))
