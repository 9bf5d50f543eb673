"""Plackett-Luce distillation, PLD (Bassam et al., NeurIPS 2025).

https://arxiv.org/abs/2506.12542
"""

from jaxkd import losses
from jaxkd.objectives.base import Objective, Published, pointwise

PUBLISHED = Published(weight=1.0, label_weight=0.0)


def pld(temperature: float = 1.0) -> Objective:
  """Likelihood of the guide's order of classes, with the label's first.

  It contains the cross-entropy of the label, so the published weight of labels
  is 0. T is 4 on CIFAR-100.

  Args:
    temperature: T > 0 of the guide's probabilities, in units of logits.
  """
  return pointwise(
    'pld',
    lambda learner, guide, batch: losses.pld(
      learner.logits, guide.logits, batch['label'], temperature
    ),
    temperature=temperature,
  )
