"""Falling temperature, around another objective (Rezagholizadeh et al., 2021).

https://arxiv.org/abs/2110.08532, Pro-KD, where it falls to 1.
"""

import jax.numpy as jnp

from jaxkd.catalog import check_whole
from jaxkd.losses.temperature import check_positive, divided
from jaxkd.objectives.base import (
  Objective,
  check_unit_temperature,
  with_logits,
)
from jaxkd.objectives.kd import kd

KD = kd(temperature=1.0)

EXAMPLE = {'start': 4.0}


def annealed(
  start: float,
  epochs: int | None = None,
  objective: Objective = KD,
  stop: float = 1.0,
) -> Objective:
  """Another objective, at a temperature that goes from `start` to `stop`.

  It changes linearly, in steps of an epoch: `start` in the first and `stop` in
  the last of `epochs`, and from then on.

  Args:
    start: temperature at the start, in units of logits.
    epochs: over which it changes, from the start of the phase; None takes the
      whole phase.
    objective: one with a setting `temperature` of 1, whose loss at T is T²
      times that of logits / T. In a config, its name or a mapping.
    stop: temperature at the end.

  Raises:
    ValueError: an objective that has no temperature, or one other than 1;
      temperatures that are not positive; less than one epoch.
  """
  check_unit_temperature('annealed', objective)
  check_positive('annealed', 'start temperature', start)
  check_positive('annealed', 'stop temperature', stop)
  if epochs is not None:
    check_whole('annealed', 'epochs', epochs)
  duration = epochs

  def loss(params, memory, *, epoch, epochs, **others):
    last = (epochs if duration is None else duration) - 1
    done = jnp.minimum(jnp.floor(epoch), last) / max(last, 1)
    temperature = start + (stop - start) * done
    soften = with_logits(
      objective.loss, lambda logits: divided(logits, temperature)
    )
    value, memory = soften(params, memory, epoch=epoch, epochs=epochs, **others)
    return temperature**2 * value, memory

  settings: dict[str, object] = dict(
    objective=objective, start=start, stop=stop, epochs=epochs
  )
  made = Objective('annealed', settings, objective.init, loss)
  return made._replace(sigmoid=objective.sigmoid)
