"""Normalised knowledge distillation (Yang et al., ICCV 2023).

https://arxiv.org/abs/2303.13005
"""

from jaxkd import losses
from jaxkd.objectives.base import Objective, Published, pointwise

PUBLISHED = Published(weight=1.0)


def nkd(gamma: float = 1.5, temperature: float = 1.0) -> Objective:
  """Soft cross-entropy of the target, and of the others among themselves.

  Defaults are the published code's on ImageNet; on CIFAR-100 its configuration
  has gamma 3.5 and T = 3. The transfer's weight is 1 there, and so is that of
  cross-entropy against labels.

  Args:
    gamma: weight of the other classes.
    temperature: T > 0 among the other classes, in units of logits.
  """
  return pointwise(
    'nkd',
    lambda learner, guide, batch: losses.nkd(
      learner.logits, guide.logits, batch['label'], gamma, temperature
    ),
    gamma=gamma,
    temperature=temperature,
  )
