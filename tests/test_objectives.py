"""What holds for every objective, and objectives from names and settings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd import losses, objectives
from jaxkd.types import Outputs

each = pytest.mark.parametrize('name', sorted(objectives.CATALOG))
B, K = 4, 5
KEY = jax.random.key(0)
LABELS = jnp.array([3, 1, 4, 1])
BATCH = dict(
  image=jnp.zeros((B, 6, 6, 3)),
  label=LABELS,
  index=jnp.arange(B),
  mask=jnp.ones(B),
)


def outputs(seed: int) -> Outputs:
  draw = np.random.default_rng(seed).normal
  taps = {f'stage{i}': (B, 8 >> i, 8 >> i, 4 << i) for i in range(1, 4)} | {
    'pooled': (B, 32)
  }
  return Outputs(
    jnp.asarray(draw(size=(B, K)), jnp.float32),
    {k: jnp.asarray(draw(size=v), jnp.float32) for k, v in taps.items()},
  )


GUIDE, LEARNER = outputs(0), outputs(1)


def loss_of(objective, learner=LEARNER):
  """Returns the loss of an objective on its first step."""
  params, memory = objective.init(KEY, GUIDE, learner, 100)
  return objective.loss(params, memory, GUIDE, learner, BATCH, KEY)[0]


@each
def test_is_finite_and_pulls_the_learner(name):
  objective = objectives.make(name)

  @jax.jit
  @jax.value_and_grad
  def value(learner):
    return jnp.mean(loss_of(objective, learner))

  loss, slope = value(LEARNER)
  slopes = jax.tree.leaves(slope)
  assert np.isfinite(loss)
  assert all(np.all(np.isfinite(x)) for x in slopes)
  assert any(np.any(x != 0) for x in slopes)


@each
def test_is_a_value_for_each_example_or_for_the_batch(name):
  shape = jax.eval_shape(lambda: loss_of(objectives.make(name))).shape
  assert shape in ((B,), ())


@each
def test_prints_its_name_and_all_its_settings(name):
  objective = objectives.make(name)
  assert objective.name == name
  arguments = objectives.make({'name': name, **objective.settings})
  assert str(arguments) == str(objective)


@each
def test_is_documented(name):
  assert objectives.CATALOG[name].__doc__


@pytest.mark.parametrize(
  ('spec', 'want'),
  [
    (
      {'name': 'dkd', 'alpha': 0.5, 'beta': 2.0, 'temperature': 1.5},
      losses.dkd(LEARNER.logits, GUIDE.logits, LABELS, 0.5, 2.0, 1.5),
    ),
    (
      {'name': 'soft_cross_entropy', 'smoothing': 0.1, 'temperature': 1.5},
      losses.soft_cross_entropy(LEARNER.logits, GUIDE.logits, 0.1, 1.5),
    ),
    (
      {'name': 'kd', 'temperature': 1.5},
      losses.kd(LEARNER.logits, GUIDE.logits, 1.5),
    ),
    (
      {'name': 'brier', 'reduction': 'mean'},
      losses.brier(LEARNER.logits, LABELS, 'mean'),
    ),
    (
      {'name': 'square_logits', 'reduction': 'mean'},
      losses.square_logits(LEARNER.logits, LABELS, 'mean'),
    ),
  ],
  ids=lambda value: value['name'] if isinstance(value, dict) else '',
)
def test_settings_reach_the_loss(spec, want):
  given = dict(spec)
  np.testing.assert_array_equal(loss_of(objectives.make(spec)), want)
  assert spec == given  # not changed by reading it


@pytest.mark.parametrize('name', ['dkd', 'soft_cross_entropy'])
def test_a_name_means_the_defaults_of_the_loss(name):
  labels = (LABELS,) if name == 'dkd' else ()
  want = getattr(losses, name)(LEARNER.logits, GUIDE.logits, *labels)
  np.testing.assert_array_equal(loss_of(objectives.make(name)), want)


def test_make_suggests_a_name():
  with pytest.raises(KeyError, match="no objective 'dkt'. Did you mean 'dkd'"):
    objectives.make('dkt')
  with pytest.raises(KeyError, match="no objective 'soft_ce'. Did you mean 's"):
    objectives.make({'name': 'soft_ce', 'smoothing': 0.1})


def test_make_suggests_a_setting():
  message = "objective 'dkd' takes no setting 'betta'. Did you mean 'beta'"
  with pytest.raises(ValueError, match=message):
    objectives.make({'name': 'dkd', 'betta': 2.0})


@pytest.mark.parametrize('spec', [{'beta': 2.0}, {'name': 3}, {}, None, 4.0])
def test_make_says_what_it_expects(spec):
  message = "a name, like 'kd', or a mapping with one, like {'name': 'kd'"
  with pytest.raises(ValueError, match=message) as error:
    objectives.make(spec)
  assert str(error.value).endswith(f'got {spec!r}')
