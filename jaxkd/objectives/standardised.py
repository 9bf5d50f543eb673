"""Logit standardisation, around another objective (Sun et al., CVPR 2024).

https://arxiv.org/abs/2403.01427
"""

from jaxkd import losses
from jaxkd.objectives.base import Objective, Published, with_logits
from jaxkd.objectives.kd import kd

# Around `kd` at T = 2.
PUBLISHED = Published(weight=9.0, label_weight=0.1)

KD = kd(temperature=2.0)


def standardised(objective: Objective = KD) -> Objective:
  """Another objective, of logits with mean 0 and deviation 1.

  Both networks' logits are standardised, example by example; taps are not. In
  the published code T is mostly 2 and the transfer's weight 9 on CIFAR-100,
  beside 0.1 x cross-entropy.

  Args:
    objective: any of logits. In a config, its name or a mapping.
  """
  return Objective(
    'standardised',
    {'objective': objective},
    objective.init,
    with_logits(objective.loss, losses.standardise),
  )
