"""Fidelity: how far a student agrees with its teacher.

Stanton, Izmailov, Kirichenko, Alemi, Wilson, NeurIPS 2021,
https://arxiv.org/abs/2106.05945, section 3: a student can be as accurate as its
teacher and yet disagree with it.
"""

import chex
import jax
import jax.numpy as jnp

from jaxkd.metrics.sums import Sums, masked_sum
from jaxkd.types import Array


def agreement(
  student: Array, teacher: Array, mask: Array, temperature: float = 1.0
) -> Sums:
  """Returns sums over a batch: equal answers, and divergences.

  Args:
    student: logits [B, K].
    teacher: logits [B, K].
    mask: [B], 1 for examples that count.
    temperature: T > 0; for the divergence, both logits are divided by it.

  Returns:
    'agreement': examples with the same largest logit; 'kl': KL(teacher ||
    student) in nats, without the factor T^2 of a loss; 'seen': examples.
    Float32 scalars.
  """
  chex.assert_equal_shape([student, teacher])
  log_p = jax.nn.log_softmax(teacher / temperature)
  log_q = jax.nn.log_softmax(student / temperature)
  same = jnp.argmax(student, axis=-1) == jnp.argmax(teacher, axis=-1)
  return {
    'agreement': masked_sum(same, mask),
    'kl': masked_sum(kl(log_p, log_q), mask),
    'seen': masked_sum(jnp.ones_like(mask), mask),
  }


def kl(log_p: Array, log_q: Array) -> Array:
  """Returns KL(p || q) of log-probabilities [..., K] in nats, [...].

  A class that is impossible in p (-inf) adds nothing for any q.
  One that is possible in p and impossible in q makes the divergence infinite.
  """
  p = jnp.exp(log_p)
  return jnp.sum(jnp.where(p > 0, p * (log_p - log_q), 0), axis=-1)
