"""Selection, weights and scores of examples; revised labels; annealing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_objectives import (
  BATCH,
  GUIDE,
  LABELS,
  LEARNER,
  B,
  K,
  initial,
  loss_of,
  step,
)

from jaxkd import losses, objectives
from jaxkd.objectives import scores
from jaxkd.objectives.revised import revise
from jaxkd.types import Outputs

P = np.asarray(jax.nn.softmax(GUIDE.logits), np.float64)
P_Y = P[np.arange(B), LABELS]
EACH = np.asarray(losses.kd(LEARNER.logits, GUIDE.logits))  # [B]


def score(name):
  return np.asarray(scores.SCORES[name](LEARNER, GUIDE, BATCH))


# Scores


def test_scores_have_their_definition():
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


def test_each_example_is_weighted():
  got = loss_of(objectives.weighted('target'))
  np.testing.assert_allclose(got, P_Y * EACH, rtol=1e-5)
  got = loss_of(objectives.make({'name': 'weighted', 'score': 'right'}))
  np.testing.assert_allclose(got, score('right') * EACH, rtol=1e-5)
  own = loss_of(
    objectives.weighted(lambda learner, guide, batch: jnp.arange(B))
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


def test_no_gradient_flows_through_a_score():
  objective = objectives.weighted('target')

  def loss(logits):
    guide = GUIDE.replace(logits=logits)
    return jnp.sum(step(objective, {}, {}, guide=guide)[0])

  def still(logits):
    return jnp.sum(P_Y * losses.kd(LEARNER.logits, logits))

  got, want = (jax.grad(f)(GUIDE.logits) for f in (loss, still))
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


# Selection


@pytest.mark.parametrize(
  ('keep', 'count'), [(1.0, 4), (0.5, 2), (0.3, 1), (0.01, 1)]
)
def test_the_highest_scores_are_kept(keep, count):
  got = loss_of(objectives.selected(keep, 'margin'))
  kept = np.argsort(-score('margin'))[:count]
  want = np.where(np.isin(np.arange(B), kept), EACH, 0)
  np.testing.assert_allclose(got, want, rtol=1e-5)


def test_ties_do_not_change_the_count():
  flat = objectives.selected(0.5, lambda learner, guide, batch: jnp.zeros(B))
  assert np.count_nonzero(loss_of(flat)) == 2


def test_padding_is_not_kept():
  """It has the highest score, and half of the three others are two."""
  batch = {**BATCH, 'mask': jnp.array([1.0, 1, 1, 0])}
  objective = objectives.selected(
    0.5, lambda learner, guide, batch: jnp.arange(4.0)
  )
  value, _ = step(objective, {}, {}, batch=batch)
  np.testing.assert_array_equal(
    np.asarray(value) > 0, [False, True, True, False]
  )
  batch = {**BATCH, 'mask': jnp.zeros(4)}
  value, _ = step(objective, {}, {}, batch=batch)
  np.testing.assert_array_equal(value, 0)


@pytest.mark.parametrize(
  ('spec', 'message'),
  [
    (dict(name='weighted', score='rigth'), "no score 'rigth'. Did you mean"),
    (
      dict(name='selected', score='right', keep=0),
      'keep must be above 0 and at most 1, got 0',
    ),
    (dict(name='selected', score='right', keep=1.5), 'keep must be .* got 1.5'),
    (dict(name='revised', eta=1.0), 'eta must be above 0 and below 1, got 1.0'),
    (dict(name='annealed', start=4, epochs=2, objective='kd'), 'set it to 1.0'),
    (
      dict(name='annealed', start=0, epochs=2),
      "objective 'annealed': start must be above 0, got 0",
    ),
    (
      dict(name='annealed', start=4, epochs=0),
      "objective 'annealed': epochs must be at least 1 .*, got 0",
    ),
  ],
)
def test_wrong_settings_are_refused(spec, message):
  with pytest.raises((KeyError, ValueError), match=message):
    objectives.make(spec)


def test_a_loss_of_the_whole_batch_cannot_be_weighted():
  dist = objectives.pointwise(
    'mean', lambda learner, guide, batch: jnp.zeros(())
  )
  with pytest.raises(ValueError, match='one loss for the whole batch'):
    loss_of(objectives.weighted('right', dist))
  for spec in (
    dict(name='weighted', score='right'),
    dict(name='revised', eta=0.5),
  ):
    objective = objectives.make(spec)
    with pytest.raises(ValueError, match='let a network be the guide'):
      step(objective, {}, {}, guide=None)


# Revision

logits = st.lists(
  st.lists(st.floats(-8, 8, width=32), min_size=K, max_size=K),
  min_size=B,
  max_size=B,
)


@given(logits=logits, eta=st.floats(0.05, 0.95))
def test_after_revision_the_label_has_the_largest_probability(logits, eta):
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
    got = step(objective, {}, {}, learner, guide)[0]
  np.testing.assert_allclose(got, want, rtol=1e-11)


def test_scores_keep_the_precision_of_the_logits():
  with jax.enable_x64(True):
    guide = Outputs(jnp.asarray(GUIDE.logits, jnp.float64), {})
    got = scores.confidence(guide, guide, BATCH)
  p = soft(np.asarray(GUIDE.logits, np.float64))
  np.testing.assert_allclose(got, p.max(1), rtol=1e-13)


def test_revision_of_a_certain_guide_is_finite():
  sure = GUIDE.replace(logits=1e4 * jax.nn.one_hot(LABELS + 1, K))
  objective = objectives.revised(0.9, objectives.kd(1.0))

  @jax.value_and_grad
  def loss(logits):
    learner = LEARNER.replace(logits=logits)
    return jnp.sum(step(objective, {}, {}, learner, sure)[0])

  value, gradient = loss(LEARNER.logits)
  assert np.isfinite(value) and np.all(np.isfinite(gradient))


# A temperature that falls


def test_the_temperature_falls_epoch_by_epoch():
  """Over the epochs of the setting, or over those of the phase."""
  temperatures = (5.0, 5.0, 3.0, 3.0, 1.0, 1.0, 1.0, 1.0)
  for objective, epochs in (
    (objectives.annealed(start=5.0, epochs=3), 7),
    (objectives.annealed(start=5.0), 3),
  ):
    run = jax.jit(
      lambda epoch, objective=objective, epochs=epochs: step(
        objective, {}, {}, epoch=epoch, epochs=epochs
      )[0]
    )
    for n, temperature in enumerate(temperatures):
      want = losses.kd(LEARNER.logits, GUIDE.logits, temperature)
      np.testing.assert_allclose(run(n / 2), want, rtol=1e-4)


def test_a_wrapped_objective_keeps_its_memory():
  inner = objectives.crd(dim=4, negatives=2)
  inner = inner._replace(settings={'temperature': 1.0})
  outer = objectives.annealed(2.0, 1, inner)

  @jax.jit
  def run():
    params, memory = initial(outer)
    _, after = step(outer, params, memory)
    return memory, after

  memory, after = run()
  _, inner_memory = jax.eval_shape(lambda: initial(inner))
  assert set(memory) == set(inner_memory)
  assert np.any(after['bank'] != memory['bank'])
