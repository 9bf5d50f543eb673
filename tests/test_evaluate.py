"""Counts and means against scikit-learn, whatever the batches."""

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from sklearn import metrics

from jaxkd import data, evaluate

counts = jax.jit(evaluate.counts)


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


@hypothesis.given(st.integers(1, 60), st.sampled_from([1, 7, 16]))
def test_means_are_scikit_learns(n, batch_size):
  logits, labels = examples(n)
  got = evaluate.means(in_batches(logits, labels, batch_size), n)
  top1 = metrics.accuracy_score(labels, logits.argmax(axis=-1))
  nll = metrics.log_loss(labels, softmax(logits), labels=range(4))
  assert set(got) == {'top1', 'nll'}
  np.testing.assert_allclose(got['top1'], top1, rtol=1e-6)
  np.testing.assert_allclose(got['nll'], nll, rtol=2e-4)


def test_what_is_masked_does_not_count():
  logits, labels = examples(12)
  mask = (np.arange(12) % 3 > 0).astype(np.float32)
  kept = mask > 0
  got = counts(logits, labels, mask)
  hits = metrics.accuracy_score(
    labels[kept], logits[kept].argmax(axis=-1), normalize=False
  )
  nll = metrics.log_loss(
    labels[kept], softmax(logits[kept]), labels=range(4), normalize=False
  )
  assert float(got['seen']) == 8
  assert float(got['top1']) == hits
  np.testing.assert_allclose(got['nll'], nll, rtol=2e-4)


def test_saturated_logits_give_a_finite_nll():
  logits = np.array([[1e4, -1e4], [1e4, -1e4]], np.float32)
  got = counts(logits, np.array([0, 1]), np.ones(2, np.float32))
  np.testing.assert_allclose(got['nll'], 2e4)


def test_sums_may_come_from_a_generator():
  logits, labels = examples(10)
  sums = in_batches(logits, labels, 4)
  assert evaluate.means(iter(sums), 10) == evaluate.means(sums, 10)


def test_a_missing_example_is_an_error():
  logits, labels = examples(10)
  sums = in_batches(logits[:-1], labels[:-1], 4)
  with pytest.raises(RuntimeError, match='evaluated 9 of 10 examples'):
    evaluate.means(sums, 10)


def test_an_example_counted_twice_is_an_error():
  logits, labels = examples(10)
  sums = in_batches(logits, labels, 4)
  twice = counts(logits[:1], labels[:1], np.ones(1, np.float32))
  with pytest.raises(RuntimeError, match='evaluated 11 of 10 examples'):
    evaluate.means([*sums, twice], 10)


def test_no_batch_at_all_is_an_error():
  with pytest.raises(RuntimeError, match='evaluated 0 of 10 examples'):
    evaluate.means([], 10)
