"""Objectives around objectives: standardised logits, a learned temperature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from test_objectives import (
  BATCH,
  GUIDE,
  KEY,
  LABELS,
  LEARNER,
  B,
  initial,
  loss_of,
  step,
)

from jaxkd import losses, objectives
from jaxkd.objectives.ctkd import reverse
from jaxkd.objectives.permuted import shuffled
from jaxkd.training import state as states
from jaxkd.training.step import make_step

START = 1 + 20 / (1 + np.exp(-1.0))


CURRICULUM = objectives.ctkd(start=-2.0)


def kd_at(x, s=LEARNER.logits, t=GUIDE.logits):
  """KD at CTKD's temperature, as a function of what it learns."""
  temperature = 1 + 20 / (1 + np.exp(-x))
  with jax.enable_x64(True):
    s, t = (jnp.asarray(z, jnp.float64) for z in (s, t))
    return float(jnp.mean(losses.kd(s, t, temperature)))


def uphill(x, *logits):
  return (kd_at(x + 1e-4, *logits) - kd_at(x - 1e-4, *logits)) / 2e-4


@jax.jit
def value_and_slope(params, epoch):
  """Returns the loss of `CURRICULUM` and its slope at x."""

  def loss(params):
    return jnp.mean(step(CURRICULUM, params, {}, epoch=epoch)[0])

  value, slope = jax.value_and_grad(loss)(params)
  return value, slope['curriculum']


def test_standardised_logits_ignore_scale_and_shift():
  objective = objectives.make('standardised')
  moved = LEARNER.replace(logits=3 * LEARNER.logits + 7)
  np.testing.assert_allclose(
    loss_of(objective, moved), loss_of(objective), rtol=1e-4
  )
  want = losses.kd(
    *(losses.standardise(x.logits) for x in (LEARNER, GUIDE)), 2.0
  )
  np.testing.assert_array_equal(loss_of(objective), want)


def test_a_wrapper_leaves_taps_and_labels_alone():
  seen = []

  def loss(params, memory, *, learner, guide, batch, **_):
    seen.append((learner, guide, batch))
    return jnp.zeros(B), memory

  inner = objectives.Objective('inner', {}, objectives.kd().init, loss)
  outer = objectives.standardised(inner)
  step(outer, {}, {})
  step(outer, {}, {}, guide=None)
  (learner, guide, batch), (_, labels, _) = seen
  assert guide.taps is GUIDE.taps and learner.taps is LEARNER.taps
  assert batch is BATCH and labels is None
  np.testing.assert_allclose(np.mean(guide.logits, axis=-1), 0, atol=1e-6)


def test_permuted_logits_keep_the_largest_and_move_the_others():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(200, 6)).astype(np.float32)
  permuted = np.asarray(shuffled(KEY, jnp.asarray(logits)))
  np.testing.assert_array_equal(np.sort(permuted), np.sort(logits))
  best = np.argmax(logits, axis=-1)
  np.testing.assert_array_equal(np.argmax(permuted, axis=-1), best)
  same = (
    permuted[np.arange(6) != best[:, None]]
    == (logits[np.arange(6) != best[:, None]])
  )
  assert 0.1 < np.mean(same) < 0.3  # one in five by chance
  assert np.any(permuted != np.asarray(shuffled(jax.random.key(9), logits)))
  with pytest.raises(ValueError, match='labels have none'):
    step(objectives.permuted(), {}, {}, guide=None)


def test_reordered_is_another_objective_of_sorted_logits():
  sorted_logits = losses.reordered(GUIDE.logits, LABELS)
  assert np.any(sorted_logits != GUIDE.logits)
  for inner in (objectives.kd(), objectives.dkd(), objectives.fitnet('stage1')):
    params, memory = initial(inner)
    got, _ = step(objectives.reordered(inner), params, memory)
    want, _ = step(
      inner, params, memory, guide=GUIDE.replace(logits=sorted_logits)
    )
    np.testing.assert_array_equal(got, want)
  with pytest.raises(ValueError, match='labels have none'):
    step(objectives.reordered(), {}, {}, guide=None)


