"""Depthwise convolutions against loops in float64, and their programs."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from reparam_nets import difference

from jaxkd.models import depthwise as module
from jaxkd.models.depthwise import depthwise
from jaxkd.models.layers import Conv


def normal(*shape, seed=0):
  rng = np.random.default_rng(seed)
  return rng.normal(size=shape).astype(np.float32)


def loops(x, kernel, stride, g):
  """Output and gradients, one pair of an output pixel and an entry at a time.

  Args:
    x: [B, H, W, C].
    kernel: [k, k, 1, C m].
    stride: s.
    g: a function: the output's shape -> its gradient.
  """
  k, multiple = len(kernel), kernel.shape[-1] // x.shape[-1]
  x, kernel = (a.astype(np.float64) for a in (x, kernel))
  read = np.repeat(x, multiple, axis=-1)
  h, w = ((n - 1) // stride + 1 for n in x.shape[1:3])
  y = np.zeros((len(x), h, w, kernel.shape[-1]))
  g = g(y.shape)
  by_read, by_kernel = np.zeros(read.shape), np.zeros(kernel.shape)
  for i, j, a, b in np.ndindex(h, w, k, k):
    row, column = i * stride + a - k // 2, j * stride + b - k // 2
    if row in range(x.shape[1]) and column in range(x.shape[2]):
      y[:, i, j] += read[:, row, column] * kernel[a, b]
      by_read[:, row, column] += g[:, i, j] * kernel[a, b]
      by_kernel[a, b, 0] += np.sum(g[:, i, j] * read[:, row, column], axis=0)
  by_x = by_read.reshape(*x.shape, multiple).sum(axis=-1)
  return y, (by_x, by_kernel)


@functools.partial(jax.jit, static_argnums=2)
def ours(x, kernel, stride, g):
  """Output and gradients."""
  y, pull_back = jax.vjp(lambda x, k: depthwise(x, k, stride), x, kernel)
  return y, pull_back(g)


each_case = pytest.mark.parametrize(
  'sides, size, stride, multiple',
  [
    ((4, 4), 3, 1, 1),
    ((5, 4), 3, 2, 1),
    ((4, 5), 3, 2, 2),
    ((1, 1), 3, 1, 1),
    ((1, 1), 3, 2, 1),
    ((2, 3), 5, 1, 1),
    ((7, 6), 5, 2, 1),
    ((7, 8), 3, 3, 1),
    ((3, 3), 1, 2, 3),
  ],
)


@each_case
def test_values_and_gradients_are_those_of_the_loops(
  sides, size, stride, multiple
):
  x, kernel = normal(2, *sides, 3), normal(size, size, 1, 3 * multiple, seed=1)
  want, want_grads = loops(x, kernel, stride, lambda s: normal(*s, seed=2))
  got, grads = ours(x, kernel, stride, normal(*want.shape, seed=2))
  assert difference(got, want) <= 1e-6
  for got, want in zip(grads, want_grads, strict=True):
    assert got.shape == want.shape
    assert difference(got, want) <= 1e-6


@pytest.mark.parametrize(
  'dtype, rtol, atol', [('bfloat16', 2**-8, 1e-5), ('float64', 1e-13, 1e-13)]
)
def test_other_types_round_once(dtype, rtol, atol):
  """Relative to each entry: sums of a lower precision would be further off."""
  with jax.enable_x64(dtype == 'float64'):
    arrays = normal(2, 6, 6, 3), normal(3, 3, 1, 3, seed=1)
    x, kernel = (jnp.asarray(a, dtype) / 3 for a in arrays)
    g = jnp.asarray(normal(2, 6, 6, 3, seed=2), dtype) / 3
    exact = [np.asarray(a, np.float64) for a in (x, kernel, g)]
    want = loops(*exact[:2], 1, lambda shape: exact[2])
    got = ours(x, kernel, 1, g)
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    assert a.dtype == dtype
    np.testing.assert_allclose(np.asarray(a, np.float64), b, rtol, atol)


def test_second_gradients_are_those_of_xla():
  x, kernel = normal(2, 4, 5, 3), normal(3, 3, 1, 3, seed=1)

  def steepness(convolve, x, kernel):
    energy = lambda x, k: jnp.sum(convolve(x, k, stride=2) ** 3)
    grads = jax.grad(energy, argnums=(0, 1))(x, kernel)
    return sum(jnp.sum(jnp.square(g)) for g in grads)

  got, want = (
    jax.jit(jax.grad(functools.partial(steepness, f), argnums=(0, 1)))
    for f in (lambda x, k, stride: depthwise(x, k, stride), module._by_xla)
  )
  for a, b in zip(got(x, kernel), want(x, kernel), strict=True):
    assert difference(a, b) <= 1e-5


def test_vmap_equals_one_call_after_another():
  x, kernel = normal(4, 2, 5, 5, 3), normal(4, 3, 3, 1, 3, seed=1)
  g = normal(4, 2, 3, 3, 3, seed=2)
  run = functools.partial(ours, stride=2)
  many = jax.vmap(lambda x, k, g: run(x, k, g=g))(x, kernel, g)
  one = [run(x[n], kernel[n], g=g[n]) for n in range(4)]
  one = jax.tree.map(lambda *leaves: np.stack(leaves), *one)
  for a, b in zip(jax.tree.leaves(many), jax.tree.leaves(one), strict=True):
    assert difference(a, b) <= 1e-6


def test_devices_share_the_batch_and_sum_the_kernel_gradient_once():
  mesh = jax.make_mesh((4,), ('data',), axis_types=(AxisType.Auto,))
  whole = NamedSharding(mesh, PartitionSpec())
  split = NamedSharding(mesh, PartitionSpec('data'))
  arrays = normal(8, 5, 5, 3), normal(3, 3, 1, 3, seed=1)
  g = normal(8, 3, 3, 3, seed=2)
  compiled = (
    jax.jit(
      lambda x, k, g: ours(x, k, 2, g),
      in_shardings=(split, whole, split),
      out_shardings=(split, (split, whole)),
    )
    .lower(*arrays, g)
    .compile()
  )
  text = compiled.as_text() or ''
  outside = text[text.index('\nENTRY') :]  # of every loop
  assert text.count(' all-reduce(') == outside.count(' all-reduce(') == 1
  assert ' all-gather(' not in text
  together = compiled(
    *jax.device_put(arrays, (split, whole)), jax.device_put(g, split)
  )
  alone = ours(*arrays, 2, g)
  for a, b in zip(
    jax.tree.leaves(together), jax.tree.leaves(alone), strict=True
  ):
    assert difference(a, b) <= 1e-6


def test_residuals_are_the_arguments_alone():
  x, kernel = jnp.ones((2, 6, 6, 4)), jnp.ones((3, 3, 1, 4))
  _, pull_back = jax.vjp(lambda x, k: depthwise(x, k, 1), x, kernel)
  kept = sum(leaf.size for leaf in jax.tree.leaves(pull_back))
  assert kept == x.size + kernel.size


# The lowered program


def exported(platforms, batch: Any = 2):
  """Output and gradients as a program for these platforms."""
  x = jax.ShapeDtypeStruct((batch, 4, 4, 3), jnp.float32)
  g = jax.ShapeDtypeStruct((batch, 2, 2, 3), jnp.float32)
  kernel = jax.ShapeDtypeStruct((3, 3, 1, 3), jnp.float32)
  run = jax.jit(lambda x, k, g: ours(x, k, 2, g))
  return jax.export.export(run, platforms=platforms)(x, kernel, g)


@pytest.mark.parametrize(
  'platforms, expected',
  [(['cpu'], False), (['cuda'], True), (['tpu'], True), (['cpu', 'tpu'], True)],
)
def test_every_platform_but_the_cpu_has_convolutions(platforms, expected):
  text = exported(platforms).mlir_module()
  assert ('stablehlo.convolution' in text) == expected


def test_a_program_for_several_platforms_and_any_batch_runs():
  (batch,) = jax.export.symbolic_shape('b')
  program = exported(['cpu', 'cuda', 'tpu'], batch)
  x, kernel, g = normal(5, 4, 4, 3), normal(3, 3, 1, 3), normal(5, 2, 2, 3)
  got = program.call(x, kernel, g)
  for a, b in zip(
    jax.tree.leaves(got), jax.tree.leaves(ours(x, kernel, 2, g)), strict=True
  ):
    np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
  'features, groups, convolutions',
  [(4, 4, 0), (8, 4, 0), (4, 2, 1), (4, 1, 1)],
)
def test_only_depthwise_layers_use_it(features, groups, convolutions):
  conv = Conv(features, groups=groups)
  x = jax.ShapeDtypeStruct((2, 5, 5, 4), jnp.float32)
  params = jax.eval_shape(conv.init, jax.random.key(0), x)
  text = jax.jit(conv.apply).lower(params, x).as_text()
  assert text.count('stablehlo.convolution') == convolutions


@pytest.mark.parametrize('groups', [1, 4])
@pytest.mark.parametrize(
  'sides, size, stride',
  [((6, 7), 3, 2), ((5, 6), 5, 2), ((4, 3), 3, 1), ((6, 6), 7, 2)],
)
def test_same_padding_is_that_of_xla(sides, size, stride, groups):
  x = normal(2, *sides, 4)
  kernel = normal(size, size, 4 // groups, 4, seed=1)
  conv = Conv(4, size, stride, groups=groups, padding='same')

  def by_xla(kernel, x):
    return jax.lax.conv_general_dilated(
      x,
      kernel,
      (stride, stride),
      'SAME',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=groups,
    )

  def apply(kernel, x):
    return conv.apply({'params': {'kernel': kernel}}, x)

  @jax.jit
  def both(kernel, x, g):
    results = [jax.vjp(f, kernel, x) for f in (apply, by_xla)]
    return [(y, pull_back(g)) for y, pull_back in results]

  g = normal(*jax.eval_shape(by_xla, kernel, x).shape, seed=2)
  got, want = both(kernel, x, g)
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    assert difference(a, b) <= 1e-6


def test_an_unknown_padding_gets_suggestions():
  conv = Conv(4, padding='sam')
  with pytest.raises(KeyError, match="'sam'. Did you mean 'same'"):
    conv.init(jax.random.key(0), jnp.ones((1, 4, 4, 1)))
