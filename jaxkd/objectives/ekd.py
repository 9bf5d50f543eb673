"""Evidential knowledge distillation, EKD (Xiang et al., ICCV 2025).

https://github.com/lyxiang-casia/EKD. Deviation: the published code's warm-up
over the first 30 epochs is not part of it: it is a transfer's weight, as a
function of the epoch.
"""

from jaxkd import losses
from jaxkd.objectives.base import Objective, pointwise


def ekd(log_prior: float = -1.22, temperature: float = 1.0) -> Objective:
  """T² KL of the Dirichlet distributions that two networks' logits define.

  The published weights on CIFAR-100 are 4.5, beside 4.5 x KD at T = 1 and 1 x
  cross-entropy.

  Args:
    log_prior: logarithm of the prior evidence for each class.
    temperature: T > 0, in units of logits.
  """
  return pointwise(
    'ekd',
    lambda learner, guide, batch: losses.ekd(
      learner.logits, guide.logits, log_prior, temperature
    ),
    log_prior=log_prior,
    temperature=temperature,
  )
