"""Losses of logits where formulae break: finite values and finite slopes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_losses import LABELS, STUDENT, TEACHER

from jaxkd import losses


def grouped_kd(s, t, y):
  return losses.grouped_kd(
    s, t, losses.primary_classes(s, y), secondary_weight=1.0
  )


def ltkd(s, t, y):
  del y
  num_groups = min(s.shape[-1], 3)
  groups = np.arange(s.shape[-1]) % num_groups
  return losses.ltkd(s, t, groups, num_groups)


def standardised(s, t, y):
  del y
  return losses.kd(losses.standardise(s), losses.standardise(t), 2.0)


# (loss, its value where learner and guide have the same outputs; None if that
# is not its least value.)
LOSSES = {
  'alpha_beta': (lambda s, t, y: losses.alpha_beta(s, t), 0),
  'alpha_beta at 1 0': (lambda s, t, y: losses.alpha_beta(s, t, 1.0, 0.0), 0),
  'alpha_beta at 0 0': (lambda s, t, y: losses.alpha_beta(s, t, 0.0, 0.0), 0),
  'cmkd': (lambda s, t, y: losses.cmkd(s, t, 'spearman'), 0),
  'comparative': (lambda s, t, y: losses.comparative(s, t), 0),
  'dist': (lambda s, t, y: losses.dist(s, t, temperature=4.0), 0),
  'grouped_kd': (grouped_kd, 0),
  'ekd': (lambda s, t, y: losses.ekd(s, t), 0),
  'kd': (lambda s, t, y: losses.kd(s, t), 0),
  'ltkd': (ltkd, None),
  'mlkd': (lambda s, t, y: losses.mlkd(s, t), 0),
  'nkd': (lambda s, t, y: losses.nkd(s, t, y), None),
  'pld': (lambda s, t, y: losses.pld(s, t, y), None),
  'rld': (lambda s, t, y: losses.rld(s, t, y), None),
  'soft_cross_entropy': (
    lambda s, t, y: losses.soft_cross_entropy(s, t, 0.1),
    None,
  ),
  'standardised': (standardised, 0),
}
# Those that depend on the logits' mean.
DEPENDS = ('comparative', 'ekd')
each = pytest.mark.parametrize('name', LOSSES)


def corners(rows: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns pairs of learner and guide, [N, rows, classes] each."""
  plain = STUDENT[:rows, :classes], TEACHER[:rows, :classes]
  sure = np.where(plain[0] > 0, 1e4, -1e4)
  ends = [*plain, sure, -sure, np.zeros_like(sure), np.full_like(sure, 1e4)]
  ends += [1e-6 * plain[0], np.where(np.arange(classes) == 0, 1e4, plain[1])]
  pairs = [(s, t) for s in ends for t in ends]
  return tuple(np.array(x, np.float32) for x in zip(*pairs, strict=True))


@each
@pytest.mark.parametrize(('rows', 'classes'), [(4, 10), (1, 2)])
def test_is_finite(name, rows, classes):
  """For sure, constant and nearly constant logits, K = 2, B = 1, one class."""
  loss, _ = LOSSES[name]

  def mean(s, t, labels):
    return jnp.mean(loss(s, t, labels))

  slopes = jax.value_and_grad(mean, argnums=(0, 1))
  slopes = jax.jit(jax.vmap(slopes, in_axes=(0, 0, None)))
  for labels in (LABELS[:rows] % classes, np.zeros(rows, int)):
    value, (to_student, to_teacher) = slopes(*corners(rows, classes), labels)
    assert np.all(np.isfinite(value))
    assert np.all(np.isfinite(to_student))
    assert np.all(np.isfinite(to_teacher))


@each
def test_is_least_where_learner_and_guide_have_the_same_outputs(name):
  loss, least = LOSSES[name]
  mean = lambda s: jnp.mean(loss(s, TEACHER, LABELS))
  run = jax.jit(jax.value_and_grad(mean))
  value, slope = run(np.float32(TEACHER))
  if least is not None:
    np.testing.assert_allclose(value, least, atol=1e-4)
    np.testing.assert_allclose(slope, 0, atol=1e-4)
  assert run(np.float32(STUDENT))[0] > value - 1e-4


@each
def test_bfloat16_is_computed_in_float32(name):
  loss, _ = LOSSES[name]
  s, t = (jnp.asarray(z, jnp.bfloat16) for z in (STUDENT, TEACHER))
  got = jax.jit(loss)(s, t, LABELS)
  want = jax.jit(loss)(s.astype(jnp.float32), t.astype(jnp.float32), LABELS)
  assert got.dtype == jnp.float32 or name == 'standardised'
  np.testing.assert_allclose(got, want, rtol=1e-5)


@each
def test_is_a_value_for_each_example_or_for_the_batch(name):
  loss, _ = LOSSES[name]
  shape = jax.eval_shape(lambda: loss(STUDENT, TEACHER, LABELS)).shape
  assert shape == (() if name in ('comparative', 'dist', 'mlkd') else (4,))


@each
def test_a_shift_of_all_logits_does_not_matter(name):
  """Of one network, by other amounts for each example; not for `DEPENDS`."""
  loss, _ = LOSSES[name]
  moved = np.array([[30.0], [-20.0], [0.0], [3.0]])
  with jax.enable_x64(True):
    of = jax.jit(lambda s, t: loss(s, t, LABELS))
    want = of(STUDENT, TEACHER)
    for got in (of(STUDENT + moved, TEACHER), of(STUDENT, TEACHER + moved)):
      if name in DEPENDS:
        assert np.max(np.abs(got - want)) > 1
      else:
        np.testing.assert_allclose(got, want, rtol=1e-8)
