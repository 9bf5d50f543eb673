"""Losses with a constant for each channel: OFD's margin and VID's variance."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_losses_features import MARGIN, exactly, ofd, random

from jaxkd import losses


@pytest.mark.parametrize(
  ('scale', 'bias', 'want'),
  [
    (1, 0, -0.797884560803),
    (0.5, -0.2, -0.480941351898),
    (-0.5, -0.2, -0.480941351898),
    (0.3, 1.0, -0.9),
  ],
)
def test_margin_equals_the_original_code(scale, bias, want):
  got = exactly(losses.ofd_margin, np.array([scale]), np.array([bias * 1.0]))
  np.testing.assert_allclose(got, want, rtol=1e-10)


def test_log_scale_equals_the_original_code():
  np.testing.assert_allclose(losses.vid_log_scale(), 4.99322918271, rtol=1e-11)


@hypothesis.given(
  st.floats(0.01, 10), st.floats(-20, 20), st.sampled_from([-1, 1])
)
def test_margin_is_the_mean_of_the_negative_part(scale, ratio, sign):
  """By integration; where almost nothing is negative, three deviations."""
  got = exactly(
    losses.ofd_margin, np.array([sign * scale]), np.array([ratio * scale])
  )
  x = np.linspace(min(ratio, 0) - 12, 0, 100_001)
  density = np.exp(-((x - ratio) ** 2) / 2)
  mass = density.sum() * (x[1] - x[0]) / np.sqrt(2 * np.pi)
  hypothesis.assume(abs(mass - 1e-3) > 1e-4)
  want = (x * density).sum() / density.sum() if mass > 1e-3 else -3.0
  np.testing.assert_allclose(got, want * scale, rtol=1e-3, atol=1e-4 * scale)


def test_margin_of_channels_without_spread():
  """It is the limit, and can be differentiated."""
  scale, bias = np.zeros(3, np.float32), np.float32([-2, 0, 2])
  np.testing.assert_array_equal(losses.ofd_margin(scale, bias), [-2, 0, 0])
  almost = losses.ofd_margin(np.full(3, 1e-7, np.float32), bias)
  np.testing.assert_allclose(almost, [-2, 0, 0], atol=1e-6)
  slopes = jax.jit(jax.grad(lambda *a: jnp.sum(losses.ofd_margin(*a)), (0, 1)))(
    scale, bias
  )
  assert all(np.all(np.isfinite(slope)) for slope in slopes)


def test_ofd_is_zero_below_the_margin():
  s, t = random(4, 4, 4, 2), -5 - np.abs(random(4, 4, 4, 2, seed=1))
  low = np.minimum(s, MARGIN)
  np.testing.assert_array_equal(exactly(ofd, low, t), np.zeros(4))
  assert np.all(exactly(ofd, low + 0.1, t) > 0)


def test_vid_is_least_where_the_variance_is_the_error():
  s, t = random(64, 4, 4, 2), random(64, 4, 4, 2, seed=1)
  best = [losses.vid_log_scale(x) for x in ((s - t) ** 2).mean(axis=(0, 1, 2))]

  def total(log_scale):
    return jnp.mean(losses.vid(s, t, log_scale))

  with jax.enable_x64(True):
    slope = jax.jit(jax.grad(total))(jnp.asarray(best))
  np.testing.assert_allclose(slope, np.zeros(2), atol=1e-12)


def test_vid_is_finite_for_extreme_scales():
  s, t = random(4, 4, 4, 2), random(4, 4, 4, 2, seed=1)
  loss = jax.jit(jax.value_and_grad(lambda a: jnp.mean(losses.vid(s, t, a))))
  for log_scale in (-1e3, 1e3):
    value, slope = loss(np.full(2, log_scale, np.float32))
    assert np.isfinite(value)
    assert np.all(np.isfinite(slope))


def test_refuses_constants_of_other_channels():
  s = np.zeros((4, 4, 4, 3))
  for loss in (losses.ofd, losses.vid):
    with pytest.raises(AssertionError, match=r'\(2,\) but expected \(3\)'):
      loss(s, s, MARGIN)
