"""Weights of examples, around another objective (Furlanello et al., 2018).

https://arxiv.org/abs/1805.04770, where the weight is the teacher's confidence
(CWTM).
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax

from jaxkd.objectives import scores
from jaxkd.objectives.base import Loss, Objective
from jaxkd.objectives.kd import kd
from jaxkd.objectives.scores import Score
from jaxkd.types import Array, Batch, Outputs

KD = kd()


def weighted(
  score: str | Score,
  objective: Objective = KD,
  normalise: bool = False,
) -> Objective:
  """Another objective, whose loss of each example is times a score.

  `right` distils only what the teacher knows. The score gets no gradient.

  Args:
    score: a name of `scores.SCORES`, or such a function.
    objective: one that has a loss for each example. In a config, its name or a
      mapping.
    normalise: divide the scores by their mean over the batch. Around
      cross_entropy and by `confidence`, that is the CWTM of born-again networks
      (Furlanello et al., 2018, https://arxiv.org/abs/1805.04770), in which
      the teacher only says how much each label counts.

  Raises:
    KeyError: no such score, with suggestions.
  """
  of = scores.make(score)

  def weight(guide: Outputs, learner: Outputs, batch: Batch) -> Array:
    found = lax.stop_gradient(of(guide, learner, batch))
    if not normalise:
      return found
    mask = batch['mask']
    mean = jnp.sum(found * mask) / jnp.maximum(jnp.sum(mask), 1)
    return found / jnp.where(mean > 0, mean, 1)

  settings: dict[str, object] = dict(
    objective=objective, score=score, normalise=normalise
  )
  return Objective(
    'weighted', settings, objective.init, times(objective, weight)
  )


def times(
  objective: Objective, weight: Callable[[Outputs, Outputs, Batch], Array]
) -> Loss:
  """Returns an objective's loss, each example's times a weight [B].

  The loss raises:
    ValueError: it has no guide, or one loss for the whole batch.
  """

  def loss(params, memory, guide, learner, batch, key):
    if guide is None:
      raise ValueError(
        f'{objective} is to be weighted by what a guide says, and labels say'
        ' nothing of that sort: let a network be the guide'
      )
    value, memory = objective.loss(params, memory, guide, learner, batch, key)
    if value.ndim != 1:
      raise ValueError(
        f'{objective} has one loss for the whole batch, so examples cannot have'
        ' weights: take an objective that has one for each'
      )
    return value * weight(guide, learner, batch), memory

  return loss
