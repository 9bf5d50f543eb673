"""Falling temperature, around another objective (Rezagholizadeh et al., 2021).

https://arxiv.org/abs/2110.08532, Pro-KD, where it falls to 1.

The epoch is counted in examples seen, as in `ctkd`: so the objective needs
nothing that only the step knows, and the count is saved and restored with the
rest of the memory.
"""

import jax.numpy as jnp

from jaxkd.objectives.base import Objective, wrapped
from jaxkd.objectives.kd import kd

KD = kd(temperature=1.0)


def annealed(
  start: float,
  epochs: int,
  objective: Objective = KD,
  stop: float = 1.0,
) -> Objective:
  """Another objective, at a temperature that goes from `start` to `stop`.

  It is a line, in steps of an epoch: `start` in the first and `stop` in the
  last of `epochs`, and from then on.

  Args:
    start: temperature at the start, in units of logits.
    epochs: of the stage that it takes.
    objective: one with a setting `temperature` of 1, whose loss at T is T²
      times that of logits / T. In a config, its name or a mapping.
    stop: temperature at the end.

  Raises:
    ValueError: an objective that has no temperature, or one of its own;
      temperatures that are not positive; less than one epoch.
  """
  if objective.settings.get('temperature') != 1:
    raise ValueError(
      f'annealed gives its objective the temperature, and got {objective}: take'
      ' one that has a temperature, and set it to 1.0'
    )
  if start <= 0 or stop <= 0 or epochs < 1:
    raise ValueError(
      f'annealed has start={start}, stop={stop} and epochs={epochs}: expected'
      ' temperatures above 0 and 1 epoch or more'
    )

  def init(key, guide, learner, examples):
    params, memory = objective.init(key, guide, learner, examples)
    counts = {'seen': jnp.int32(0), 'examples': jnp.int32(examples)}
    return params, {'annealed': counts, 'objective': memory}

  def loss(params, memory, guide, learner, batch, key):
    counts = memory['annealed']
    seen, examples = counts['seen'], counts['examples']
    done = jnp.minimum(seen // examples, epochs - 1) / max(epochs - 1, 1)
    temperature = start + (stop - start) * done
    soften = wrapped(objective.loss, lambda logits: logits / temperature)
    inner = memory['objective']
    value, inner = soften(params, inner, guide, learner, batch, key)
    # Nothing depends on what is seen after these epochs: the count ends there.
    seen += jnp.sum(batch['mask']).astype(jnp.int32)
    counts = {**counts, 'seen': jnp.minimum(seen, epochs * examples)}
    memory = {'annealed': counts, 'objective': inner}
    return temperature**2 * value, memory

  settings: dict[str, object] = dict(
    objective=objective, start=start, stop=stop, epochs=epochs
  )
  return Objective('annealed', settings, init, loss)
