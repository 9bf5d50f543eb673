"""Probabilistic knowledge transfer (Passalis and Tefas, ECCV 2018).

https://arxiv.org/abs/1803.10837
"""

from jaxkd import losses
from jaxkd.objectives.base import Objective, Published
from jaxkd.objectives.compared import at_one

PUBLISHED = Published(weight=30_000.0)


def pkt(stage: str = 'pooled', guide_stage: str = '') -> Objective:
  """Matches the distribution of each example's neighbours in the batch.

  The benchmark's weight of the transfer is 30,000.

  Args:
    stage: the tap of the learner, or 'last', its deepest stage.
    guide_stage: the tap of the guide, likewise; '' takes the same name.

  References:
    See `losses.pkt`; tap and weight are the CIFAR-100 benchmark's,
    https://arxiv.org/abs/1910.10699.
  """
  return at_one('pkt', losses.pkt, stage, guide_stage)
