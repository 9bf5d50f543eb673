"""Measures for images with any number of labels: mAP, F1, likelihood.

Every class is a binary classification of its own, by the sigmoid of its logit.
A class without a positive example has no precision at any recall: means over
the classes leave it out.
"""

from collections.abc import Mapping

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxkd.metrics.agreement import kl
from jaxkd.metrics.sums import Sums, masked_sum
from jaxkd.types import Array


def binary_counts(logits: Array, labels: Array, mask: Array) -> Sums:
  """Returns sums over a batch, from which F1 and the likelihood follow.

  Args:
    logits: [B, K]; a class is predicted where its logit is above 0, that is
      where its probability is above one half.
    labels: multi-hot [B, K].
    mask: [B], 1 for examples that count.

  Returns:
    'nll': nats, of all labels of an example together; 'hits', 'predicted' and
    'positives': by class [K], right predictions, all predictions, and labels;
    'seen': examples. Float32.
  """
  chex.assert_equal_shape([logits, labels])
  present, predicted = labels > 0, logits > 0
  log_q = jax.nn.log_sigmoid(jnp.where(present, logits, -logits))
  by_class = jax.vmap(masked_sum, in_axes=(1, None))
  return {
    'nll': masked_sum(-jnp.sum(log_q, axis=-1), mask),
    'hits': by_class(present & predicted, mask),
    'predicted': by_class(predicted, mask),
    'positives': by_class(present, mask),
    'seen': masked_sum(jnp.ones_like(mask), mask),
  }


def f1(total: Mapping[str, np.ndarray]) -> dict[str, float]:
  """Returns F1, the harmonic mean of precision and recall, at one half.

  Args:
    total: the sums of `binary_counts`, added up.

  Returns:
    'f1_micro': of all decisions together; 'f1_macro': the mean over classes
    with a positive example. 0 where nothing is right.
  """
  hits, either = total['hits'], total['predicted'] + total['positives']

  def score(hits, either):
    return 2 * hits / np.maximum(either, 1)

  some = total['positives'] > 0
  return {
    'f1_micro': float(score(hits.sum(), either.sum())),
    'f1_macro': float(np.mean(score(hits, either)[some]))
    if some.any()
    else 0.0,
  }


def average_precision(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """Returns the average precision of each class, over a whole split.

  AP = sum_n (R_n - R_{n-1}) P_n, with precision P_n and recall R_n of the
  predictions whose score is at least the n-th largest distinct one. There is no
  interpolation, and the order of equal scores does not matter. NaN comes last.

  Args:
    scores: [N, K].
    labels: multi-hot [N, K].

  Returns:
    Float64 [K], fractions; NaN for a class without a positive example.

  References:
    Zhu, Recall, precision and average precision, 2004; the definition of
    scikit-learn's `average_precision_score`.
  """
  order = np.argsort(-scores, axis=0, kind='stable')
  scores = np.take_along_axis(scores, order, axis=0)
  right = np.take_along_axis(np.asarray(labels) > 0, order, axis=0)
  size = len(scores)
  place = np.arange(size)[:, None]
  # The last place with the same score: for each, the next that differs.
  ends = np.ones(scores.shape, bool)
  ends[:-1] = scores[1:] != scores[:-1]
  last = np.where(ends, place, size)
  last = np.minimum.accumulate(last[::-1], axis=0)[::-1]
  hits = np.take_along_axis(np.cumsum(right, axis=0), last, axis=0)
  precision = np.sum(right * hits / (last + 1), axis=0)
  with np.errstate(invalid='ignore'):
    return precision / np.sum(right, axis=0)


def mean_average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
  """Returns the mean of `average_precision` over classes with positives.

  0 if there is no positive example at all.
  """
  each = average_precision(scores, labels)
  known = each[np.sum(np.asarray(labels) > 0, axis=0) > 0]
  return float(np.mean(known)) if known.size else 0.0


def batch_map(scores: Array, labels: Array, weight: Array) -> Array:
  """Returns the same of one batch of weighted examples, under `jit`.

  Args:
    scores: [B, K].
    labels: multi-hot [B, K].
    weight: [B], at least 0.
  """
  chex.assert_equal_shape([scores, labels])
  order = jnp.argsort(-scores, axis=0)
  scores = jnp.take_along_axis(scores, order, axis=0)
  count = weight[order]
  right = count * (jnp.take_along_axis(labels, order, axis=0) > 0)
  place = jnp.arange(len(scores))[:, None]
  ends = jnp.ones(scores.shape, bool)
  ends = ends.at[:-1].set(scores[1:] != scores[:-1])
  last = lax.cummin(jnp.where(ends, place, len(scores)), axis=0, reverse=True)
  hits, seen = (
    jnp.take_along_axis(jnp.cumsum(x, axis=0), last, axis=0)
    for x in (right, count)
  )
  total = jnp.sum(right, axis=0)
  precision = jnp.sum(right * hits / jnp.where(seen > 0, seen, 1), axis=0)
  known = total > 0
  each = jnp.where(known, precision / jnp.where(known, total, 1), 0)
  return jnp.sum(each) / jnp.maximum(jnp.sum(known), 1)


def chance_map(labels: np.ndarray) -> tuple[float, float]:
  """Returns the mAP of a random order: mean and standard deviation.

  Of P positives among N, the mean of the average precision is
    (H + (P - 1) / (N - 1) (N - H)) / N,  H = 1 + 1/2 + ... + 1/N,
  slightly above the prevalence P / N. Its variance is about p (1 - p) / N, with
  p = P / N, for large N. The deviation is that of classes in one common order,
  which bounds the one for any others.

  Args:
    labels: multi-hot [N, K].

  References:
    Bestgen, Exact expected average precision of the random baseline for system
    evaluation, Prague Bulletin of Mathematical Linguistics, 2015.
  """
  size = len(labels)
  positives = np.sum(np.asarray(labels) > 0, axis=0)
  positives = positives[positives > 0]
  if not positives.size:
    return 0.0, 0.0
  harmonic = np.sum(1 / np.arange(1, size + 1))
  rest = (positives - 1) / max(size - 1, 1) * (size - harmonic)
  share = positives / size
  return (
    float(np.mean(harmonic + rest) / size),
    float(np.mean(np.sqrt(share * (1 - share) / size))),
  )


def binary_agreement(
  student: Array, teacher: Array, mask: Array, temperature: float = 1.0
) -> Sums:
  """Returns sums over a batch: equal decisions, and divergences.

  Args:
    student: logits [B, K].
    teacher: logits [B, K].
    mask: [B], 1 for examples that count.
    temperature: T > 0; for the divergence, both logits are divided by it.

  Returns:
    'agreement': for each example the fraction of classes with equal decisions;
    'kl': KL(teacher || student) in nats, of all classes of an example together;
    'seen': examples. Float32 scalars.
  """
  chex.assert_equal_shape([student, teacher])

  def outcomes(logits):
    logits = logits / temperature
    pair = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    return jnp.concatenate(pair, axis=-1)

  same = jnp.mean((student > 0) == (teacher > 0), axis=-1)
  return {
    'agreement': masked_sum(same, mask),
    'kl': masked_sum(kl(outcomes(teacher), outcomes(student)), mask),
    'seen': masked_sum(jnp.ones_like(mask), mask),
  }
