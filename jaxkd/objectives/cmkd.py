"""Correlation matching knowledge distillation (Niu et al., 2024).

https://arxiv.org/abs/2410.06561. We do not know the paper's equations and
constants: see `losses.cmkd` for our choices.
"""

from jaxkd import losses
from jaxkd.objectives.base import Objective, pointwise

EXAMPLE = {'hard': 'pearson'}


def cmkd(
  hard: str,
  alpha: float = 1.0,
  beta: float = 2.0,
  temperature: float = 4.0,
  softness: float = 0.1,
) -> Objective:
  """Pearson's and Spearman's correlation, weighted by an example's difficulty.

  Args:
    hard: the correlation that counts for hard examples, 'pearson' or
      'spearman'. We do not know the paper's choice, hence no default.
    alpha: weight of Pearson's.
    beta: weight of Spearman's.
    temperature: T > 0, in units of standardised logits.
    softness: of the ranks, > 0, in units of standardised logits.
  """
  return pointwise(
    'cmkd',
    lambda learner, guide, batch: losses.cmkd(
      learner.logits, guide.logits, hard, alpha, beta, temperature, softness
    ),
    hard=hard,
    alpha=alpha,
    beta=beta,
    temperature=temperature,
    softness=softness,
  )
