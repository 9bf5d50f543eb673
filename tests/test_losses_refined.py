"""Losses that correct the teacher by the label, and of Dirichlets."""

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from test_losses import LABELS, STUDENT, TEACHER, logits, softmax

from jaxkd import losses

labels_of_three = hnp.arrays(np.int32, 3, elements=st.integers(0, 4))


def entropy_terms(p, q):
  """KL(p ‖ q) of two vectors, with 0 log 0 = 0."""
  return sum(a * np.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def rld(s, t, label, alpha, beta, temperature, confidence_temperature):
  """The loss of one example, class by class."""
  p, q = (
    softmax(t / confidence_temperature),
    softmax(s / confidence_temperature),
  )
  top = p.max()
  confidence = entropy_terms((top, 1 - top), (q[label], 1 - q[label]))
  below = [k for k in range(len(t)) if t[k] < t[label]]
  correlation = 0.0
  if below:
    p, q = softmax(t[below] / temperature), softmax(s[below] / temperature)
    correlation = entropy_terms(p, q)
  return (
    alpha * confidence_temperature**2 * confidence
    + beta * temperature**2 * correlation
  )


@pytest.mark.parametrize(
  'settings', [(1.0, 8.0, 4.0, 1.0), (0.5, 2.0, 1.0, 2.0), (0.0, 1.0, 3.0, 1.0)]
)
def test_rld_is_the_sum_over_classes(settings):
  with jax.enable_x64(True):
    got = losses.rld(STUDENT, TEACHER, LABELS, *settings)
  rows = zip(STUDENT, TEACHER, LABELS, strict=True)
  want = [rld(*each, *settings) for each in rows]
  np.testing.assert_allclose(got, want, rtol=1e-9)


@hypothesis.given(logits, logits)
def test_rld_of_a_right_teacher_is_dkd(s, t):
  """The classes below the label are then all others."""
  labels = np.argmax(t, axis=-1)
  hypothesis.assume(np.all(np.sum(t == t.max(-1, keepdims=True), axis=-1) == 1))
  got = losses.rld(s, t, labels, 1.0, 2.0, 4.0, 4.0)
  want = losses.dkd(s, t, labels, 1.0, 2.0, 4.0)
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_rld_ignores_the_order_of_classes_above_the_label():
  label = np.array([2])
  t = np.array([[3.0, 2.0, 1.0, 0.0, -1.0]])
  slope = jax.grad(lambda s: losses.rld(s, t, label, alpha=0.0).sum())
  moved = np.asarray(slope(STUDENT[:1, :5]))[0]
  np.testing.assert_array_equal(moved[:3], 0)
  assert np.all(moved[3:] != 0)


def test_rld_of_a_label_below_all_classes_is_its_confidence():
  t = np.array([[3.0, 2.0, 1.0]])
  both, one = (
    losses.rld(STUDENT[:1, :3], t, np.array([2]), beta=beta)
    for beta in (8.0, 0.0)
  )
  np.testing.assert_array_equal(both, one)


def pld(s, t, label, temperature):
  """The loss of one example, choice by choice."""
  p = softmax(t / temperature)
  others = [k for k in np.argsort(-t, kind='stable') if k != label]
  left, loss = [label, *others], 0.0
  while left:
    chosen = left[0]
    loss += p[chosen] * (np.log(np.sum(np.exp(s[left]))) - s[chosen])
    left = left[1:]
  return loss


@pytest.mark.parametrize('temperature', [1.0, 4.0])
def test_pld_is_the_sum_over_choices(temperature):
  with jax.enable_x64(True):
    got = losses.pld(STUDENT, TEACHER, LABELS, temperature)
  rows = zip(STUDENT, TEACHER, LABELS, strict=True)
  want = [pld(*each, temperature) for each in rows]
  np.testing.assert_allclose(got, want, rtol=1e-9)


@hypothesis.given(logits, labels_of_three)
def test_pld_of_a_sure_teacher_is_cross_entropy(s, labels):
  t = 100.0 * np.eye(5)[labels]
  got = losses.pld(s, t, labels)
  np.testing.assert_allclose(
    got, losses.cross_entropy(s, labels), rtol=1e-5, atol=1e-5
  )


@hypothesis.given(logits, logits, logits, labels_of_three)
def test_pld_is_convex_in_the_student(a, b, t, labels):
  ends = losses.pld(a, t, labels) + losses.pld(b, t, labels)
  middle = losses.pld((a + b) / 2, t, labels)
  assert np.all(middle <= ends / 2 + 1e-3)


def test_masked_classes_add_nothing_to_pld():
  mask = lambda z: jnp.pad(z, ((0, 0), (0, 1)), constant_values=-jnp.inf)
  loss = lambda s, t: losses.pld(s, t, LABELS).sum()
  value, slope = jax.value_and_grad(lambda s: loss(mask(s), mask(TEACHER)))(
    STUDENT
  )
  want = jax.value_and_grad(lambda s: loss(s, TEACHER))(STUDENT)
  np.testing.assert_allclose(value, want[0], rtol=1e-6)
  np.testing.assert_allclose(slope, want[1], rtol=1e-5, atol=1e-7)


def test_pld_is_infinite_where_the_teacher_has_a_class_that_is_masked():
  s = jnp.asarray(STUDENT).at[0, 0].set(-jnp.inf)
  assert np.isinf(losses.pld(s, TEACHER, LABELS)[0])


@hypothesis.given(logits, labels_of_three)
def test_reordered_logits_are_the_same_values_with_the_label_first(t, labels):
  got = np.asarray(losses.reordered(t, labels))
  np.testing.assert_array_equal(np.sort(got), np.sort(t))
  rows = np.arange(3)
  np.testing.assert_array_equal(got[rows, labels], t.max(axis=-1))
  for z, before, label in zip(got, t, labels, strict=True):
    others = np.delete(np.arange(5), label)
    order = others[np.argsort(-before[others], kind='stable')]
    assert np.all(np.diff(z[order]) <= 0)


def test_a_right_teacher_is_not_reordered():
  got = losses.reordered(TEACHER, np.argmax(TEACHER, axis=-1))
  np.testing.assert_array_equal(got, np.float32(TEACHER))


def test_ekd_of_two_classes_is_the_divergence_of_beta_distributions():
  s, t = np.array([[0.3, -1.0]]), np.array([[2.0, 0.5]])
  softplus = lambda z: np.log1p(np.exp(z))
  a, b = (np.log1p(softplus(z[0])) + np.exp(-1.22) for z in (s, t))
  p, q = scipy.stats.beta(*b), scipy.stats.beta(*a)
  integrand = lambda x: p.pdf(x) * (p.logpdf(x) - q.logpdf(x))
  want, _ = scipy.integrate.quad(integrand, 0, 1)
  np.testing.assert_allclose(losses.ekd(s, t), [want], rtol=1e-4)


@hypothesis.given(logits, logits)
def test_ekd_is_at_least_zero_and_zero_at_the_teacher(s, t):
  assert np.all(losses.ekd(s, t) > -1e-5)
  np.testing.assert_array_equal(losses.ekd(t, t), np.zeros(3))


@pytest.mark.parametrize(
  ('loss', 'words'),
  [
    (
      lambda: losses.rld(STUDENT, TEACHER, LABELS, 1, 8, 0.0),
      'rld needs a temp',
    ),
    (
      lambda: losses.rld(STUDENT, TEACHER, LABELS, 1, 8, 4, 0.0),
      'rld needs a confidence_temperature above 0, got 0.0',
    ),
    (
      lambda: losses.rld(STUDENT[:, :1], TEACHER[:, :1], LABELS),
      'rld needs at least 2 classes',
    ),
    (
      lambda: losses.pld(STUDENT, TEACHER, LABELS, -1),
      'pld needs a temperature',
    ),
    (lambda: losses.ekd(STUDENT, TEACHER, temperature=0), 'ekd needs a temp'),
  ],
)
def test_an_impossible_argument_is_refused(loss, words):
  with pytest.raises(ValueError, match=words):
    loss()


def test_smooth_l1_is_the_mean_over_features():
  s, t = np.array([[0.0, 2.0, -1.0]]), np.array([[0.5, 0.0, -1.0]])
  want = (0.5 * 0.25 + 1.5 + 0) / 3
  np.testing.assert_allclose(losses.smooth_l1(s, t), [want], rtol=1e-6)
