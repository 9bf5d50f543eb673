"""Differentiable ranks of classes, and a loss that uses them."""

import chex
import jax
import jax.numpy as jnp

from jaxkd.losses.correlations import pearson
from jaxkd.losses.logits import standardise
from jaxkd.losses.temperature import (
  check_positive,
  check_temperature,
  expected,
  log_soft,
  soft,
)
from jaxkd.types import Array

HARD = ('pearson', 'spearman')


# The gradient recomputes the [..., K, K] array instead of storing it.
@jax.checkpoint
def soft_ranks(x: Array, softness: float = 0.1) -> Array:
  """Returns differentiable ranks along the last axis, [..., K]: 1 is lowest.

  The rank of x_k is 1/2 + sum over j of sigmoid((x_k - x_j) / softness), which
  tends to the ordinary rank (with mean ranks for ties) as the softness tends to
  0. All classes are compared with each other: time and memory grow with K².

  Args:
    x: [..., K].
    softness: > 0, in units of x.

  >>> soft_ranks(jnp.array([30.0, 10.0, 20.0]))
  Array([3., 1., 2.], dtype=float32)
  """
  gap = jnp.expand_dims(x, -1) - jnp.expand_dims(x, -2)
  # Two masked classes are equal, where -inf - -inf is NaN.
  masked = x == -jnp.inf
  both = jnp.expand_dims(masked, -1) & jnp.expand_dims(masked, -2)
  gap = jnp.where(both, 0, gap)
  return 0.5 + jnp.sum(jax.nn.sigmoid(gap / softness), axis=-1)


def cmkd(
  student: Array,
  teacher: Array,
  hard: str,
  alpha: float = 1.0,
  beta: float = 2.0,
  temperature: float = 4.0,
  softness: float = 0.1,
) -> Array:
  """Correlation matching: w (1 - Pearson) + v (1 - Spearman).

  Logits are standardised first. Pearson's correlation is that of the softened
  probabilities of student and teacher, Spearman's that of the soft ranks of
  their classes. The difficulty of an example, h, is the entropy of the
  teacher's softmax divided by log K. If `hard` is 'pearson', w = alpha h and
  v = beta (1 - h); otherwise w = alpha (1 - h) and v = beta h.

  The loss follows the paper's abstract, because its equations were not
  available. The remaining choices are arguments or ours: the difficulty is at
  temperature 1 before standardisation, the weights and T are those of DIST on
  CIFAR-100, and the softness is a tenth of the logits' standard deviation.

  Args:
    student: logits [..., K], with K at least 2.
    teacher: logits [..., K]; the caller decides whether gradients flow here.
    hard: the correlation for hard examples, 'pearson' or 'spearman'; the other
      one is for easy examples.
    alpha: weight of Pearson's correlation.
    beta: weight of Spearman's correlation.
    temperature: T > 0, in units of standardised logits.
    softness: of the ranks, > 0, in units of standardised logits.

  Returns:
    Dimensionless loss, one per example: [...]; float32 or better.

  Raises:
    ValueError: unknown `hard`, a single class, or a temperature or softness
      that is not positive.

  References:
    Niu et al., 2024, https://arxiv.org/abs/2410.06561.

  >>> z = jnp.array([[2.0, 1.0, 0.0]])
  >>> cmkd(z, z, 'spearman').round(4) + 0
  Array([0.], dtype=float32)
  """
  chex.assert_equal_shape([student, teacher])
  check_temperature('cmkd', temperature)
  if hard not in HARD:
    raise ValueError(f'hard of cmkd must be one of {HARD}, got {hard!r}')
  check_positive('cmkd', 'softness', softness)
  log_p = log_soft(teacher, 1.0)
  entropy = -expected(jnp.exp(log_p), log_p)
  h = entropy / jnp.log(student.shape[-1])
  s, t = standardise(student), standardise(teacher)
  values = 1 - pearson(soft(s, temperature), soft(t, temperature))
  ranks = 1 - pearson(soft_ranks(s, softness), soft_ranks(t, softness))
  w, v = (h, 1 - h) if hard == 'pearson' else (1 - h, h)
  return alpha * w * values + beta * v * ranks
