"""Agreement with a teacher and distance to a posterior, in NumPy float64."""

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from scipy.special import log_softmax, rel_entr, softmax

from jaxkd import metrics

agreement = jax.jit(metrics.agreement)
distance = jax.jit(metrics.distance)
counts = jax.jit(metrics.counts)

K = 4
seeds = st.integers(0, 10**6)
ONES = np.ones(10, np.float32)


def draw(seed, *, rows=10):
  rng = np.random.default_rng(seed)
  student, teacher = 2 * rng.normal(size=(2, rows, K)).astype(np.float32)
  return student, teacher


def close(got, want):
  assert set(got) == set(want)
  for name, value in want.items():
    np.testing.assert_allclose(got[name], value, rtol=2e-4, atol=1e-5)


@hypothesis.given(seeds, st.sampled_from([1.0, 4.0]))
@hypothesis.settings(max_examples=20)
def test_agreement_equals_numpy(seed, temperature):
  student, teacher = draw(seed)
  q, p = (softmax(np.float64(z) / temperature, -1) for z in (student, teacher))
  close(
    agreement(student, teacher, ONES, temperature),
    {
      'agreement': np.sum(student.argmax(-1) == teacher.argmax(-1)),
      'kl': np.sum(rel_entr(p, q)),
      'seen': 10,
    },
  )


@hypothesis.given(seeds)
@hypothesis.settings(max_examples=20)
def test_distance_equals_numpy(seed):
  logits, other = draw(seed)
  posterior = softmax(other, -1)
  q = softmax(np.float64(logits), -1)
  close(
    distance(logits, posterior, ONES),
    {
      'posterior_square': np.linalg.norm(q - posterior) ** 2,  # Frobenius
      'posterior_kl': np.sum(rel_entr(np.float64(posterior), q)),
      'seen': 10,
    },
  )


@pytest.mark.parametrize(
  'sums', [agreement, lambda s, t, m: distance(s, softmax(t, -1), m)]
)
@hypothesis.given(st.permutations(range(10)), st.integers(1, 9))
@hypothesis.settings(max_examples=10)
def test_sums_add_up_over_any_batches(sums, order, cut):
  student, teacher = draw(3)
  want = sums(student, teacher, ONES)
  masks = np.arange(10) < cut, np.arange(10) >= cut
  parts = [
    sums(student[order], teacher[order], mask.astype(np.float32))
    for mask in masks
  ]
  close({name: sum(part[name] for part in parts) for name in want}, want)


def test_a_network_agrees_with_itself():
  student, _ = draw(0)
  got = agreement(student, student + 5, ONES)  # logits but for a constant
  assert float(got['agreement']) == 10
  np.testing.assert_allclose(got['kl'], 0, atol=1e-5)
  same = agreement(student, student, ONES)
  assert float(same['kl']) == 0


def test_the_divergence_is_from_the_teacher():
  sure, unsure = np.float32([[0, -8]]), np.float32([[0, 0]])
  got = [
    float(agreement(*pair, ONES[:1])['kl'])
    for pair in ((sure, unsure), (unsure, sure))
  ]
  q = log_softmax([0, -8])
  assert got[0] == pytest.approx(np.log(0.5) - q.mean(), rel=1e-5)
  assert got[1] == pytest.approx(np.exp(q) @ (q - np.log(0.5)), rel=1e-3)


def test_impossible_classes_add_nothing():
  p = np.array([[1, 0, 0, 0], [0.5, 0.5, 0, 0]], np.float32)
  with np.errstate(divide='ignore'):
    logits = np.log(p)
  got = distance(logits, p, ONES[:2])
  assert float(got['posterior_square']) == float(got['posterior_kl']) == 0
  worse = distance(logits[::-1], p, ONES[:2])
  assert np.isinf(worse['posterior_kl'])
  masked = distance(logits[::-1], p, np.array([1, 0], np.float32))
  np.testing.assert_allclose(masked['posterior_kl'], np.log(2), rtol=1e-6)
  assert float(agreement(logits, logits, ONES[:2])['kl']) == 0


@hypothesis.given(seeds)
@hypothesis.settings(max_examples=20)
def test_brier_and_nll_are_the_distances_up_to_constants(seed):
  # Hamidi et al., 2024, https://arxiv.org/abs/2407.18041: expectations over
  # labels that the posterior gives, here exactly, one label after the other.
  logits, other = draw(seed, rows=1)
  p = softmax(np.float64(other[0]))
  every = np.repeat(logits, K, axis=0)
  of_label = [
    counts(every, np.arange(K), np.eye(K, dtype=np.float32)[label])
    for label in range(K)
  ]
  brier, nll = (
    sum(p[label] * float(of_label[label][name]) for label in range(K))
    for name in ('brier', 'nll')
  )
  far = distance(logits, np.float32(p)[None], ONES[:1])
  square, kl = (float(far[x]) for x in ('posterior_square', 'posterior_kl'))
  assert brier == pytest.approx(square + 1 - p @ p, rel=2e-4)
  assert nll == pytest.approx(kl - p @ np.log(p), rel=2e-4)
