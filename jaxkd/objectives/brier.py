"""Brier score against the labels (Hamidi et al., ECCV 2024).

https://arxiv.org/abs/2407.18041, which trains teachers by squared errors.
"""

from jaxkd import losses
from jaxkd.objectives.base import Objective, pointwise


def brier(reduction: str = 'sum') -> Objective:
  """Brier score of the learner against the labels: the MSE-trained teacher.

  At a uniform output and 100 classes, the gradient of the sum is 50 times
  smaller than that of cross-entropy, and that of the mean another 100 times:
  compensate by the transfer's weight or by the learning rate.

  Args:
    reduction: over the classes, 'sum' or 'mean'.

  References:
    Hamidi et al., ECCV 2024, https://arxiv.org/abs/2407.18041.
  """
  return pointwise(
    'brier',
    lambda learner, guide, batch: losses.brier(
      learner.logits, batch['label'], reduction
    ),
    takes_labels=True,
    reduction=reduction,
  )
