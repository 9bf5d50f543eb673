"""Read-outs: their probabilities, and networks that have one."""

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxkd import models, reparam, tree
from jaxkd.models.read_out import FLOOR, READ_OUTS, ReadOut

SHAPE = (8, 8, 1)
outputs = hnp.arrays(
  np.float32, (3, 6), elements=st.floats(-3, 3, width=32, allow_subnormal=False)
)
each_distribution = pytest.mark.parametrize('how', ['clip', 'simplex'])


@jax.jit(static_argnums=0)
def softmax(how, z, temperature):
  return jax.nn.softmax(READ_OUTS[how](z) / temperature)


def probabilities(how: str, z, temperature: float = 1.0) -> np.ndarray:
  return np.asarray(softmax(how, z, temperature))


def nearest(z: np.ndarray) -> np.ndarray:
  """The projection onto the simplex, by bisection on its threshold."""
  z = z.astype(np.float64)
  low, high = z.max(axis=-1) - 1, z.max(axis=-1)
  for _ in range(60):
    middle = (low + high) / 2
    heavy = np.maximum(z - middle[..., None], 0).sum(axis=-1) > 1
    low, high = np.where(heavy, middle, low), np.where(heavy, high, middle)
  return np.maximum(z - low[..., None], 0)


@hypothesis.given(outputs)
def test_softmax_does_not_change_logits(z):
  np.testing.assert_array_equal(READ_OUTS['softmax'](z), z)


@hypothesis.given(outputs)
def test_clip_is_the_share_of_the_positive_part(z):
  positive = np.maximum(z, 0).astype(np.float64)
  total = positive.sum(axis=-1, keepdims=True)
  want = np.where(total > 0, positive / np.where(total > 0, total, 1), 1 / 6)
  np.testing.assert_allclose(probabilities('clip', z), want, atol=1e-6)


def test_clip_is_uniform_where_nothing_is_positive():
  z = jnp.array([[0.0, 0.0], [-1.0, -2.0]])
  np.testing.assert_allclose(probabilities('clip', z), np.full((2, 2), 0.5))


@hypothesis.given(outputs, st.sampled_from([0.0, 30.0, -1e3]))
def test_simplex_is_the_nearest_distribution(z, shift):
  z = z + np.float32(shift)
  got = probabilities('simplex', z)
  np.testing.assert_allclose(got, nearest(z), atol=1e-6)


@each_distribution
@hypothesis.given(z=outputs)
def test_distributions_are_not_changed(how, z):
  p = np.asarray(jax.nn.softmax(z))
  np.testing.assert_allclose(probabilities(how, p), p, atol=1e-6)
  again = probabilities(how, probabilities(how, z))
  np.testing.assert_allclose(again, probabilities(how, z), atol=1e-6)


@each_distribution
@hypothesis.given(z=outputs)
def test_a_temperature_is_a_power(how, z):
  p = probabilities(how, z).astype(np.float64) ** (1 / 4)
  want = p / p.sum(axis=-1, keepdims=True)
  got = probabilities(how, z, temperature=4.0)
  np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
  ('temperature', 'printed'), [(1.0, 0.0267), (4.0, 0.0128)]
)
def test_softmax_of_a_perfect_output_is_not_confident(temperature, printed):
  """A perfect output of the square loss is the label, here of 100 classes.

  The printed figures are those of softmax.
  """
  label = np.eye(100, dtype=np.float32)[3]
  top = {how: probabilities(how, label, temperature)[3] for how in READ_OUTS}
  assert round(float(top['softmax']), 4) == printed
  floors = 99 * FLOOR ** (1 / temperature)
  for how in ('clip', 'simplex'):
    np.testing.assert_allclose(top[how], 1 / (1 + floors), rtol=1e-5)
  assert floors < 1e-2


@each_distribution
def test_gradients_are_finite_and_right(how):
  kinks = (np.zeros((1, 4)), -np.ones((1, 4)), np.eye(4), 1e6 * np.eye(4))
  slope = jax.jit(jax.grad(lambda z: jnp.sum(READ_OUTS[how](z)[..., 0])))(
    np.concatenate(kinks).astype(np.float32)
  )
  assert np.all(np.isfinite(slope))
  with jax.enable_x64(True):
    z = jnp.array([0.9, 0.3, -0.2, 0.05])
    check_grads(jax.jit(READ_OUTS[how]), (z,), order=1)


