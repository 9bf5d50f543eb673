"""Decoupled knowledge distillation (Zhao et al., CVPR 2022).

https://arxiv.org/abs/2203.08679. Deviation: the published code's warm-up over
the first epochs is not part of it: it is a transfer's weight, as a function of
the epoch.
"""

from jaxkd import losses
from jaxkd.objectives.base import Objective, Published, pointwise

PUBLISHED = Published(weight=1.0)


def dkd(
  alpha: float = 1.0, beta: float = 8.0, temperature: float = 4.0
) -> Objective:
  """T² (alpha TCKD + beta NCKD), the two parts of KL(guide ‖ learner).

  The best beta depends on the pair: 2 to 8 on CIFAR-100, 0.5 to 2 at T = 1 on
  ImageNet, more for a more confident guide.

  Args:
    alpha: weight of the divergence between target and all other classes.
    beta: weight of the divergence among the other classes.
    temperature: T > 0, in units of logits.

  References:
    https://arxiv.org/abs/2203.08679.
  """
  return pointwise(
    'dkd',
    lambda learner, guide, batch: losses.dkd(
      learner.logits, guide.logits, batch['label'], alpha, beta, temperature
    ),
    alpha=alpha,
    beta=beta,
    temperature=temperature,
  )
