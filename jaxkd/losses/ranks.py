"""Ranks of classes that can be differentiated, and a loss of them."""

import chex
import jax
import jax.numpy as jnp

from jaxkd.losses.correlations import pearson
from jaxkd.losses.logits import standardise
from jaxkd.losses.temperature import check_temperature, log_soft, soft
from jaxkd.types import Array

HARD = ('pearson', 'spearman')


# The gradient computes [..., K, K] again rather than keeping it.
@jax.checkpoint
def soft_ranks(x: Array, softness: float = 0.1) -> Array:
  """Returns differentiable ranks along the last axis, [..., K]: 1 is lowest.

  The rank of x_k is 1/2 + sum over j of sigmoid((x_k - x_j) / softness), which
  tends to the ordinary rank, ties at their mean, as the softness tends to 0.

  It compares all classes with each other: time and memory grow with K².

  Args:
    x: [..., K].
    softness: > 0, in units of x.

  >>> soft_ranks(jnp.array([30.0, 10.0, 20.0]))
  Array([3., 1., 2.], dtype=float32)
  """
  gap = jnp.expand_dims(x, -1) - jnp.expand_dims(x, -2)
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

  Logits are standardised first. Pearson's correlation is of the softened
  probabilities of student and teacher, Spearman's of the soft ranks of their
  classes. How hard an example is, h, is the entropy of the teacher's softmax
  over log K, and of the weights one is alpha h or beta h, the other one has
  1 - h in its place.

  The abstract names these parts; the paper's equations are not known here. What
  is open is an argument, or chosen: the difficulty at temperature 1 before
  standardising, DIST's weights and its T on CIFAR-100, and ranks that blur a
  tenth of the logits' standard deviation.

  Args:
    student: logits [..., K], with K at least 2.
    teacher: logits [..., K]; the caller decides whether gradients flow here.
    hard: the correlation that counts for hard examples, 'pearson' or
      'spearman'; the other one counts for easy ones.
    alpha: weight of Pearson's.
    beta: weight of Spearman's.
    temperature: T > 0, in units of standardised logits.
    softness: of the ranks, > 0, in units of standardised logits.

  Returns:
    Loss without unit, one per example: [...]; float32 or better.

  Raises:
    ValueError: another `hard`, a single class, a temperature or a softness that
      is not positive.

  References:
    Niu et al., 2024, https://arxiv.org/abs/2410.06561.

  >>> z = jnp.array([[2.0, 1.0, 0.0]])
  >>> cmkd(z, z, 'spearman').round(4) + 0
  Array([0.], dtype=float32)
  """
  chex.assert_equal_shape([student, teacher])
  check_temperature('cmkd', temperature)
  check_temperature('cmkd', softness, 'softness')
  if hard not in HARD:
    raise ValueError(f'cmkd takes for hard {HARD}, got {hard!r}')
  log_p = log_soft(teacher, 1.0)
  entropy = -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)
  h = entropy / jnp.log(student.shape[-1])
  s, t = standardise(student), standardise(teacher)
  values = 1 - pearson(soft(s, temperature), soft(t, temperature))
  ranks = 1 - pearson(soft_ranks(s, softness), soft_ranks(t, softness))
  w, v = (h, 1 - h) if hard == 'pearson' else (1 - h, h)
  return alpha * w * values + beta * v * ranks
