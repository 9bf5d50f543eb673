"""Cross-entropy against softened outputs (Hinton, Vinyals, Dean, 2015).

https://arxiv.org/abs/1503.02531. With a smoothing of 0.1 it is what the
published code of gap preserving distillation (Guo et al., ICLR 2025,
https://arxiv.org/abs/2410.04140) calls `sce`.
"""

from jaxkd import losses
from jaxkd.objectives.base import Objective, pointwise


def soft_cross_entropy(
  smoothing: float = 0.0, temperature: float = 1.0
) -> Objective:
  """Cross-entropy of the learner against the guide; no factor T².

  At smoothing 0 and T = 1 its gradient at the learner is that of `kd`.

  Args:
    smoothing: weight of the uniform distribution in the target, 0 to 1.
    temperature: T > 0 of both softmaxes, in units of logits.

  References:
    https://arxiv.org/abs/1503.02531; smoothing: https://arxiv.org/abs/1512.00567.
  """
  return pointwise(
    'soft_cross_entropy',
    lambda learner, guide, batch: losses.soft_cross_entropy(
      learner.logits, guide.logits, smoothing, temperature
    ),
    smoothing=smoothing,
    temperature=temperature,
  )
