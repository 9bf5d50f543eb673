"""Curriculum temperature, around another objective (Li et al., AAAI 2023).

https://arxiv.org/abs/2211.16231. The temperature of the batch is
T = lowest + span sigmoid(x), where x is learned with the networks, by the same
optimizer (weight decay included), but with its gradient times -r: it climbs
the loss that they descend. Over the first epochs r grows from 0 to 1 along a
cosine, in steps of an epoch: it is (1 - cos(pi e / epochs)) / 2 in epoch e,
counted from 1. This is the paper's global temperature; it also has one for each
example.

The epoch, of the transfer's stage, is counted in examples seen: an epoch shows
each of them once. So the objective needs nothing that only the step knows, and
the count is saved and restored with the rest of the memory.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxkd.objectives.base import Objective, wrapped
from jaxkd.objectives.kd import kd
from jaxkd.types import Array

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
    lowest: of the temperature, in units of logits.
    span: the temperature stays below lowest + span.
    start: x at the start; 1 begins at T = 15.6.
    epochs: until the reversed gradient counts in full.

  Raises:
    ValueError: an objective that has no temperature, or one of its own;
      temperatures that are not positive; less than one epoch.
  """
  _check(objective, lowest, span, epochs)

  def init(key, guide, learner, examples):
    params, memory = objective.init(key, guide, learner, examples)
    counts = {'seen': jnp.int32(0), 'examples': jnp.int32(examples)}
    return {**params, 'curriculum': jnp.float32(start)}, {**memory, **counts}

  def loss(params, memory, guide, learner, batch, key):
    seen, examples = memory['seen'], memory['examples']
    epoch = jnp.minimum(seen // examples + 1, epochs)
    rate = (1 - jnp.cos(jnp.pi * epoch / epochs)) / 2
    x = reverse(params['curriculum'], rate)
    temperature = lowest + span * jax.nn.sigmoid(x)
    soften = wrapped(objective.loss, lambda logits: logits / temperature)
    value, memory = soften(params, memory, guide, learner, batch, key)
    # Nothing depends on what is seen after these epochs: the count ends there.
    seen += jnp.sum(batch['mask']).astype(jnp.int32)
    memory = {**memory, 'seen': jnp.minimum(seen, epochs * examples)}
    return temperature**2 * value, memory

  settings: dict[str, object] = dict(
    objective=objective, lowest=lowest, span=span, start=start, epochs=epochs
  )
  return Objective('ctkd', settings, init, loss)


def _check(
  objective: Objective, lowest: float, span: float, epochs: int
) -> None:
  """Refuses what cannot be, or would not do what it says."""
  if objective.settings.get('temperature') != 1:
    raise ValueError(
      f'ctkd gives its objective the temperature, and got {objective}: take one'
      ' that has a temperature, and set it to 1.0'
    )
  if lowest <= 0 or span <= 0:
    raise ValueError(
      f'ctkd needs temperatures above 0, got lowest={lowest} and span={span}'
    )
  if epochs < 1:
    raise ValueError(f'ctkd takes 1 epoch or more to ramp up, got {epochs}')


def reverse(x: Array, rate: Array) -> Array:
  """Returns x, whose gradient is -rate times what comes in."""
  still = lax.stop_gradient(x)
  return still - rate * (x - still)
