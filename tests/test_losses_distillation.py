"""Parts of DKD, and soft cross-entropy against its mixed target."""

from functools import partial

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_losses import (
  LABELS,
  STUDENT,
  TEACHER,
  dkd,
  gradient,
  logits,
  softmax,
  temperatures,
)

from jaxkd import losses


@partial(jax.jit, static_argnums=3)
def tckd_and_nckd(s, t, labels, temperature):
  part = lambda *weights: losses.dkd(s, t, labels, *weights, temperature)
  return part(1.0, 0.0), part(0.0, 1.0)


@hypothesis.given(logits, logits, st.integers(0, 4), temperatures)
def test_kd_is_the_sum_of_its_parts(s, t, label, temperature):
  s, t = s.astype(np.float64), t.astype(np.float64)
  p = softmax(t / temperature)[:, label]
  with jax.enable_x64(True):
    labels = np.full(3, label)
    tckd, nckd = map(np.array, tckd_and_nckd(s, t, labels, temperature))
    whole = jax.jit(losses.kd, static_argnums=2)(s, t, temperature)
    assert whole.dtype == tckd.dtype == np.float64
    parts = tckd + (1 - p) * nckd
    np.testing.assert_allclose(parts, whole, rtol=1e-9, atol=1e-11)


@hypothesis.given(logits, temperatures)
def test_dkd_is_zero_and_flat_at_the_teacher(t, temperature):
  np.testing.assert_array_equal(dkd(t, t, 1.0, 8.0, temperature), np.zeros(3))
  slope = gradient(dkd, t, t, (1.0, 8.0, temperature))
  np.testing.assert_allclose(slope, np.zeros_like(t), atol=1e-4 * temperature)


@hypothesis.given(logits, logits, st.sampled_from([0.0, 0.1, 1.0]))
def test_soft_cross_entropy_is_cross_entropy_of_the_mixed_target(
  s, t, smoothing
):
  s, t = s.astype(np.float64), t.astype(np.float64)
  target = (1 - smoothing) * softmax(t) + smoothing / 5
  loss = losses.soft_cross_entropy
  with jax.enable_x64(True):
    got = jax.jit(loss, static_argnums=2)(s, t, smoothing)
    want = jax.jit(losses.cross_entropy)(s, target)
    np.testing.assert_allclose(got, want, rtol=1e-9)
    slope = gradient(loss, s, t, (smoothing,))
    np.testing.assert_allclose(slope, softmax(s) - target, atol=1e-12)


def test_saturated_values_of_dkd_are_right():
  """With the label at 1e4 or at -1e4, for the student and for the teacher."""
  z = jnp.array([[1e4, -1e4, -1e4], [-1e4, -1e4, 1e4]])
  y = jnp.array([0, 0])
  parts = lambda s, t: tckd_and_nckd(s, t, y, 1.0)
  np.testing.assert_array_equal(parts(z, z), np.zeros((2, 2)))
  tckd, nckd = parts(z, z[::-1])
  np.testing.assert_allclose(tckd, [2e4 - np.log(2), 2e4])
  np.testing.assert_allclose(nckd, [np.log(2), (2e4 - np.log(4)) / 2])


@hypothesis.given(logits, logits)
def test_nckd_of_two_classes_is_zero(s, t):
  s, t = s[:, :2], t[:, :2]
  tckd, nckd = tckd_and_nckd(s, t, LABELS[:3] % 2, 4.0)
  np.testing.assert_array_equal(nckd, np.zeros(3))
  np.testing.assert_allclose(tckd, losses.kd(s, t), rtol=2e-4, atol=1e-5)
  slope = gradient(dkd, s, t, (0.0, 1.0))
  np.testing.assert_array_equal(slope, np.zeros((3, 2)))


@pytest.mark.parametrize('smoothing', [-0.1, 1.5])
def test_soft_cross_entropy_refuses_a_smoothing(smoothing):
  with pytest.raises(ValueError, match=f'from 0 to 1, got {smoothing}'):
    losses.soft_cross_entropy(STUDENT, TEACHER, smoothing)


def test_the_temperature_may_be_traced():
  got = jax.jit(losses.kd)(STUDENT, TEACHER, 2.0)
  want = losses.kd(STUDENT, TEACHER, 2.0)
  np.testing.assert_allclose(got, want, rtol=1e-6)


def test_dkd_refuses_a_single_class():
  with pytest.raises(ValueError, match='at least 2 classes, got logits of 1'):
    dkd(STUDENT[:, :1], TEACHER[:, :1])


@pytest.mark.parametrize('labels', [LABELS[:3], LABELS[:, None]])
def test_dkd_refuses_labels_of_other_shapes(labels):
  with pytest.raises(AssertionError, match=r'expected \(4\)'):
    losses.dkd(STUDENT, TEACHER, labels)


def test_dkd_refuses_probabilities_for_labels():
  with pytest.raises(AssertionError, match='int'):
    losses.dkd(STUDENT, TEACHER, LABELS.astype(np.float32))
