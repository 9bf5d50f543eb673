"""Which examples a guide teaches, how hard, and what it says of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_objectives import BATCH, GUIDE, KEY, LABELS, LEARNER, B, K, loss_of

from jaxkd import losses, objectives
from jaxkd.objectives import scores
from jaxkd.objectives.revised import revise
from jaxkd.types import Outputs

P = np.asarray(jax.nn.softmax(GUIDE.logits), np.float64)
P_Y = P[np.arange(B), LABELS]
EACH = np.asarray(losses.kd(LEARNER.logits, GUIDE.logits))  # [B]


def score(name):
  return np.asarray(scores.SCORES[name](GUIDE, LEARNER, BATCH))


# Scores


def test_scores_are_what_they_say():
  others = np.where(np.eye(K, dtype=bool)[LABELS], 0, P)
  for name, want in {
    'right': P.argmax(1) == np.asarray(LABELS),
    'confidence': P.max(1),
    'target': P_Y,
    'margin': P_Y - others.max(1),
    'error': np.sqrt(np.sum((P - np.eye(K)[LABELS]) ** 2, axis=1)),
  }.items():
    np.testing.assert_allclose(score(name), want, rtol=1e-5, err_msg=name)
  assert set(score('right')) == {0.0, 1.0}


# Weights


def test_a_weight_for_each_example():
  got = loss_of(objectives.weighted('target'))
  np.testing.assert_allclose(got, P_Y * EACH, rtol=1e-5)
  got = loss_of(objectives.make({'name': 'weighted', 'score': 'right'}))
  np.testing.assert_allclose(got, score('right') * EACH, rtol=1e-5)
  own = loss_of(
    objectives.weighted(lambda guide, learner, batch: jnp.arange(B))
  )
  np.testing.assert_allclose(own, np.arange(B) * EACH, rtol=1e-5)


def test_labels_weighted_by_confidence():
  """Born-again networks' CWTM."""
  spec = dict(
    name='weighted',
    objective='cross_entropy',
    score='confidence',
    normalise=True,
  )
  by_labels = losses.cross_entropy(LEARNER.logits, LABELS)
  want = P.max(1) / P.max(1).mean() * by_labels
  np.testing.assert_allclose(loss_of(objectives.make(spec)), want, rtol=1e-5)


def test_a_score_pulls_nobody():
  objective = objectives.weighted('target')

  def loss(logits):
    guide = GUIDE._replace(logits=logits)
    args = ({}, {}, guide, LEARNER, BATCH, KEY)
    return jnp.sum(objective.loss(*args)[0])

  def still(logits):
    return jnp.sum(P_Y * losses.kd(LEARNER.logits, logits))

  got, want = (jax.grad(f)(GUIDE.logits) for f in (loss, still))
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


# Selection


@pytest.mark.parametrize(
  ('keep', 'count'), [(1.0, 4), (0.5, 2), (0.3, 1), (0.01, 1)]
)
def test_those_are_kept_that_score_highest(keep, count):
  got = loss_of(objectives.selected(keep, 'margin'))
  kept = np.argsort(-score('margin'))[:count]
  want = np.where(np.isin(np.arange(B), kept), EACH, 0)
  np.testing.assert_allclose(got, want, rtol=1e-5)


def test_of_equals_as_many_as_there_should_be():
  flat = objectives.selected(0.5, lambda guide, learner, batch: jnp.zeros(B))
  assert np.count_nonzero(loss_of(flat)) == 2


def test_padding_is_not_kept():
  """It has the highest score, and half of the three others are two."""
  batch = {**BATCH, 'mask': jnp.array([1.0, 1, 1, 0])}
  objective = objectives.selected(
    0.5, lambda guide, learner, batch: jnp.arange(4.0)
  )
  value, _ = objective.loss({}, {}, GUIDE, LEARNER, batch, KEY)
  np.testing.assert_array_equal(
    np.asarray(value) > 0, [False, True, True, False]
  )
  batch = {**BATCH, 'mask': jnp.zeros(4)}
  value, _ = objective.loss({}, {}, GUIDE, LEARNER, batch, KEY)
  np.testing.assert_array_equal(value, 0)


@pytest.mark.parametrize(
  ('spec', 'message'),
  [
    (dict(name='weighted', score='rigth'), "no score 'rigth'. Did you mean"),
    (dict(name='selected', score='right', keep=0), 'keep=0: expected a part'),
    (dict(name='selected', score='right', keep=1.5), 'keep=1.5: expected'),
    (dict(name='revised', eta=1.0), 'eta=1.0: expected above 0 and below 1'),
    (dict(name='annealed', start=4, epochs=2, objective='kd'), 'set it to 1.0'),
    (dict(name='annealed', start=0, epochs=2), 'temperatures above 0'),
    (dict(name='annealed', start=4, epochs=0), '1 epoch or more'),
  ],
)
def test_what_cannot_be_is_refused(spec, message):
  with pytest.raises((KeyError, ValueError), match=message):
    objectives.make(spec)


