"""Similarity-preserving distillation (Tung and Mori, ICCV 2019).

https://arxiv.org/abs/1907.09682
"""

from jaxkd import losses
from jaxkd.objectives.base import Objective, Published
from jaxkd.objectives.compared import at_one

PUBLISHED = Published(weight=3000.0)


def sp(stage: str = 'last', guide_stage: str = '') -> Objective:
  """Matches which examples of the batch have similar features.

  The benchmark's weight of the transfer is 3000.

  Args:
    stage: the tap of the learner, or 'last', its deepest stage.
    guide_stage: the tap of the guide, likewise; '' takes the same name.

  References:
    See `losses.sp`; stage and weight are the CIFAR-100 benchmark's,
    https://arxiv.org/abs/1910.10699.
  """
  return at_one('sp', losses.sp, stage, guide_stage)
