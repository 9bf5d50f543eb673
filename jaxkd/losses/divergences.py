"""Divergences of the learner's softened probabilities from the guide's."""

import math

import chex
import jax.numpy as jnp

from jaxkd.losses.temperature import check_temperature, log_soft
from jaxkd.types import Array

# Number of terms of the series in `_second_difference`: the next one is below
# the precision of float64.
TERMS = 18


def alpha_beta(
  student: Array,
  teacher: Array,
  alpha: float = 0.5,
  beta: float = 0.5,
  temperature: float = 1.0,
) -> Array:
  """Alpha-beta divergence of the student from the teacher; no factor T².

  With p the teacher's and q the student's probabilities at temperature T,
    D = -1/(ab) sum [p^a q^b - a/(a+b) p^(a+b) - b/(a+b) q^(a+b)].
  (a, b) = (1, 0) is KL(p ‖ q), (0, 1) KL(q ‖ p), (1, 1) half the squared
  distance, (1/2, 1/2) twice the squared distance of the square roots, and
  (0, 0) half the squared distance of the logarithms. A smaller a puts more
  weight on classes where p is small, a larger b on classes where q is large.

  It is computed as sum (log q - log p)² exp[x, y, z], the second divided
  difference of exp at x = (a+b) log p, y = a log p + b log q and
  z = (a+b) log q: the same function, without special cases for a, b or a + b at
  or near 0. In these cases, the published code lacks a factor 1/a or 1/b, which
  matters if the other one is not 1.

  Args:
    student: logits [..., K].
    teacher: logits [..., K]; the caller decides whether gradients flow here.
      For a masked class the term is q^(a+b) / (a (a+b)), its limit; it is
      infinite if a is not positive.
    alpha: a.
    beta: b. If a or b is negative, D grows without bound as probabilities
      vanish.
    temperature: T > 0, in units of logits, of both softmaxes.

  Returns:
    Loss, one per example: [...]; float32 or better. In nats at (1, 0), (0, 1).

  Raises:
    ValueError: a temperature that is not positive.

  References:
    Wang et al., ICML 2025, https://arxiv.org/abs/2505.04560; the divergence is
    that of Cichocki, Cruces and Amari, 2011, https://doi.org/10.3390/e13010134.

  >>> z = jnp.array([[2.0, 1.0, 0.0]])
  >>> alpha_beta(z, z)
  Array([0.], dtype=float32)
  >>> sure = jnp.array([[99.0, 0.0]])
  >>> alpha_beta(sure, -sure, alpha=1.0, beta=1.0)
  Array([1.], dtype=float32)
  """
  chex.assert_equal_shape([student, teacher])
  check_temperature('alpha_beta', temperature)
  log_q, log_p = log_soft(student, temperature), log_soft(teacher, temperature)
  masked = log_p == -jnp.inf
  log_p = jnp.where(masked, log_q, log_p)  # harmless: its terms are replaced
  nodes = (
    (alpha + beta) * log_p,
    alpha * log_p + beta * log_q,
    (alpha + beta) * log_q,
  )
  curvature = _second_difference(*jnp.sort(jnp.stack(nodes), axis=0))
  terms = jnp.square(log_q - log_p) * curvature
  # Under jit, alpha and beta may be arrays.
  bounded = jnp.logical_and(alpha > 0, alpha + beta > 0)
  divisor = jnp.where(bounded, alpha * (alpha + beta), 1)
  limit = jnp.exp((alpha + beta) * log_q) / divisor
  limit = jnp.where(bounded, limit, jnp.inf)
  return jnp.sum(jnp.where(masked, limit, terms), axis=-1)


def _second_difference(low: Array, middle: Array, high: Array) -> Array:
  """Returns the second divided difference of exp at three sorted nodes.

  It equals exp'' / 2 at a point between them: e^x / 2 if all nodes are x.
  """
  span = high - low
  near = span < 1
  # The definition divides by the span. If the span is small, this would cancel,
  # and a series of positive terms is used instead: homogeneous polynomials of
  # the distances x <= y from the lowest node. Each of the two formulas gets
  # harmless inputs where the other one is used.
  x, y = jnp.where(near, middle - low, 0), jnp.where(near, span, 0)
  power = polynomial = jnp.ones_like(x)
  series = polynomial / 2
  for n in range(1, TERMS):
    power = power * x
    polynomial = polynomial * y + power
    series += polynomial / float(math.factorial(n + 2))
  slopes = (
    jnp.exp(high) * _mean_decay(high - middle),
    jnp.exp(middle) * _mean_decay(middle - low),
  )
  far = (slopes[0] - slopes[1]) / jnp.where(near, 1, span)
  return jnp.where(near, jnp.exp(low) * series, far)


def _mean_decay(t: Array) -> Array:
  """Returns (1 - e^-t) / t, the mean of e^-x for x from 0 to t."""
  positive = t > 0
  return jnp.where(positive, -jnp.expm1(-t) / jnp.where(positive, t, 1), 1)
