"""Counts, totals and means against scikit-learn, for any batches."""

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from sklearn import metrics as reference

from jaxkd import data, metrics

counts = jax.jit(metrics.counts)


def examples(n: int, num_classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
  rng = np.random.default_rng(n)
  logits = 2 * rng.normal(size=(n, num_classes)).astype(np.float32)
  return logits, rng.integers(0, num_classes, n).astype(np.int32)


def softmax(z: np.ndarray) -> np.ndarray:
  e = np.exp(z.astype(np.float64))
  return e / e.sum(axis=-1, keepdims=True)


def in_batches(logits, labels, batch_size) -> list[dict]:
  return [
    counts(logits[index], labels[index], mask)
    for index, mask in data.eval_batches(len(labels), batch_size)
  ]


sizes = st.integers(1, 60)
batch_sizes = st.sampled_from([1, 7, 16])


@hypothesis.given(sizes, batch_sizes, st.sampled_from([4, 7]))
def test_means_equal_scikit_learn(n, batch_size, num_classes):
  logits, labels = examples(n, num_classes)
  total = metrics.totals(in_batches(logits, labels, batch_size), n)
  got = metrics.summary(total)
  p, classes = softmax(logits), range(num_classes)
  top1 = reference.accuracy_score(labels, logits.argmax(axis=-1))
  top5 = reference.top_k_accuracy_score(
    labels, p, k=min(5, num_classes - 1), labels=classes
  )
  nll = reference.log_loss(labels, p, labels=classes)
  one_hot = np.eye(num_classes)[labels]
  brier = num_classes * reference.mean_squared_error(one_hot, p)
  assert set(got) == {'top1', 'top5', 'nll', 'brier'}
  np.testing.assert_allclose(got['top1'], top1, rtol=1e-6)
  # With K = 4, the label is always among the four largest.
  want = top5 if num_classes > 5 else 1.0
  np.testing.assert_allclose(got['top5'], want, rtol=1e-6)
  np.testing.assert_allclose(got['nll'], nll, rtol=2e-4)
  np.testing.assert_allclose(got['brier'], brier, rtol=2e-4)


def test_masked_examples_do_not_count():
  logits, labels = examples(12)
  mask = (np.arange(12) % 3 > 0).astype(np.float32)
  kept = mask > 0
  got = counts(logits, labels, mask)
  want = counts(logits[kept], labels[kept], mask[kept])
  assert float(got['seen']) == 8
  for name, value in want.items():
    np.testing.assert_allclose(got[name], value, rtol=1e-6)


def test_masked_examples_may_be_infinite():
  logits = np.array([[0, 1], [0, -np.inf], [np.nan, 0]], np.float32)
  labels = np.array([1, 1, 0])
  got = counts(logits, labels, np.array([1, 0, 0], np.float32))
  np.testing.assert_allclose(got['nll'], np.log1p(np.exp(-1)), rtol=1e-6)
  np.testing.assert_allclose(got['top1'], 1)


@hypothesis.given(
  st.lists(st.integers(0, 2), min_size=1, max_size=9), st.integers(0, 8)
)
def test_ties_give_credit_for_five_places_and_no_more(values, label):
  label %= len(values)
  logits = np.full((1, 9), -np.inf, np.float32)  # one shape, one program
  logits[0, : len(values)] = values
  got = counts(logits, np.array([label]), np.ones(1, np.float32))
  order = np.argsort(-logits[0], kind='stable')  # ties in order of the classes
  assert float(got['top1']) == (order[0] == label)
  assert float(got['top5']) == (label in order[:5])


@pytest.mark.parametrize('num_classes', [2, 5, 6])
def test_equal_logits_have_the_accuracy_of_chance(num_classes):
  labels = np.arange(num_classes, dtype=np.int32)
  logits = np.zeros((num_classes, num_classes), np.float32)
  got = counts(logits, labels, np.ones(num_classes, np.float32))
  assert float(got['top1']) == 1
  assert float(got['top5']) == min(5, num_classes)


def test_nan_logits_are_never_right():
  logits = np.full((4, 4), np.nan, np.float32)
  got = counts(logits, np.arange(4), np.ones(4, np.float32))
  assert float(got['top1']) == float(got['top5']) == 0


def test_saturated_logits_give_a_finite_nll():
  logits = np.array([[1e4, -1e4], [1e4, -1e4]], np.float32)
  got = counts(logits, np.array([0, 1]), np.ones(2, np.float32))
  np.testing.assert_allclose(got['nll'], 2e4)


def test_totals_keep_the_shapes_of_the_sums():
  sums = [
    {'seen': np.float32(2), 'x': np.float32(0.5), 'v': np.arange(3)},
    {'seen': np.float32(1), 'x': np.float32(1), 'v': np.ones(3)},
  ]
  total = metrics.totals(sums, 3)
  np.testing.assert_array_equal(total['v'], [1, 2, 3])
  assert all(value.dtype == np.float64 for value in total.values())
  assert metrics.summary(total) == {'x': 0.5}


def test_totals_are_exact_beyond_float32():
  sums = [{'seen': np.float32(2**24)}, {'seen': np.float32(1)}]
  assert metrics.totals(sums, 2**24 + 1)['seen'] == 2**24 + 1


def test_sums_may_come_from_a_generator():
  logits, labels = examples(10)
  sums = in_batches(logits, labels, 4)
  assert metrics.totals(iter(sums), 10) == metrics.totals(sums, 10)


def test_a_missing_example_is_an_error():
  logits, labels = examples(10)
  sums = in_batches(logits[:-1], labels[:-1], 4)
  with pytest.raises(RuntimeError, match='evaluated 9 of 10 examples'):
    metrics.totals(sums, 10)


def test_an_example_counted_twice_is_an_error():
  logits, labels = examples(10)
  sums = in_batches(logits, labels, 4)
  twice = counts(logits[:1], labels[:1], np.ones(1, np.float32))
  with pytest.raises(RuntimeError, match='evaluated 11 of 10 examples'):
    metrics.totals([*sums, twice], 10)


def test_no_batch_at_all_is_an_error():
  with pytest.raises(RuntimeError, match='evaluated 0 of 10 examples'):
    metrics.totals([], 10)
