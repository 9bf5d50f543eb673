"""Accuracy, negative log-likelihood and Brier score.

The likelihood and the Brier score are proper: over examples of one image, both
are lowest, in expectation, where the probabilities are those of its labels.

Brier, 1950, https://doi.org/10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2,
eq. 2, which sums over classes: 0 is perfect, 2 is sure and wrong.
"""

import chex
import jax
import jax.numpy as jnp

from jaxkd.metrics.sums import Sums, masked_sum
from jaxkd.types import Array

PLACES = 5


def counts(logits: Array, labels: Array, mask: Array) -> Sums:
  """Returns sums, not means, so that batches add up.

  Args:
    logits: [B, K].
    labels: int [B].
    mask: [B], 1 for examples that count.

  Returns:
    'top1': right answers; 'top5': labels among the five largest logits, or
    among all where K < 5; 'nll': nats; 'brier': squared differences between
    probabilities and one-hot labels, summed over classes; 'seen': examples.
    Float32 scalars.
  """
  chex.assert_rank([logits, labels, mask], [2, 1, 1])
  place = rank(logits, labels)
  log_q = jax.nn.log_softmax(logits)
  nll = -jnp.take_along_axis(log_q, labels[:, None], axis=-1)[:, 0]
  one_hot = jax.nn.one_hot(labels, logits.shape[-1])
  brier = jnp.sum((jnp.exp(log_q) - one_hot) ** 2, axis=-1)
  return {
    'top1': masked_sum(place == 0, mask),
    'top5': masked_sum(place < min(PLACES, logits.shape[-1]), mask),
    'nll': masked_sum(nll, mask),
    'brier': masked_sum(brier, mask),
    'seen': masked_sum(jnp.ones_like(mask), mask),
  }


def rank(logits: Array, labels: Array) -> Array:
  """Returns how many classes come before the label, int32 [B].

  Of equal logits the first comes first, as in argmax, so that a network with
  equal logits for all classes gets no credit for it. A NaN, which cannot be
  compared with the label's logit, comes before it.

  Args:
    logits: [B, K].
    labels: int [B].
  """
  own = jnp.take_along_axis(logits, labels[:, None], axis=-1)
  earlier = jnp.arange(logits.shape[-1])[None] < labels[:, None]
  before = ~(logits <= own) | ((logits == own) & earlier)
  return jnp.sum(before, axis=-1, dtype=jnp.int32)
