"""Refined logit distillation, RLD (Sun et al., ICCV 2025).

https://arxiv.org/abs/2408.07703. Deviation: the published code's warm-up over
the first 20 epochs is not part of it: it is a transfer's weight, as a function
of the epoch.
"""

from jaxkd import losses
from jaxkd.objectives.base import Objective, Published, pointwise

PUBLISHED = Published(weight=1.0)


def rld(
  alpha: float = 1.0,
  beta: float = 8.0,
  temperature: float = 4.0,
  confidence_temperature: float = 1.0,
) -> Objective:
  """The guide's confidence for the label, and its classes below the label.

  Defaults are the published code's on CIFAR-100. On ImageNet it has T = 1 and
  beta = 0.5 (ResNet-34 to ResNet-18) or 2 (ResNet-50 to MobileNet).

  Args:
    alpha: weight of the divergence between the guide's largest probability and
      the learner's of the label.
    beta: weight of the divergence among the classes below the label.
    temperature: T > 0 of these, in units of logits.
    confidence_temperature: of the first part, likewise.

  References:
    https://arxiv.org/abs/2408.07703; https://github.com/zju-SWJ/RLD.
  """
  return pointwise(
    'rld',
    lambda learner, guide, batch: losses.rld(
      learner.logits,
      guide.logits,
      batch['label'],
      alpha,
      beta,
      temperature,
      confidence_temperature,
    ),
    alpha=alpha,
    beta=beta,
    temperature=temperature,
    confidence_temperature=confidence_temperature,
  )
