"""Losses and metrics of images with several labels, against scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from jaxkd import losses
from jaxkd.metrics import several_labels
from jaxkd.problems import MULTI_LABEL

INF = np.inf


def draw(n=40, k=5, seed=0, ties=False):
  """Returns logits and labels, every class with a positive example."""
  rng = np.random.default_rng(seed)
  logits = rng.normal(size=(n, k))
  if ties:
    logits = np.round(logits)
  labels = (rng.random((n, k)) < rng.uniform(0.1, 0.9, k)).astype(np.uint8)
  labels[rng.integers(n, size=k), np.arange(k)] = 1
  return logits.astype(np.float32), labels


# Losses.


def test_cross_entropy_is_that_of_each_class_alone():
  logits, labels = draw()
  got = losses.binary_cross_entropy(logits, labels)
  p = expit(logits.astype(np.float64))
  want = [
    sum(
      sklearn.metrics.log_loss([y], [q], labels=[0, 1])
      for y, q in zip(*row, strict=True)
    )
    for row in zip(labels, p, strict=True)
  ]
  np.testing.assert_allclose(got, want, rtol=1e-4)
  mean = losses.binary_cross_entropy(logits, labels, reduction='mean')
  np.testing.assert_allclose(5 * mean, want, rtol=1e-4)


def test_a_class_index_is_a_single_positive_label():
  logits, _ = draw()
  index = np.arange(40) % 5
  np.testing.assert_array_equal(
    losses.binary_cross_entropy(logits, index),
    losses.binary_cross_entropy(logits, np.eye(5, dtype=np.uint8)[index]),
  )


def test_the_gradient_is_the_difference_of_probabilities():
  logits, labels = draw()

  def loss(x, weight=1.0):
    return jnp.sum(losses.binary_cross_entropy(x, labels, weight))

  p = expit(logits)
  np.testing.assert_allclose(jax.grad(loss)(logits), p - labels, atol=1e-5)
  weight = (1.0, 2.0, 3.0, 4.0, 5.0)
  want = (1 - labels) * p + labels * np.array(weight) * (p - 1)
  got = jax.grad(loss)(logits, weight)
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def bernoulli_kl(student, teacher, temperature):
  p, q = (expit(np.float64(x) / temperature) for x in (teacher, student))
  kl = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
  return temperature**2 * kl.sum(-1)


@pytest.mark.parametrize('temperature', [1.0, 3.0])
def test_distillation_is_the_divergence_of_bernoullis(temperature):
  (student, _), (teacher, _) = draw(seed=1), draw(seed=2)
  got = losses.binary_kd(student, teacher, temperature)
  want = bernoulli_kl(student, teacher, temperature)
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
  grad = jax.grad(lambda x: jnp.sum(losses.binary_kd(x, teacher, temperature)))(
    student
  )
  p, q = expit(teacher / temperature), expit(student / temperature)
  np.testing.assert_allclose(grad, temperature * (q - p), rtol=1e-4, atol=1e-5)


def test_distillation_of_two_classes_is_that_of_a_softmax():
  """A softmax over two logits is a sigmoid of their difference."""
  (student, _), (teacher, _) = draw(k=1, seed=1), draw(k=1, seed=2)
  pairs = [np.pad(x, ((0, 0), (0, 1))) for x in (student, teacher)]
  np.testing.assert_allclose(
    losses.binary_kd(student, teacher, 2.0),
    losses.kd(*pairs, 2.0),
    rtol=1e-4,
    atol=1e-6,
  )


def test_infinite_logits_are_certain():
  sure = np.array([[INF, -INF]], np.float32)
  unsure = np.array([[1.0, -2.0]], np.float32)
  labels = np.array([[1, 0]], np.uint8)
  assert losses.binary_cross_entropy(sure, labels)[0] == 0
  assert losses.binary_cross_entropy(sure, 1 - labels)[0] == INF
  assert losses.binary_kd(sure, sure)[0] == 0
  assert losses.binary_kd(sure, unsure)[0] == INF
  np.testing.assert_allclose(
    losses.binary_kd(unsure, sure),
    losses.binary_cross_entropy(unsure, labels),
    rtol=1e-5,
  )
  for argnum in (0, 1):
    grad = jax.grad(lambda *x: jnp.sum(losses.binary_kd(*x)), argnum)
    assert np.all(np.isfinite(grad(unsure, sure)))
  grad = jax.grad(lambda x: jnp.sum(losses.binary_cross_entropy(x, labels)))
  np.testing.assert_array_equal(grad(sure), [[0, 0]])


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (
      lambda x: losses.binary_cross_entropy(x, x, [1.0, 2.0]),
      '5 classes, got 2',
    ),
    (
      lambda x: losses.binary_cross_entropy(x, x, reduction='max'),
      "'mean', got",
    ),
    (lambda x: losses.binary_kd(x, x, reduction='max'), "'sum' or 'mean', got"),
    (lambda x: losses.binary_kd(x, x, 0.0), 'temperature above 0, got 0.0'),
  ],
)
def test_mistakes_are_explained(call, message):
  with pytest.raises(ValueError, match=message):
    call(jnp.zeros((2, 5)))


# Metrics.


@given(st.integers(1, 60), st.integers(0, 2**31), st.booleans())
def test_average_precision_is_scikit_learns(n, seed, ties):
  logits, labels = draw(n, 4, seed, ties)
  got = several_labels.average_precision(logits, labels)
  want = [
    sklearn.metrics.average_precision_score(y, s)
    for y, s in zip(labels.T, logits.T, strict=True)
  ]
  np.testing.assert_allclose(got, want, rtol=1e-12)


@settings(max_examples=25)
@given(st.integers(0, 2**31), st.booleans())
def test_a_batch_is_measured_as_a_split(seed, ties):
  logits, labels = draw(30, 4, seed, ties)
  weight = np.random.default_rng(seed).integers(0, 3, 30)
  weight[0] = 1
  labels[:, 3] = 0  # no positive example
  want = several_labels.mean_average_precision(
    np.repeat(logits, weight, axis=0), np.repeat(labels, weight, axis=0)
  )
  batch = dict(label=jnp.asarray(labels), mask=jnp.float32(weight / 7))
  got = MULTI_LABEL.metrics(jnp.asarray(logits), batch)['map']
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


def test_classes_without_positives_are_left_out():
  logits, labels = draw(20, 3)
  more = np.pad(labels, ((0, 0), (0, 2)))
  scores = np.pad(logits, ((0, 0), (0, 2)))
  means = several_labels.mean_average_precision
  assert means(scores, more) == means(logits, labels)
  assert np.isnan(several_labels.average_precision(scores, more)[-1])
  assert means(logits, 0 * labels) == 0


def test_equal_scores_have_the_prevalence():
  _, labels = draw(30, 4)
  got = several_labels.average_precision(np.zeros((30, 4)), labels)
  np.testing.assert_allclose(got, labels.mean(0))


def measured(logits, labels, mask=None):
  mask = np.ones(len(logits), np.float32) if mask is None else mask
  batch = dict(label=jnp.asarray(labels), mask=mask)
  total = jax.device_get(MULTI_LABEL.sums(jnp.asarray(logits), batch))
  kept = mask > 0
  rows = {'score': logits[kept], 'truth': labels[kept]}
  return MULTI_LABEL.summary({**total, **rows})


def test_metrics_are_scikit_learns():
  logits, labels = draw(50, 6)
  got = measured(logits, labels)
  p = expit(logits.astype(np.float64))
  kwargs = dict(y_true=labels, y_pred=logits > 0)
  f1 = sklearn.metrics.f1_score
  np.testing.assert_allclose(got['f1_micro'], f1(**kwargs, average='micro'))
  np.testing.assert_allclose(got['f1_macro'], f1(**kwargs, average='macro'))
  np.testing.assert_allclose(
    got['map'], sklearn.metrics.average_precision_score(labels, p)
  )
  want = -np.log(np.where(labels, p, 1 - p)).sum(1).mean()
  np.testing.assert_allclose(got['nll'], want, rtol=1e-5)
  assert set(got) == set(MULTI_LABEL.displays)


def test_padding_does_not_count():
  logits, labels = draw(20, 3)
  mask = np.float32(np.arange(20) < 13)
  logits[13:] = np.nan
  assert measured(logits, labels, mask) == measured(logits[:13], labels[:13])


def test_one_positive_label_and_one_class_each_is_a_ranking():
  """With a single example per class, AP is 1 / rank of the example."""
  logits, _ = draw(6, 6)
  labels = np.eye(6, dtype=np.uint8)
  rank = (logits >= np.diag(logits)[None]).sum(0)
  got = several_labels.average_precision(logits, labels)
  np.testing.assert_allclose(got, 1 / rank)


def test_agreement_is_that_of_decisions_and_probabilities():
  (student, _), (teacher, _) = draw(seed=1), draw(seed=2)
  total = jax.device_get(
    MULTI_LABEL.agreement(student, teacher, dict(mask=np.ones(40)), 2.0)
  )
  got = MULTI_LABEL.summary(total)
  same = np.mean((student > 0) == (teacher > 0))
  np.testing.assert_allclose(got['agreement'], same, rtol=1e-6)
  kl = bernoulli_kl(student, teacher, 2.0).mean() / 4
  np.testing.assert_allclose(got['kl'], kl, rtol=1e-4)


def test_chance_is_what_random_orders_have():
  _, labels = draw(60, 4)
  mean, deviation = several_labels.chance_map(labels)
  rng = np.random.default_rng(0)
  random = np.array(
    [
      several_labels.average_precision(rng.random((60, 4)), labels)
      for _ in range(2000)
    ]
  )
  np.testing.assert_allclose(random.mean(), mean, rtol=0.01)
  each = random.std(0).mean()
  np.testing.assert_allclose(deviation, each, rtol=0.2)
  assert random.mean(1).std() < deviation  # of independent classes
