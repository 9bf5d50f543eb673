"""Objectives whose guide is the labels."""

from jaxkd import losses
from jaxkd.objectives.base import Objective, pointwise


def cross_entropy() -> Objective:
  """Cross-entropy of the learner against the labels."""
  return pointwise(
    'cross_entropy',
    lambda guide, learner, batch: losses.cross_entropy(
      learner.logits, batch['label']
    ),
  )


def brier(reduction: str = 'sum') -> Objective:
  """Brier score of the learner against the labels: the MSE-trained teacher.

  At a uniform output the gradient of the sum is 50 times smaller than
  cross-entropy's for 100 classes, and the mean's another 100 times: give the
  transfer a weight, or the optimizer a rate, that makes up for it.

  Args:
    reduction: over the classes, 'sum' or 'mean'.

  References:
    Hamidi et al., ECCV 2024, https://arxiv.org/abs/2407.18041.
  """
  return pointwise(
    'brier',
    lambda guide, learner, batch: losses.brier(
      learner.logits, batch['label'], reduction
    ),
    reduction=reduction,
  )


def square_logits(reduction: str = 'sum') -> Objective:
  """Square loss of the learner's raw outputs against the labels.

  What has learned by it means its outputs as probabilities, not as logits:
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
    lambda guide, learner, batch: losses.square_logits(
      learner.logits, batch['label'], reduction
    ),
    reduction=reduction,
  )
