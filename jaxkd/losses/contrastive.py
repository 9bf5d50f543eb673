"""Losses that tell an example's own pair from others."""

import chex
import jax.numpy as jnp

from jaxkd.losses.numerics import at_least_float32
from jaxkd.types import Array


def crd_nce(scores: Array, examples: int) -> Array:
  """Contrastive distillation's noise contrastive estimation.

  With P a score, K negatives and c = K / N, the chance of having been drawn as
  a pair is P / (P + c) for the positive one and c / (P + c) for the others.

  Args:
    scores: P = exp(cosine / T) / Z, positive: [B, 1 + K], the pair itself
      first and the negatives behind it.
    examples: N, of the training set, from which negatives are drawn.

  Returns:
    Nats, summed over the pair and its negatives: [B]. Contrastive distillation
    adds those of the student's and of the teacher's anchors.

  Raises:
    ValueError: no examples to draw from.

  References:
    Tian et al., ICLR 2020, https://arxiv.org/abs/1910.10699, eq. 9 to 13 and
    section 3.3; 1e-7 in both denominators from the published code.

  >>> crd_nce(jnp.ones((1, 2)), examples=1).round(4)
  Array([1.3863], dtype=float32)
  """
  chex.assert_rank(scores, 2)
  if examples < 1:
    raise ValueError(f'crd_nce needs 1 or more examples, got {examples}')
  scores = at_least_float32(scores)
  noise = (scores.shape[1] - 1) / examples
  total = noise + 1e-7
  # No score is lost to rounding: log(P / (P + c)) = -log(1 + c / P), and
  # log(c / (P + c)) is small for almost all negatives.
  least = jnp.finfo(scores.dtype).tiny
  positive = jnp.log1p(total / jnp.maximum(scores[:, 0], least))
  negatives = jnp.log1p((scores[:, 1:] + 1e-7) / noise)
  return positive + jnp.sum(negatives, axis=1)