@each_distribution
def test_nan_stays_nan(how):
  assert np.all(np.isnan(READ_OUTS[how](jnp.array([jnp.nan, 1.0, 2.0]))))


def net(how: str, **changes):
  """A network with BatchNorm and branches."""
  settings = {'width': 1 / 8, 'branches': 2, **changes}
  return models.build('resnet8', 3, how, **settings)


@pytest.fixture(scope='module')
def pair():
  """The network, the same one read by clip, and variables for both."""
  plain, read = net('softmax'), net('clip')
  draw = np.random.default_rng(0).uniform
  variables = jax.tree.map(
    lambda leaf: np.float32(draw(-0.4, 0.5, leaf.shape)),
    tree.shapes(plain, SHAPE),
  )
  variables['batch_stats'] = jax.tree.map(np.abs, variables['batch_stats'])
  return plain, read, variables


class TestNetworks:
  """A network with a read-out differs from the network in its logits alone."""

  def test_has_the_same_variables(self, pair):
    plain, read, variables = pair
    shapes = tree.shapes(read, SHAPE)
    assert tree.differences(variables, shapes) == []
    assert jax.tree.structure(shapes) == jax.tree.structure(
      tree.shapes(plain, SHAPE)
    )

  def test_returns_the_read_out_in_eval_mode(self, pair):
    plain, read, variables = pair
    image = jax.random.normal(jax.random.key(1), (5, *SHAPE))
    raw, read_outputs = (
      module.apply(variables, image) for module in (plain, read)
    )
    np.testing.assert_array_equal(
      read_outputs.logits, READ_OUTS['clip'](raw.logits)
    )
    assert np.any(read_outputs.logits != raw.logits)
    for tap, value in raw.taps.items():
      np.testing.assert_array_equal(read_outputs.taps[tap], value)

  def test_learns_as_the_network_does(self, pair):
    plain, read, variables = pair
    image = jax.random.normal(jax.random.key(1), (5, *SHAPE))
    raw, read_outputs = (
      module.apply(variables, image, train=True, mutable=['batch_stats'])
      for module in (plain, read)
    )
    np.testing.assert_array_equal(read_outputs[0].logits, raw[0].logits)
    assert tree.digest(read_outputs[1]) == tree.digest(raw[1])

  def test_is_described_as_the_network(self, pair):
    plain, read, _ = pair
    for name in ('width', 'branches', 'dtype', 'num_classes'):
      assert getattr(read, name) == getattr(plain, name)
    assert models.macs(read, SHAPE) == models.macs(plain, SHAPE)
    assert models.read_out_of(read) == 'clip'
    assert models.read_out_of(plain) == 'softmax'

  def test_plan_and_folded_biases_are_those_of_the_plain_network(self, pair):
    plain, read, variables = pair
    wide = net('softmax', width=1 / 4)
    plans = [reparam.make_plan(narrow, wide, SHAPE) for narrow in (plain, read)]
    assert plans[0] == plans[1]
    merged = reparam.merge(variables)
    folded = [
      reparam.fold_biases(merged, net(how, branches=1), SHAPE)
      for how in ('softmax', 'clip')
    ]
    assert tree.digest(folded[0]) == tree.digest(folded[1])

  def test_is_a_static_argument_by_value(self, pair):
    _, read, variables = pair
    traces = []

    @jax.jit(static_argnums=0)
    def predict(module, variables, image):
      traces.append(module)
      return module.apply(variables, image).logits

    again = ReadOut(net('softmax'), 'clip')
    for module in (read, again):
      predict(module, variables, jnp.zeros((1, *SHAPE)))
    assert len(traces) == 1 and again == read
    assert models.wrap(read.network, 'simplex') != read


def test_an_unknown_read_out_is_named():
  with pytest.raises(KeyError, match="no read-out 'clap'. Did you mean 'clip'"):
    models.build('mlp', 3, 'clap')
