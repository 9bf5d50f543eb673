"""The layers against formulas that share no code with them."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxkd.models import layers
from jaxkd.models.wide_resnet import WideResNet


def normal(*shape, seed=0):
  rng = np.random.default_rng(seed)
  return rng.normal(size=shape).astype(np.float32)


# Convolution


def convolve(x, kernel, stride, groups):
  """One output pixel at a time, zeros on both sides, float64."""
  k, _, depth, features = kernel.shape
  pad = k // 2
  x = np.pad(x, [(0, 0), (pad, pad), (pad, pad), (0, 0)])
  rows = range(0, x.shape[1] - k + 1, stride)
  columns = range(0, x.shape[2] - k + 1, stride)
  y = np.zeros((len(x), len(rows), len(columns), features))
  for f in range(features):
    first = f // (features // groups) * depth
    for i, row in enumerate(rows):
      for j, column in enumerate(columns):
        patch = x[:, row : row + k, column : column + k, first : first + depth]
        y[:, i, j, f] = np.sum(patch * kernel[..., f], axis=(1, 2, 3))
  return y


@pytest.mark.parametrize('side', [4, 5])
@pytest.mark.parametrize(
  'size, stride, groups',
  [(1, 1, 1), (1, 2, 1), (3, 1, 1), (3, 2, 1), (3, 1, 2), (3, 2, 4), (7, 2, 1)],
)
def test_convolution_pads_both_sides(side, size, stride, groups):
  x = normal(2, side, side, 4)
  kernel, bias = normal(size, size, 4 // groups, 8, seed=1), normal(8, seed=2)
  conv = layers.Conv(8, size, stride, groups, use_bias=True)
  params = {'kernel': kernel, 'bias': bias}
  got = jax.jit(conv.apply)({'params': params}, x)
  want = convolve(x, kernel.astype(np.float64), stride, groups) + bias
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


# BatchNorm


def batch_norm_case():
  """A map far from zero, parameters, and statistics that are not fresh."""
  x = 2 + normal(4, 3, 3, 6)
  params = {'scale': 1 + normal(6, seed=1) / 4, 'bias': normal(6, seed=2)}
  stats = {'mean': normal(6, seed=3), 'var': 1 + normal(6, seed=4) ** 2}
  return x, {'params': params, 'batch_stats': stats}


@pytest.mark.parametrize('train', [True, False])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_batch_norm_agrees_with_flax_and_so_does_its_gradient(train, dtype):
  x, variables = batch_norm_case()
  ours = functools.partial(layers.BatchNorm(dtype).apply, train=train)
  theirs = nn.BatchNorm(
    use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=dtype
  ).apply

  def weighted(apply, x, params):
    updated = {**variables, 'params': params}
    y, stats = apply(updated, x, mutable=['batch_stats'])
    return jnp.sum(y * normal(*x.shape, seed=5)), (y, stats)

  def run(apply, wrap=lambda f: f):
    loss = functools.partial(weighted, apply)
    grad = jax.grad(wrap(loss), argnums=(0, 1), has_aux=True)
    return jax.jit(grad)(x.astype(dtype), variables['params'])

  tolerance = 1e-5 if dtype == 'float32' else 0.05
  close = functools.partial(
    np.testing.assert_allclose, rtol=tolerance, atol=tolerance
  )
  as_float = functools.partial(jax.tree.map, lambda a: a.astype('float32'))
  want_grads, (want, want_stats) = run(theirs)
  for results in (run(ours), run(ours, jax.checkpoint)):
    grads, (y, stats) = results
    assert y.dtype == dtype
    close(y.astype('float32'), want.astype('float32'))
    jax.tree.map(close, as_float(grads), as_float(want_grads))
    # Whatever the type of the map: these are float32.
    jax.tree.map(
      functools.partial(close, rtol=1e-5, atol=1e-5), stats, want_stats
    )


def test_batch_norm_variance_survives_a_large_mean():
  x = 1000 + normal(64, 2, 2, 3)
  _, variables = batch_norm_case()
  variables = jax.tree.map(lambda a: a[:3], variables)
  apply = functools.partial(layers.BatchNorm().apply, mutable=['batch_stats'])
  _, moved = apply(variables, x, train=True)
  var = x.astype(np.float64).var(axis=(0, 1, 2))
  want = 0.9 * variables['batch_stats']['var'] + 0.1 * var
  np.testing.assert_allclose(moved['batch_stats']['var'], want, rtol=1e-5)


# Pooling


@pytest.mark.parametrize('shape', [(2, 4, 4, 3), (2, 5, 7, 3)])
def test_max_pool_agrees_with_flax_and_so_does_its_gradient(shape):
  x = normal(*shape)

  def theirs(x):
    return nn.max_pool(x, (2, 2), strides=(2, 2))

  want, pull_back = jax.vjp(theirs, x)
  got, our_pull_back = jax.vjp(layers.max_pool, x)
  np.testing.assert_array_equal(got, want)
  g = normal(*want.shape, seed=1)
  np.testing.assert_array_equal(our_pull_back(g)[0], pull_back(g)[0])


def test_max_pool_shares_the_gradient_of_a_tie():
  grad = jax.grad(lambda x: jnp.sum(layers.max_pool(x)))(jnp.ones((1, 2, 2, 1)))
  np.testing.assert_array_equal(grad, np.full((1, 2, 2, 1), 0.25))


# Several devices


def test_statistics_of_a_sharded_batch_are_global():
  mesh = jax.make_mesh((4,), ('data',), axis_types=(AxisType.Auto,))
  whole = NamedSharding(mesh, PartitionSpec())
  split = NamedSharding(mesh, PartitionSpec('data'))
  net = WideResNet(10, 1, num_classes=5, width=0.25)
  image = normal(8, 8, 8, 1)
  variables = jax.eval_shape(net.init, jax.random.key(0), image)
  keys = iter(range(1000))
  variables = jax.tree.map(
    lambda a: jnp.abs(normal(*a.shape, seed=next(keys))), variables
  )

  def loss(params, image):
    apply = functools.partial(net.apply, train=True, mutable=['batch_stats'])
    outputs, moved = apply({**variables, 'params': params}, image)
    return jnp.mean(jnp.square(outputs.logits)), moved

  step = jax.grad(loss, has_aux=True)
  alone = jax.jit(step)(variables['params'], image)
  together = jax.jit(step, in_shardings=(whole, split), out_shardings=whole)(
    variables['params'], image
  )
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-4),
    together,
    alone,
  )
