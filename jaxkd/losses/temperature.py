"""Logits, softened: what the losses of logits share."""

import jax

from jaxkd.catalog import is_number
from jaxkd.losses.numerics import at_least_float32
from jaxkd.types import Array


def check_temperature(
  loss: str, temperature: float, name: str = 'temperature'
) -> None:
  """Refuses a temperature that is not a positive number.

  An array is accepted: under jit, its value is not known yet.

  Args:
    loss: name of the loss or objective, for the message.
    temperature: T.
    name: of the argument, for the message.

  Raises:
    ValueError: it is not a finite number above 0.
  """
  if isinstance(temperature, jax.Array):
    return
  if not (is_number(temperature) and temperature > 0):
    raise ValueError(f'{loss} needs a {name} above 0, got {temperature!r}')


def check_classes(loss: str, logits: Array) -> None:
  """Refuses logits of a single class.

  Args:
    loss: that compares classes, for the message.
    logits: [..., K].
  """
  if logits.shape[-1] < 2:
    raise ValueError(f'{loss} needs at least 2 classes, got logits of 1')


def soft(logits: Array, temperature: float) -> Array:
  """Returns softmax(logits / T), [..., K], in float32 at least."""
  return jax.nn.softmax(at_least_float32(logits) / temperature)


def log_soft(logits: Array, temperature: float) -> Array:
  """Returns log softmax(logits / T), [..., K], in float32 at least."""
  return jax.nn.log_softmax(at_least_float32(logits) / temperature)
