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

EXAMPLE = {'score': 'target'}
KD = kd()


def weighted(
  score: str | Score,
  objective: Objective = KD,
  normalise: bool = False,
) -> Objective:
  """Another objective, with the loss of each example multiplied by a score.

  `right` distils only where the teacher is right. No gradient flows through the
  score.

  Args:
    score: a name of `scores.SCORES`, or such a function.
    objective: one that has a loss for each example. In a config, its name or a
      mapping.
    normalise: divide the scores by their mean over the batch. Around
      cross_entropy and by `confidence`, that is the CWTM of born-again networks
      (Furlanello et al., 2018, https://arxiv.org/abs/1805.04770), in which
      the teacher only sets how much each label counts.

  Raises:
    KeyError: no such score, with suggestions.
  """
  score_of = scores.make(score)

  def weight(learner: Outputs, guide: Outputs, batch: Batch) -> Array:
    value = lax.stop_gradient(score_of(learner, guide, batch))
    if not normalise:
      return value
    mask = batch['mask']
    total = jnp.sum(mask)
    mean = jnp.sum(value * mask) / jnp.where(total > 0, total, 1)
    return value / jnp.where(mean > 0, mean, 1)

  settings: dict[str, object] = dict(
    objective=objective, score=score, normalise=normalise
  )
  return Objective(
    'weighted', settings, objective.init, times(objective, weight)
  )


def times(
  objective: Objective, weight: Callable[[Outputs, Outputs, Batch], Array]
) -> Loss:
  """Returns an objective's loss, multiplied by a weight for each example.

  Args:
    objective: with a loss [B].
    weight: (learner, guide, batch) -> [B].

  The loss raises:
    ValueError: the guide is `labels`, or the objective has one loss for the
      whole batch.
  """

  def loss(params, memory, *, learner, guide, batch, **others):
    if guide is None:
      raise ValueError(
        f"the examples of {objective} are weighted by their guide's outputs,"
        ' and labels have none: let a network be the guide'
      )
    value, memory = objective.loss(
      params, memory, learner=learner, guide=guide, batch=batch, **others
    )
    if value.ndim != 1:
      raise ValueError(
        f'{objective} has one loss for the whole batch, so examples cannot have'
        ' weights: take an objective that has one for each'
      )
    return value * weight(learner, guide, batch), memory

  return loss
