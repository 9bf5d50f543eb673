"""Losses of saturated logits, of a single example, and in bfloat16."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_losses import LABELS, STUDENT, TEACHER, dkd, gradient

from jaxkd import losses


def kd_to_teacher(t, s):
  return losses.kd(s, t)


def dkd_to_teacher(t, s):
  return dkd(s, t)


def soft_cross_entropy_to_teacher(t, s):
  return losses.soft_cross_entropy(s, t, 0.1)


@pytest.mark.parametrize(
  ('loss', 'other'),
  [
    (losses.cross_entropy, LABELS),
    (losses.brier, LABELS),
    (losses.square_logits, LABELS),
    (losses.kd, TEACHER),
    (kd_to_teacher, TEACHER),
    (losses.soft_cross_entropy, TEACHER),
    (soft_cross_entropy_to_teacher, TEACHER),
    (dkd, TEACHER),
    (dkd_to_teacher, TEACHER),
  ],
  ids=[
    'cross_entropy',
    'brier',
    'square_logits',
    'kd',
    'kd to the teacher',
    'soft_cross_entropy',
    'soft_cross_entropy to the teacher',
    'dkd',
    'dkd to the teacher',
  ],
)
class TestExtremes:
  def test_saturated_logits(self, loss, other):
    z = np.where(STUDENT > 0, 1e4, -1e4).astype(np.float32)
    assert np.all(np.isfinite(jax.jit(loss)(z, other)))
    assert np.all(np.isfinite(gradient(loss, z, other)))

  @pytest.mark.parametrize('num_classes', [2, 10])
  def test_saturated_guides(self, loss, other, num_classes):
    z = np.where(STUDENT > 0, 1e4, -1e4).astype(np.float32)[:, :num_classes]
    y = LABELS % num_classes
    for guide in (z, -z, np.zeros_like(z)):
      guide = y if other is LABELS else guide
      assert np.all(np.isfinite(jax.jit(loss)(z, guide)))
      assert np.all(np.isfinite(gradient(loss, z, guide)))

  def test_one_example(self, loss, other):
    run = jax.jit(loss)
    got = run(STUDENT[:1], other[:1])
    np.testing.assert_allclose(got, run(STUDENT, other)[:1], rtol=1e-5)

  def test_bfloat16(self, loss, other):
    z = STUDENT.astype(jnp.bfloat16)
    exact = jax.jit(loss)(z.astype(np.float32), other)
    other = other if other is LABELS else other.astype(jnp.bfloat16)
    # Eight bits of mantissa, of which each sum loses a few.
    got = jax.jit(loss)(z, other).astype(np.float32)
    np.testing.assert_allclose(got, exact, rtol=0.05, atol=0.05)
    assert np.all(np.isfinite(gradient(loss, z, other).astype(np.float32)))


def test_saturated_values_are_right():
  z = jnp.array([[1e4, -1e4], [-1e4, 1e4]])
  y = jnp.array([0, 0])
  np.testing.assert_allclose(losses.cross_entropy(z, y), [0, 2e4])
  np.testing.assert_allclose(losses.kd(z, -z, 1.0), [2e4, 2e4])
