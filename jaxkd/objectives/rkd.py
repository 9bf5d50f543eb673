"""Relational knowledge distillation (Park et al., CVPR 2019).

https://arxiv.org/abs/1904.05068
"""

from jaxkd import losses
from jaxkd.objectives import taps
from jaxkd.objectives.base import Objective, Published, pointwise

PUBLISHED = Published(weight=1.0)


def rkd(
  distance: float = 25.0,
  angle: float = 50.0,
  stage: str = 'pooled',
  guide_stage: str = '',
) -> Objective:
  """Matches distances of pairs of examples in the batch, and angles of triples.

  The benchmark's weight of the transfer is 1.

  Args:
    distance: weight of `losses.rkd_distance`.
    angle: weight of `losses.rkd_angle`.
    stage: the tap of the learner, or 'last', its deepest stage.
    guide_stage: the tap of the guide, likewise; '' takes the same name.

  References:
    https://arxiv.org/abs/1904.05068; tap and weights are the CIFAR-100
    benchmark's, https://arxiv.org/abs/1910.10699.
  """

  def function(learner, guide, batch):
    del batch
    pair = taps.pair(learner, guide, stage, guide_stage)
    return distance * losses.rkd_distance(*pair) + angle * losses.rkd_angle(
      *pair
    )

  return pointwise(
    'rkd',
    function,
    distance=distance,
    angle=angle,
    stage=stage,
    guide_stage=guide_stage,
  )
