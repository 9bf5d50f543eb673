"""Hinton distillation (Hinton, Vinyals, Dean, 2015).

https://arxiv.org/abs/1503.02531
"""

from jaxkd import losses
from jaxkd.objectives.base import Objective, Published, pointwise

PUBLISHED = Published(weight=0.9, label_weight=0.1)


def kd(temperature: float = 4.0) -> Objective:
  """T² KL(guide ‖ learner) between the softened outputs.

  Args:
    temperature: T > 0, in units of logits.
  """
  return pointwise(
    'kd',
    lambda learner, guide, batch: losses.kd(
      learner.logits, guide.logits, temperature
    ),
    temperature=temperature,
  )._replace(matches_probabilities=temperature == 1)
