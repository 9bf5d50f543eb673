"""Losses that tell an example's own pair from others."""

import math

import chex
import jax
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
    ValueError: no examples to draw from, or no negatives drawn.

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
      'crd_nce needs scores of a pair and of 1 or more negatives behind it, got'
      f' {scores.shape[1]} score for each example'
    )
  scores = at_least_float32(scores)
  noise = negatives / examples
  total = noise + 1e-7
  # -log(P / (P + c)) and -log(c / (P + c)), of any P: those of almost all
  # negatives are far below c.
  score = jnp.maximum(scores[:, 0], jnp.finfo(scores.dtype).tiny)
  missed = jax.nn.softplus(math.log(total) - jnp.log(score))
  mistaken = jnp.log1p((scores[:, 1:] + 1e-7) / noise)
  return missed + jnp.sum(mistaken, axis=1)