def test_reverse_keeps_the_value_and_reverses_the_gradient():
  value, slope = jax.value_and_grad(reverse)(jnp.float32(0.7), 0.25)
  assert (value, slope) == (np.float32(0.7), -0.25)


@pytest.mark.parametrize(
  ('inner', 'want'),
  [
    (objectives.kd, lambda s, t: losses.kd(s, t, START)),
    (objectives.dkd, lambda s, t: losses.dkd(s, t, LABELS, temperature=START)),
    (objectives.dist, lambda s, t: losses.dist(s, t, temperature=START)),
  ],
)
def test_ctkd_is_its_objective_at_the_temperature(inner, want):
  objective = objectives.ctkd(inner(temperature=1.0))
  np.testing.assert_allclose(
    loss_of(objective), want(LEARNER.logits, GUIDE.logits), rtol=1e-4
  )


def test_the_temperature_climbs_ever_more_in_the_first_ten_epochs():
  params, memory = initial(CURRICULUM)
  assert memory == {}
  slopes, epochs = [], np.arange(40) / 3
  for epoch in epochs:
    value, slope = value_and_slope(params, jnp.float32(epoch))
    np.testing.assert_allclose(value, kd_at(-2.0), rtol=1e-5)
    slopes.append(float(slope))
  epochs = np.minimum(np.arange(40) // 3 + 1, 10)
  rates = (1 - np.cos(np.pi * epochs / 10)) / 2
  np.testing.assert_allclose(slopes, -rates * uphill(-2.0), rtol=1e-3)


def test_standardised_logits_at_a_learned_temperature():
  objective = objectives.make({'name': 'standardised', 'objective': 'ctkd'})
  s, t = (losses.standardise(x.logits) for x in (LEARNER, GUIDE))
  want = losses.kd(s, t, START)
  np.testing.assert_allclose(loss_of(objective), want, rtol=1e-4)
  params, memory = initial(objective)
  assert set(params) == {'curriculum'} and memory == {}


def test_a_training_learns_the_temperature_against_the_student():
  """It moves by the learning rate times the gradient, but uphill."""
  inner = dict(name='ctkd', start=-2.0, epochs=2)
  experiment = tiny.experiment(
    method=dict(name='slkd', members=0, objective=inner),
    optimizer__learning_rate=1.0,
    optimizer__weight_decay=0.0,
  )
  task = experiment.phases[-1].task(experiment.dataset)
  program, key = task.program, jax.random.key(0)
  initial = {'teacher': program.init_network('teacher', key)}
  state = states.init(program, task.optimizer, key, initial, examples=8)
  batch = dict(
    image=10 * jax.random.normal(key, (8, *program.input_shape)),
    label=jnp.arange(8) % 3,
    index=jnp.arange(8),
    mask=jnp.ones(8),
  )
  outputs, _ = program.forward(
    program.resolve(state.params), state.stats, batch['image']
  )
  logits = outputs['student'].logits, outputs['teacher'].logits
  step = make_step(program, task.optimizer, seed=0, steps_per_epoch=1, epochs=1)
  state, metrics = jax.jit(step)(state, batch)
  (name,) = state.objectives
  moved = float(state.objectives[name]['curriculum']) + 2
  np.testing.assert_allclose(
    moved, 0.9 * 0.5 * uphill(-2.0, *logits), rtol=0.01
  )
  np.testing.assert_allclose(
    metrics[f'loss/{name}'], kd_at(-2.0, *logits), rtol=1e-4
  )


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    (dict(objective='kd'), r'got kd\(temperature=4.0\): .* set it to 1.0'),
    (dict(objective='standardised'), 'take one that has a temperature'),
    (dict(lowest=0.0), "objective 'ctkd': lowest must be above 0, got 0.0"),
    (dict(span=-1.0), "objective 'ctkd': span must be above 0, got -1.0"),
    (
      dict(epochs=0),
      "objective 'ctkd': epochs must be at least 1 and .*, got 0",
    ),
  ],
)
def test_ctkd_refuses_wrong_settings(settings, message):
  with pytest.raises(ValueError, match=message):
    objectives.make({'name': 'ctkd', **settings})
