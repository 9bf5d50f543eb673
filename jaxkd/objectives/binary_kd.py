"""Distillation of sigmoids (Yang et al., ICCV 2023).

https://arxiv.org/abs/2308.06453, the part on logits: each class is a binary
classification of its own. Deviation: a temperature, which is 1 in the paper.
"""

from jaxkd import losses
from jaxkd.objectives.base import Objective, pointwise


def binary_kd(temperature: float = 1.0, reduction: str = 'sum') -> Objective:
  """T² KL(guide ‖ learner) of one sigmoid for each class.

  For data with several labels for each image, and guides that were trained by
  binary cross-entropy.

  Args:
    temperature: T > 0, in units of logits.
    reduction: over the classes, 'sum' or 'mean'.

  References:
    https://arxiv.org/abs/2308.06453.
  """
  return pointwise(
    'binary_kd',
    lambda learner, guide, batch: losses.binary_kd(
      learner.logits, guide.logits, temperature, reduction
    ),
    temperature=temperature,
    reduction=reduction,
  )._replace(sigmoid=True)