def test_what_has_no_loss_for_each_example_is_refused():
  dist = objectives.pointwise(
    'mean', lambda guide, learner, batch: jnp.zeros(())
  )
  with pytest.raises(ValueError, match='one loss for the whole batch'):
    loss_of(objectives.weighted('right', dist))
  for spec in (
    dict(name='weighted', score='right'),
    dict(name='revised', eta=0.5),
  ):
    objective = objectives.make(spec)
    with pytest.raises(ValueError, match='let a network be the guide'):
      objective.loss({}, {}, None, LEARNER, BATCH, KEY)


# Revision

logits = st.lists(
  st.lists(st.floats(-8, 8, width=32), min_size=K, max_size=K),
  min_size=B,
  max_size=B,
)


@given(logits=logits, eta=st.floats(0.05, 0.95))
def test_after_revision_the_label_is_on_top(logits, eta):
  z = np.array(logits, np.float64)
  p = np.exp(z - z.max(1, keepdims=True))
  p /= p.sum(1, keepdims=True)
  log_p = np.log(p).astype(np.float32)
  got = np.exp(np.asarray(revise(jnp.asarray(log_p), LABELS, eta), np.float64))
  p_y = p[np.arange(B), LABELS]
  beta = (eta / (p.max(1) - p_y + 1))[:, None]
  want = beta * p + (1 - beta) * np.eye(K)[LABELS]
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-7)
  np.testing.assert_allclose(got.sum(1), 1, rtol=1e-5)
  assert np.all(got.argmax(1) == np.asarray(LABELS))
  right = p.argmax(1) == np.asarray(LABELS)
  np.testing.assert_allclose(beta[right], eta, rtol=1e-6)


def soft(z, temperature=1.0):
  e = np.exp((z - z.max(1, keepdims=True)) / temperature)
  return e / e.sum(1, keepdims=True)


def revised_by_hand(p, eta):
  p_y = p[np.arange(B), LABELS]
  beta = (eta / (p.max(1) - p_y + 1))[:, None]
  return beta * p + (1 - beta) * np.eye(K)[LABELS]


@pytest.mark.parametrize('softened', [True, False])
def test_revision_is_after_or_before_the_temperature(softened):
  objective = objectives.revised(0.8, objectives.kd(4.0), softened)
  z, s = (np.asarray(x.logits, np.float64) for x in (GUIDE, LEARNER))
  if softened:
    p = revised_by_hand(soft(z, 4.0), 0.8)
  else:
    p = soft(np.log(revised_by_hand(soft(z), 0.8)), 4.0)
  q = soft(s, 4.0)
  want = 16 * np.sum(p * (np.log(p) - np.log(q)), axis=1)
  with jax.enable_x64(True):
    guide, learner = (Outputs(jnp.asarray(x), {}) for x in (z, s))
    got = objective.loss({}, {}, guide, learner, BATCH, KEY)[0]
  np.testing.assert_allclose(got, want, rtol=1e-11)


def test_scores_are_as_exact_as_the_logits():
  with jax.enable_x64(True):
    guide = Outputs(jnp.asarray(GUIDE.logits, jnp.float64), {})
    got = scores.confidence(guide, guide, BATCH)
  p = soft(np.asarray(GUIDE.logits, np.float64))
  np.testing.assert_allclose(got, p.max(1), rtol=1e-13)


def test_revision_bears_a_guide_that_is_sure():
  sure = GUIDE._replace(logits=1e4 * jax.nn.one_hot(LABELS + 1, K))
  objective = objectives.revised(0.9, objectives.kd(1.0))

  @jax.value_and_grad
  def loss(logits):
    learner = LEARNER._replace(logits=logits)
    return jnp.sum(objective.loss({}, {}, sure, learner, BATCH, KEY)[0])

  value, slope = loss(LEARNER.logits)
  assert np.isfinite(value) and np.all(np.isfinite(slope))


# A temperature that falls


def test_the_temperature_falls_epoch_by_epoch():
  objective = objectives.annealed(start=5.0, epochs=3)
  params, memory = objective.init(KEY, GUIDE, LEARNER, 2 * B)
  step = jax.jit(objective.loss)
  for temperature in (5.0, 5.0, 3.0, 3.0, 1.0, 1.0, 1.0, 1.0):
    got, memory = step(params, memory, GUIDE, LEARNER, BATCH, KEY)
    want = losses.kd(LEARNER.logits, GUIDE.logits, temperature)
    np.testing.assert_allclose(got, want, rtol=1e-4)
  assert memory['annealed']['seen'] == 3 * 2 * B


def test_what_is_inside_keeps_its_memory():
  inner = objectives.ctkd(start=0.0)._replace(settings={'temperature': 1.0})
  objective = objectives.annealed(2.0, 1, inner)
  params, memory = objective.init(KEY, GUIDE, LEARNER, 2 * B)
  _, memory = objective.loss(params, memory, GUIDE, LEARNER, BATCH, KEY)
  assert memory['objective']['seen'] == memory['annealed']['seen'] == B
