"""Distillation from a stronger teacher, DIST (Huang et al., NeurIPS 2022).

https://arxiv.org/abs/2205.10536
"""

from jaxkd import losses
from jaxkd.objectives.base import Objective, Published, pointwise

PUBLISHED = Published(weight=2.0)


def dist(
  beta: float = 1.0, gamma: float = 1.0, temperature: float = 1.0
) -> Objective:
  """T² (beta (1 - correlation of rows) + gamma (1 - that of columns)).

  Defaults are the published code's on ImageNet; on CIFAR-100 it has T = 4. The
  transfer's weight is 2 in both, beside 1 x cross-entropy. A relation of the
  batch: under data parallelism, of the global one.

  Args:
    beta: weight of the relations between classes.
    gamma: weight of the relations within classes.
    temperature: T > 0, in units of logits.
  """
  return pointwise(
    'dist',
    lambda learner, guide, batch: losses.dist(
      learner.logits, guide.logits, beta, gamma, temperature
    ),
    beta=beta,
    gamma=gamma,
    temperature=temperature,
  )
