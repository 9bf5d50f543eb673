"""Bins of confidence and the calibration error, against NumPy float64."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from jaxkd import metrics

bins = jax.jit(metrics.bins, static_argnames='num_bins')


def logits_of(confidence: np.ndarray) -> np.ndarray:
  """Returns logits [N, 2] that give class 1 this probability."""
  c = np.asarray(confidence, np.float64)
  return np.stack([np.zeros_like(c), np.log(c / (1 - c))], -1).astype(
    np.float32
  )


def totals(logits, labels, num_bins=15, batches=1):
  """Bins over a split that comes in batches."""
  parts = np.array_split(np.arange(len(labels)), batches)
  ones = np.ones(len(labels), np.float32)
  sums = [
    bins(logits[i], labels[i], ones[i], num_bins) | {'seen': len(i)}
    for i in parts
  ]
  return metrics.totals(sums, len(labels))


@functools.cache
def synthetic(n: int, scale: float) -> dict:
  """Totals of a predictor whose logits are `scale` times the true ones."""
  rng = np.random.default_rng(0)
  confidence = rng.uniform(0.5, 1, n)
  labels = (rng.random(n) < confidence).astype(np.int32)
  return totals(scale * logits_of(confidence), labels)


def error(total) -> float:
  return metrics.summary(total)['ece']


def reference(logits, labels, num_bins):
  """The paper's definition, bin by bin, in float64 but for the confidence."""
  confidence = np.asarray(jax.nn.softmax(logits).max(-1), np.float64)
  hits = logits.argmax(-1) == labels
  count, gap = [], 0.0
  for m in range(num_bins):
    lower, upper = m / num_bins, (m + 1) / num_bins
    inside = (confidence > lower) & (confidence <= upper)
    count.append(inside.sum())
    if inside.any():
      difference = hits[inside].mean() - confidence[inside].mean()
      gap += inside.mean() * abs(difference)
  return count, gap


@hypothesis.given(
  st.integers(0, 10**6), st.sampled_from([2, 6]), st.sampled_from([1, 15])
)
@hypothesis.settings(max_examples=30)
def test_bins_follow_the_papers_definition(seed, num_classes, num_bins):
  rng = np.random.default_rng(seed)
  logits = 3 * rng.normal(size=(48, num_classes)).astype(np.float32)
  labels = rng.integers(0, num_classes, 48)
  got = totals(logits, labels, num_bins)
  count, gap = reference(logits, labels, num_bins)
  np.testing.assert_array_equal(got['bin_count'], count)
  assert error(got) == pytest.approx(gap, abs=1e-6)
  assert got['bin_hits'].sum() == np.sum(logits.argmax(-1) == labels)


@hypothesis.given(st.permutations(range(24)), st.sampled_from([1, 2, 3, 24]))
@hypothesis.settings(max_examples=20)
def test_order_and_batches_do_not_matter(order, batches):
  rng = np.random.default_rng(7)
  logits = 3 * rng.normal(size=(24, 5)).astype(np.float32)
  labels = rng.integers(0, 5, 24)
  want = totals(logits, labels)
  got = totals(logits[order], labels[order], batches=batches)
  for name in want:
    np.testing.assert_allclose(got[name], want[name], rtol=1e-6)


def test_masked_examples_are_in_no_bin():
  logits = logits_of([0.7, 0.9, 0.7, 0.6])
  logits[3] = np.nan
  labels = np.array([1, 1, 0, 1])
  got = bins(logits, labels, np.array([1, 1, 0, 0], np.float32))
  want = bins(logits[:2], labels[:2], np.ones(2, np.float32))
  for name in want:
    np.testing.assert_array_equal(got[name], want[name])


def test_a_confidence_on_an_edge_belongs_below_it():
  logits = np.array([[0, 0], [0, 1e-3], [0, 100]], np.float32)
  got = bins(logits, np.ones(3, int), np.ones(3, np.float32), num_bins=2)
  np.testing.assert_array_equal(got['bin_count'], [1, 2])  # 0.5 | 0.5002, 1
  np.testing.assert_array_equal(got['bin_hits'], [0, 2])


def test_diagram_equals_scikit_learns_calibration_curve():
  confidence = np.random.default_rng(1).uniform(0.5, 1, 300)
  labels = (np.random.default_rng(2).random(300) < 0.8).astype(int)
  got = metrics.reliability(totals(logits_of(confidence), labels, 10))
  # Of two classes, with the second always predicted: a hit is its label.
  accuracy, mean = calibration_curve(labels, confidence, n_bins=10)
  filled = got['share'] > 0
  np.testing.assert_allclose(got['accuracy'][filled], accuracy, rtol=1e-6)
  np.testing.assert_allclose(got['confidence'][filled], mean, rtol=1e-5)
  np.testing.assert_array_equal(filled, np.arange(10) >= 5)
  assert np.isnan(got['accuracy'][~filled]).all()
  assert np.isnan(got['confidence'][~filled]).all()
  assert got['share'].sum() == pytest.approx(1)


def test_a_calibrated_predictors_error_goes_to_zero():
  small, large = error(synthetic(500, 1.0)), error(synthetic(50_000, 1.0))
  assert large < 0.006 < small


@pytest.mark.parametrize('scale', [2.0, 0.5])
def test_the_error_is_the_expected_gap(scale):
  # Over c uniform on [1/2, 1], the confidence is c^s / (c^s + (1 - c)^s).
  c = np.linspace(0.5, 1, 100_001)
  stated = c**scale / (c**scale + (1 - c) ** scale)
  want = np.mean(np.abs(stated - c))
  assert error(synthetic(50_000, scale)) == pytest.approx(want, abs=0.004)


def test_a_confident_predictor_has_its_error_rate_as_ece():
  labels = np.array([1, 1, 1, 0])
  got = totals(np.tile(np.float32([[-50, 50]]), (4, 1)), labels)
  assert error(got) == pytest.approx(0.25)
  np.testing.assert_array_equal(got['bin_count'], [0] * 14 + [4])


def test_the_error_of_hand_made_bins():
  count, confidence, hits = np.array([[2, 0, 2], [1, 0, 1.8], [2, 0, 1]])
  want = (abs(2 - 1) + abs(1 - 1.8)) / 4
  got = metrics.expected_calibration_error(count, confidence, hits)
  assert got == pytest.approx(want)
