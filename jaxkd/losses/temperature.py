"""Softened probabilities, and the checks that losses of logits share."""

import jax

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


def soft(logits: Array, temperature: float) -> Array:
  """Returns softmax(logits / T), [..., K], in at least float32."""
  return jax.nn.softmax(at_least_float32(logits) / temperature)


def log_soft(logits: Array, temperature: float) -> Array:
  """Returns log softmax(logits / T), [..., K], in at least float32."""
  return jax.nn.log_softmax(at_least_float32(logits) / temperature)
