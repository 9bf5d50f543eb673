"""Losses of second-order distributions: a Dirichlet for each example."""

import chex
import jax
import jax.numpy as jnp
from jax.scipy.special import digamma, gammaln

from jaxkd.losses.numerics import at_least_float32
from jaxkd.losses.temperature import check_temperature
from jaxkd.types import Array


def concentrations(
  logits: Array, log_prior: float = -1.22, temperature: float = 1.0
) -> Array:
  """Returns log(1 + softplus(logits / T)) + exp(log_prior), [..., K].

  They are the parameters of a Dirichlet distribution: evidence for each class
  above that of the prior. A masked class, of logit -inf, has the prior alone.
  """
  z = at_least_float32(logits) / temperature
  return jnp.log1p(jax.nn.softplus(z)) + jnp.exp(log_prior)


def ekd(
  student: Array,
  teacher: Array,
  log_prior: float = -1.22,
  temperature: float = 1.0,
) -> Array:
  """Evidential distillation: T² KL of the Dirichlets of teacher and student.

  Args:
    student: logits [..., K].
    teacher: logits [..., K]; the caller decides whether gradients flow here.
    log_prior: logarithm of the prior evidence for each class.
    temperature: T > 0, in units of logits.

  Returns:
    Loss in nats, one per example: [...]; float32 or better.

  Raises:
    ValueError: a temperature that is not positive.

  References:
    Xiang et al., ICCV 2025; the concentrations and the prior are those of the
    published code, https://github.com/lyxiang-casia/EKD.

  >>> z = jnp.array([[2.0, 1.0, 0.0]])
  >>> ekd(z, z)
  Array([0.], dtype=float32)
  """
  chex.assert_equal_shape([student, teacher])
  check_temperature('ekd', temperature)
  a, b = (concentrations(z, log_prior, temperature) for z in (student, teacher))
  total_a, total_b = jnp.sum(a, axis=-1), jnp.sum(b, axis=-1)
  slopes = digamma(b) - jnp.expand_dims(digamma(total_b), -1)
  terms = gammaln(a) - gammaln(b) + (b - a) * slopes
  divergence = gammaln(total_b) - gammaln(total_a) + jnp.sum(terms, axis=-1)
  return temperature**2 * divergence
