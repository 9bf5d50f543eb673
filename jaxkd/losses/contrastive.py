"""Contrastive losses: positive pairs against negative pairs."""

import math

import chex
import jax
import jax.numpy as jnp

from jaxkd.losses.numerics import at_least_float32
from jaxkd.types import Array


def crd_nce(scores: Array, examples: int) -> Array:
  """Noise-contrastive estimation (NCE) of contrastive distillation (CRD).

  For a score P, K negatives and c = K / N, a pair is positive with probability
  P / (P + c) and negative with probability c / (P + c).

  Args:
    scores: P = exp(cosine / T) / Z, positive: [B, 1 + K], of the positive pair
      and of K negative pairs.
    examples: N, the number of training examples that negatives are sampled
      from.

  Returns:
    Loss in nats, summed over the positive and the negatives: [B]. CRD adds the
    losses with the student's and with the teacher's features as anchors.

  Raises:
    ValueError: no examples, or no negatives.

  References:
    Tian et al., ICLR 2020, https://arxiv.org/abs/1910.10699, eq. 9 to 13 and
    section 3.3; 1e-7 in both denominators from the published code.

  >>> crd_nce(jnp.ones((1, 2)), examples=1).round(4)
  Array([1.3863], dtype=float32)
  """
  chex.assert_rank(scores, 2)
  negatives = scores.shape[1] - 1
  if examples < 1:
    raise ValueError(f'crd_nce needs 1 or more examples, got {examples}')
  if negatives < 1:
    raise ValueError(
      'crd_nce needs scores of a positive pair and of 1 or more negatives, got'
      f' {scores.shape[1]} score for each example'
    )
  scores = at_least_float32(scores)
  noise = negatives / examples
  total = noise + 1e-7
  # -log(P / (P + c)) and -log(c / (P + c)), without cancellation for P << c,
  # which holds for almost all negatives.
  score = jnp.maximum(scores[:, 0], jnp.finfo(scores.dtype).tiny)
  positive = jax.nn.softplus(math.log(total) - jnp.log(score))
  negative = jnp.log1p((scores[:, 1:] + 1e-7) / noise)
  return positive + jnp.sum(negative, axis=1)
