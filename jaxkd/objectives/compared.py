"""Shared by objectives that compare taps and own nothing."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp

from jaxkd.losses import sizes
from jaxkd.objectives import taps
from jaxkd.objectives.base import Objective, pointwise
from jaxkd.types import Array

# (the learner's features and the guide's) -> loss, [B] or a scalar.
Loss = Callable[[Array, Array], Array]


def at_stages(
  name: str, loss: Loss, stages: Sequence[str], guide_stages: Sequence[str]
) -> Objective:
  """Returns the objective of a loss of two maps, summed over stages.

  The larger map is averaged to the size of the smaller one.

  Args:
    name: see `Objective`.
    loss: of two maps of one size.
    stages: taps of the learner; see `taps.pairs`.
    guide_stages: taps of the guide.
  """

  def function(learner, guide, batch):
    del batch
    pairs = taps.pairs(learner, guide, stages, guide_stages)
    return sum(
      (loss(*sizes.match(*pair)) for pair in pairs), start=jnp.zeros(())
    )

  return pointwise(name, function, stages=stages, guide_stages=guide_stages)


def at_one(name: str, loss: Loss, stage: str, guide_stage: str) -> Objective:
  """Returns the objective of a loss of one tap of each network.

  Args:
    name: see `Objective`.
    loss: of two maps of any size.
    stage: the tap of the learner; see `taps.pair`.
    guide_stage: the tap of the guide.
  """

  def function(learner, guide, batch):
    del batch
    return loss(*taps.pair(learner, guide, stage, guide_stage))

  return pointwise(name, function, stage=stage, guide_stage=guide_stage)
