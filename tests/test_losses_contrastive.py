"""The contrastive loss: published value, NumPy in float64, corners."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from test_losses import wave

from jaxkd import losses

SCORES = np.exp(wave(0.61, 0.2, 2, (4, 9))) / 100
crd_nce = jax.jit(losses.crd_nce, static_argnums=1)
slope = jax.jit(
  jax.grad(lambda scores: jnp.sum(losses.crd_nce(scores, 50))),
)


def numpy_crd_nce(scores, examples):
  noise = (scores.shape[1] - 1) / examples
  positive = np.log(scores[:, 0] / (scores[:, 0] + noise + 1e-7))
  negative = np.log(noise / (scores[:, 1:] + noise + 1e-7))
  return -(positive + negative.sum(axis=1))


def test_equals_the_original_code():
  """Computed with the CIFAR-100 benchmark's PyTorch code in float64."""
  with jax.enable_x64(True):
    got = np.asarray(crd_nce(SCORES, 50))
  assert got.dtype == np.float64
  np.testing.assert_allclose(np.mean(got), 5.11118698867, rtol=1e-10)


@pytest.mark.parametrize('examples', [8, 50, 50_000])
def test_equals_numpy(examples):
  with jax.enable_x64(True):
    got = crd_nce(SCORES, examples)
  np.testing.assert_allclose(got, numpy_crd_nce(SCORES, examples), rtol=1e-12)


def test_small_negatives_are_not_lost_in_float32():
  """Most scores are far below the probability of a negative."""
  scores = np.full((1, 1001), 1e-9)
  scores[:, 0] = 1e3
  got = crd_nce(scores.astype(np.float32), 2000)
  np.testing.assert_allclose(got, numpy_crd_nce(scores, 2000), rtol=1e-5)


def test_gradient_is_that_of_differences():
  with jax.enable_x64(True):
    loss = jax.jit(lambda x: losses.crd_nce(jnp.exp(x), 50))
    check_grads(loss, (np.log(SCORES),), order=1, rtol=1e-6)


def test_raises_the_pair_and_lowers_the_others():
  got = slope(SCORES.astype(np.float32))
  assert np.all(got[:, 0] < 0)
  assert np.all(got[:, 1:] > 0)


@hypothesis.settings(max_examples=20)
@hypothesis.given(st.permutations(range(1, 9)))
def test_the_order_of_negatives_does_not_matter(order):
  scores = SCORES.astype(np.float32)
  got = crd_nce(scores[:, [0, *order]], 50)
  np.testing.assert_allclose(got, crd_nce(scores, 50), rtol=1e-5)


def test_the_loss_of_an_example_is_independent_of_the_others():
  scores = SCORES.astype(np.float32)
  want = crd_nce(scores, 50)
  assert want.shape == (4,)
  np.testing.assert_allclose(crd_nce(scores[:1], 50), want[:1], rtol=1e-6)


@pytest.mark.parametrize('positive', [0.0, 1e-38, 1.0, 1e38])
@pytest.mark.parametrize('negative', [0.0, 1e-38, 1.0, 1e37])
def test_corners_are_finite(positive, negative):
  scores = np.full((4, 9), negative, np.float32)
  scores[:, 0] = positive
  assert np.all(np.isfinite(crd_nce(scores, 50)))
  assert np.all(np.isfinite(slope(scores)))


def test_bfloat16_is_computed_in_float32():
  scores = jnp.asarray(SCORES, jnp.bfloat16)
  got = crd_nce(scores, 50)
  assert got.dtype == jnp.float32
  want = crd_nce(scores.astype(jnp.float32), 50)
  np.testing.assert_allclose(got, want, rtol=1e-6)
  assert np.all(np.isfinite(np.float32(slope(scores))))


def test_refuses_an_empty_training_set():
  with pytest.raises(ValueError, match='1 or more examples, got 0'):
    losses.crd_nce(SCORES.astype(np.float32), 0)


def test_refuses_scores_without_negatives():
  with pytest.raises(ValueError, match='negatives'):
    losses.crd_nce(SCORES[:, :1].astype(np.float32), 50)
