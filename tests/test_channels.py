"""Equations that are layers: what is derived is checked by numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxkd.models.depthwise import depthwise
from jaxkd.reparam import channels, programs


def conv(x, kernel, **settings):
  numbers = ('NHWC', 'HWIO', 'NHWC')
  return lax.conv_general_dilated(
    x, kernel, (1, 1), 'SAME', dimension_numbers=numbers, **settings
  )


@jax.custom_vjp
def by_tiles(x, kernel):
  """A convolution in a transformed space, as Winograd's."""
  transform = np.float32(
    [[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]
  )
  wide = jnp.einsum('ai,bj,ijcd->abcd', transform, transform, kernel)
  tiles = jnp.stack(
    [x[:, i : i + 1, j : j + 1] for i in (0, 1) for j in (0, 1)]
  )
  products = lax.dot_general(
    tiles.reshape(4, -1, x.shape[-1]),
    wide.reshape(4, 4, *kernel.shape[2:])[:, 0],
    (((2,), (1,)), ((0,), (0,))),
  )
  return jnp.sum(products.reshape(2, 2, *products.shape[1:]), 0)


by_tiles.defvjp(lambda x, k: (by_tiles(x, k), None), lambda _, g: (g, g))

# name -> function of x and kernel, their shapes, axes of the kernel and of the
# result; () where there are none.
FUNCTIONS = {
  'convolution': (conv, (2, 5, 5, 3), (3, 3, 3, 4), (3, 3)),
  'grouped': (
    lambda x, k: conv(x, k, feature_group_count=2),
    (2, 5, 5, 4), (3, 3, 2, 6), (3, 3),
  ),  # fmt: skip
  'depthwise': (
    lambda x, k: depthwise(x, k, 1), (2, 5, 5, 4), (3, 3, 1, 4), (3, 3)
  ),  # fmt: skip
  'transformed': (by_tiles, (2, 5, 5, 3), (3, 3, 3, 4), (3, 2)),
  'matrix': (jnp.matmul, (5, 4), (4, 3), (1, 1)),
  'transposed': (lambda x, k: (x @ k.T).T, (5, 4), (3, 4), (0, 0)),
  'merged': (
    lambda x, k: jnp.tensordot(x, k, 1).reshape(5, 6),
    (5, 4), (4, 2, 3), (),
  ),  # fmt: skip
  'split': (
    lambda x, k: jnp.tensordot(x, k.reshape(4, 2, 3), 1).reshape(5, 6),
    (5, 4), (4, 6), (1, 1),
  ),  # fmt: skip
  'parts': (
    lambda x, k: jnp.concatenate([x @ k[:, :2], x @ k[:, 2:]], 1),
    (5, 4), (4, 6), (1, 1),
  ),  # fmt: skip
  'swapped': (
    lambda x, k: jnp.concatenate([x @ k[:, 3:], x @ k[:, :3]], 1),
    (5, 4), (4, 6), (),
  ),  # fmt: skip
  'sum of two': (
    lambda x, k: x @ k + 2 * (jnp.sin(x) @ k) / 3, (5, 4), (4, 6), (1, 1)
  ),  # fmt: skip
  'sum with another': (lambda x, k: x @ k + x, (5, 4), (4, 4), ()),
  'repeated': (
    lambda x, k: jnp.broadcast_to((x @ k)[:, None], (5, 2, 3)),
    (5, 4), (4, 3), (1, 2),
  ),  # fmt: skip
  'bias': (lambda x, k: x @ k + 1, (5, 4), (4, 3), ()),
  'square': (lambda x, k: x @ (k * k), (5, 4), (4, 3), ()),
  'absolute': (lambda x, k: jnp.abs(x @ k), (5, 4), (4, 3), ()),
  'normalised': (lambda x, k: x @ (k / jnp.sum(k)), (5, 4), (4, 3), ()),
  'total': (
    lambda x, k: jnp.broadcast_to(jnp.sum(x @ k, 1, keepdims=True), (5, 3)),
    (5, 4), (4, 3), (),
  ),  # fmt: skip
  'sorted': (lambda x, k: jnp.sort(x @ k, 1), (5, 4), (4, 3), ()),
  'reversed': (lambda x, k: (x @ k)[:, ::-1], (5, 4), (4, 3), ()),
  'running sum': (lambda x, k: jnp.cumsum(x @ k, 1), (5, 4), (4, 3), ()),
  'rounded': (
    lambda x, k: (x @ k).astype(jnp.int32).astype(jnp.float32),
    (5, 4), (4, 3), (),
  ),  # fmt: skip
  'with itself': (lambda x, k: x @ (k @ k), (5, 4), (4, 4), ()),
}  # fmt: skip


def ways(function, *arguments):
  """The ways in which a function of x and a kernel is a layer."""
  jaxpr = jax.make_jaxpr(jax.jit(function))(*arguments).jaxpr
  (equation,) = jaxpr.eqns
  every = channels.layers(equation, programs.producers(jaxpr.eqns))
  return [layer for layer in every if layer.kernel == 1]


@pytest.mark.parametrize('name', FUNCTIONS)
def test_scaled_channels_of_the_kernel_scale_those_of_the_result(name):
  function, x, kernel, axes = FUNCTIONS[name]
  rng = np.random.default_rng(0)
  x, kernel = (rng.normal(size=n).astype(np.float32) for n in (x, kernel))
  layers = ways(function, x, kernel)
  assert [(layer.axis, layer.output) for layer in layers] == [axes] * bool(axes)
  for layer in layers:
    size = kernel.shape[layer.axis]
    scale = rng.uniform(-2, 2, size).astype(np.float32)

    def along(rank, axis, scale=scale):
      return scale.reshape([-1 if i == axis else 1 for i in range(rank)])

    result = function(x, kernel)
    want = result * along(result.ndim, layer.output)
    got = function(x, kernel * along(kernel.ndim, layer.axis))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_only_one_of_the_ways_for_each_platform_needs_rules():
  """They compute the same; a condition of another kind is not followed."""

  def dependent(x, kernel):
    return lax.platform_dependent(
      x, kernel, cpu=lambda x, k: jnp.flip(jnp.flip(x @ k)), default=jnp.matmul
    )

  def conditional(x, kernel):
    return lax.cond(x[0, 0] > 0, jnp.matmul, jnp.matmul, x, kernel)

  x, kernel = np.ones((5, 4), np.float32), np.ones((4, 3), np.float32)
  assert len(ways(dependent, x, kernel)) == 1
  assert not ways(conditional, x, kernel)
