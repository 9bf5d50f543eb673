"""Curriculum temperature, around another objective (Li et al., AAAI 2023).

https://arxiv.org/abs/2211.16231. The temperature of the batch is
T = lowest + span sigmoid(x), where x is learned with the networks, by the same
optimizer (weight decay included), but with its gradient times -r: it climbs
the loss that they descend. Over the first epochs r grows from 0 to 1 along a
cosine, in steps of an epoch: it is (1 - cos(pi e / epochs)) / 2 in epoch e,
counted from 1. This is the paper's global temperature; it also has one for each
example.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxkd.catalog import check_whole
from jaxkd.losses.temperature import check_positive, divided
from jaxkd.objectives.base import (
  Objective,
  Published,
  check_unit_temperature,
  with_logits,
)
from jaxkd.objectives.kd import kd
from jaxkd.types import Array

PUBLISHED = Published(weight=0.9, label_weight=0.1)
KD = kd(temperature=1.0)


def ctkd(
  objective: Objective = KD,
  lowest: float = 1.0,
  span: float = 20.0,
  start: float = 1.0,
  epochs: int = 10,
) -> Objective:
  """Another objective, at a temperature that learns to make it harder.

  Defaults are the published code's, as is the transfer's weight of 0.9 beside
  0.1 x cross-entropy on CIFAR-100.

  Args:
    objective: one with a setting `temperature` of 1, whose loss at T is T²
      times that of logits / T: `kd`, `dkd`, `dist`. In a config, its name or a
      mapping. To standardise logits as well, put this one inside of
      `standardised`.
    lowest: lower bound of the temperature, in units of logits.
    span: the temperature stays below lowest + span.
    start: initial value of x; 1 begins at T = 15.6.
    epochs: until the reversed gradient counts in full.

  Raises:
    ValueError: an objective that has no temperature, or one other than 1;
      temperatures that are not positive; less than one epoch.
  """
  check_unit_temperature('ctkd', objective)
  check_positive('ctkd', 'lowest temperature', lowest)
  check_positive('ctkd', 'span', span)
  check_whole('ctkd', 'epochs', epochs)
  warmup = epochs

  def init(key, **ends):
    params, memory = objective.init(key, **ends)
    return {**params, 'curriculum': jnp.float32(start)}, memory

  def loss(params, memory, *, epoch, **others):
    count = jnp.minimum(jnp.floor(epoch) + 1, warmup)
    rate = (1 - jnp.cos(jnp.pi * count / warmup)) / 2
    x = reverse(params['curriculum'], rate)
    temperature = lowest + span * jax.nn.sigmoid(x)
    soften = with_logits(
      objective.loss, lambda logits: divided(logits, temperature)
    )
    value, memory = soften(params, memory, epoch=epoch, **others)
    return temperature**2 * value, memory

  settings: dict[str, object] = dict(
    objective=objective, lowest=lowest, span=span, start=start, epochs=epochs
  )
  made = Objective('ctkd', settings, init, loss)
  return made._replace(sigmoid=objective.sigmoid)


def reverse(x: Array, rate: Array) -> Array:
  """Returns x, whose gradient is multiplied by -rate."""
  still = lax.stop_gradient(x)
  return still - rate * (x - still)
