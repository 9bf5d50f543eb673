"""Softened probabilities, sums over them, and the checks that losses share.

A logit may be -inf: its class is masked, and has probability 0. Terms of a
class of probability 0 are 0, as their limits are (0 log 0 = 0).
"""

import jax
import jax.numpy as jnp

from jaxkd.catalog import is_number
from jaxkd.losses.numerics import at_least_float32
from jaxkd.types import Array


def check_positive(loss: str, name: str, value: float) -> None:
  """Checks that an argument of a loss is a positive number.

  Arrays are not checked: under jit, their values are unknown.

  Args:
    loss: the name of the loss, for the message.
    name: the name of the argument.
    value: the value of the argument.

  Raises:
    ValueError: not a number, or not positive.
  """
  if isinstance(value, jax.Array):
    return
  if not (is_number(value) and value > 0):
    raise ValueError(f'{loss} needs a {name} above 0, got {value!r}')


def check_temperature(loss: str, temperature: float) -> None:
  """Checks that a temperature is a positive number, see `check_positive`."""
  check_positive(loss, 'temperature', temperature)


def check_classes(loss: str, logits: Array) -> None:
  """Checks that there are at least two classes.

  Args:
    loss: the name of the loss, for the message.
    logits: [..., K].

  Raises:
    ValueError: a single class.
  """
  if logits.shape[-1] < 2:
    raise ValueError(f'{loss} needs at least 2 classes, got logits of 1')


def divided(logits: Array, temperature: Array | float) -> Array:
  """Returns logits / T, with a finite gradient by T also of masked classes."""
  possible = logits > -jnp.inf
  quotient = jnp.where(possible, logits, 0) / temperature
  return jnp.where(possible, quotient, -jnp.inf)


def soft(logits: Array, temperature: float) -> Array:
  """Returns softmax(logits / T), [..., K], in at least float32."""
  return jax.nn.softmax(at_least_float32(logits) / temperature)


def log_soft(logits: Array, temperature: float) -> Array:
  """Returns log softmax(logits / T), [..., K], in at least float32."""
  return jax.nn.log_softmax(at_least_float32(logits) / temperature)


def expected(p: Array, log_q: Array) -> Array:
  """Returns sum p log q over the last axis; terms with p = 0 are 0.

  Args:
    p: probabilities [..., K].
    log_q: log-probabilities [..., K]; infinite where p > 0 and q = 0.
  """
  # Zero times infinity is NaN in the product and in its gradient by p.
  return jnp.sum(p * jnp.where(p > 0, log_q, 0), axis=-1)


def kl(log_p: Array, log_q: Array) -> Array:
  """Returns KL(p ‖ q) in nats, [...]; terms with p = 0 are 0.

  Args:
    log_p: log-probabilities [..., K]; -inf for masked classes.
    log_q: log-probabilities [..., K].
  """
  positive = log_p > -jnp.inf
  return jnp.sum(
    jnp.exp(log_p) * jnp.where(positive, log_p - log_q, 0), axis=-1
  )
