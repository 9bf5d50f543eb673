"""Alpha-beta divergence distillation, ABKD (Wang et al., ICML 2025).

https://arxiv.org/abs/2505.04560
"""

from jaxkd import losses
from jaxkd.objectives.base import Objective, Published, pointwise

# Of resnet56 -> resnet20, at alpha 0.8 and beta 0.3.
PUBLISHED = Published(weight=32.0)


def alpha_beta(
  alpha: float = 0.5, beta: float = 0.5, temperature: float = 4.0
) -> Objective:
  """Alpha-beta divergence of the softened outputs, without a factor T².

  KL(guide ‖ learner) is (1, 0). Defaults are the published code's on CIFAR-100;
  for resnet56 -> resnet20 it has alpha 0.8, beta 0.3 and a weight of 32 beside
  1 x cross-entropy. (T² would be 16: a weight takes its place.)

  Args:
    alpha: exponent of the guide's probabilities.
    beta: exponent of the learner's.
    temperature: T > 0, in units of logits.
  """
  return pointwise(
    'alpha_beta',
    lambda learner, guide, batch: losses.alpha_beta(
      learner.logits, guide.logits, alpha, beta, temperature
    ),
    alpha=alpha,
    beta=beta,
    temperature=temperature,
  )
