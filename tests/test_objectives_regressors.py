"""Regressors: the layers between two maps, and FitNet, which is one."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objective_inputs import KEY, NOW, convolved, draw, transposed, windowed

from jaxkd import losses, objectives
from jaxkd.objectives import regressors
from jaxkd.training import mesh as meshes
from jaxkd.types import Outputs


def only(x) -> Outputs:
  return Outputs(jnp.zeros((1, 3)), {'stage1': jnp.asarray(x)})


LAYERS = {  # source and target, kernel, and what is done with it
  'halved': ((8, 6), (4, 3), (3, 3), lambda x, k: convolved(x, k, 2, 1)),
  'doubled': (
    (3, 2),
    (6, 4),
    (4, 4),
    lambda x, k: transposed(x, k[::-1, ::-1]),
  ),
  'equal': ((4, 3), (4, 3), (1, 1), lambda x, k: convolved(x, k, 1, 0)),
  'shrunk': ((7, 5), (5, 4), (3, 2), lambda x, k: convolved(x, k, 1, 0)),
  'shrunk by four': (
    (8, 4),
    (2, 1),
    (7, 4),
    lambda x, k: convolved(x, k, 1, 0),
  ),
  # Where the published method ends: first averaged to the smaller size.
  'other ratio': (
    (2, 3),
    (5, 3),
    (1, 1),
    lambda x, k: convolved(x, k, 1, 0),
  ),
  'mixed ratio': (
    (6, 2),
    (3, 4),
    (1, 1),
    lambda x, k: convolved(windowed(x, (3, 2)), k, 1, 0),
  ),
}
each_layer = pytest.mark.parametrize('layer', LAYERS)


@functools.cache
def hinted(layer):
  """Returns inputs, loss and parameters of FitNet, as NumPy arrays."""
  source, target, *_ = LAYERS[layer]
  learner, guide = draw(4, *source, 3), np.abs(draw(4, *target, 5, seed=1))
  objective = objectives.fitnet('stage1')

  @jax.jit
  def run(learner, guide):
    ends = dict(guide=only(guide), learner=only(learner))
    params, memory = objective.init(KEY, examples=9, **ends)
    params['bn']['scale'] += jnp.arange(5.0)  # away from the neutral start
    params['bn']['bias'] += 0.1 * jnp.arange(5.0)
    value, memory = objective.loss(params, memory, **ends, **NOW)
    return value, params, memory

  value, params, memory = run(learner, guide)
  assert memory == {}
  return learner, guide, np.asarray(value), jax.tree.map(np.asarray, params)


@each_layer
def test_fitnet_is_its_formula(layer):
  learner, guide, value, params = hinted(layer)
  _, _, size, layer_of = LAYERS[layer]
  kernel, bias = params['conv']['kernel'], params['conv']['bias']
  assert kernel.shape == (*size, 3, 5)
  x = layer_of(learner.astype(np.float64), kernel.astype(np.float64)) + bias
  mean, var = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
  x = (x - mean) / np.sqrt(var + 1e-5)
  x = np.maximum(params['bn']['scale'] * x + params['bn']['bias'], 0)
  want = np.square(x - windowed(guide, x.shape[1:3]))
  np.testing.assert_allclose(value, want.mean(axis=(1, 2, 3)), rtol=2e-5)
  np.testing.assert_allclose(value.mean(), want.mean(), rtol=2e-5)


@pytest.mark.parametrize('layer', ['halved', 'doubled', 'equal', 'shrunk'])
def test_layers_start_as_in_pytorch(layer):
  """Uniform; the fan-in of a transposed convolution is k k C_out there."""
  source, target, size, _ = LAYERS[layer]
  module = regressors.ConvReg((*target, 64))
  init = jax.jit(functools.partial(regressors.init, module))
  params = init(KEY, jnp.zeros((1, *source, 32)))
  channels = 64 if layer == 'doubled' else 32
  bound = 1 / math.sqrt(math.prod(size) * channels)
  for name, sample in params['conv'].items():
    assert 0.85 * bound < np.max(sample) < bound, name
    assert -bound < np.min(sample) < -0.85 * bound, name
    deviation = bound / math.sqrt(3) / math.sqrt(sample.size)
    assert abs(np.mean(sample)) < 4 * deviation, name


def test_the_last_relu_can_be_left_out():
  x = jnp.asarray(draw(4, 3, 3, 2))
  params = regressors.init(regressors.ConvReg((3, 3, 5)), KEY, x)
  bent, straight = (
    regressors.apply(regressors.ConvReg((3, 3, 5), relu), params, x)
    for relu in (True, False)
  )
  assert np.min(straight) < 0
  np.testing.assert_array_equal(bent, np.maximum(straight, 0))


def test_on_four_devices_the_statistics_are_of_the_whole_batch():
  sharding = meshes.batch_split(meshes.make_mesh(jax.devices()[:4]), 8)
  module = regressors.ConvReg((4, 4, 3), relu=False)
  x = draw(8, 4, 4, 2) * np.arange(1, 9).reshape(8, 1, 1, 1)
  params = jax.jit(functools.partial(regressors.init, module))(KEY, x)
  run = jax.jit(functools.partial(regressors.apply, module))
  y = np.asarray(run(params, jax.device_put(x, sharding)))
  np.testing.assert_allclose(np.mean(y, axis=(0, 1, 2)), 0, atol=1e-5)
  np.testing.assert_allclose(np.var(y, axis=(0, 1, 2)), 1, rtol=1e-3)
  assert np.var(y[:2]) < 0.1  # a device's part by itself


def test_hint_is_the_mean_of_each_example():
  x, y = draw(4, 2, 3, 5), draw(4, 2, 3, 5, seed=1)
  want = np.square(np.float64(x) - np.float64(y)).mean(axis=(1, 2, 3))
  np.testing.assert_allclose(losses.hint(x, y), want, rtol=1e-5)
