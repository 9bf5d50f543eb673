"""Square loss of outputs against the labels (Hui and Belkin, ICLR 2021).

https://arxiv.org/abs/2006.07322
"""

from jaxkd import losses
from jaxkd.objectives.base import Objective, pointwise


def square_logits(reduction: str = 'sum') -> Objective:
  """Square loss of the learner's raw outputs against the labels.

  The outputs of a network that was trained by it are probabilities, not logits:
  give it a read-out (`jaxkd.models.read_out`). At outputs of zero the gradient
  of the sum is twice cross-entropy's for any number of classes K, and that of
  the mean is K times smaller.

  Args:
    reduction: over the classes, 'sum' or 'mean'.

  References:
    See `losses.square_logits`.
  """
  return pointwise(
    'square_logits',
    lambda learner, guide, batch: losses.square_logits(
      learner.logits, batch['label'], reduction
    ),
    takes_labels=True,
    reduction=reduction,
  )
