"""Sorted logits, SortKD, around another objective (Limantoro, IEEE SPL 2025).

https://arxiv.org/abs/2508.16544: where the teacher is wrong, its values are
shifted so that the label's class has the largest one.
"""

from jaxkd import losses
from jaxkd.objectives.base import Objective, Published
from jaxkd.objectives.kd import kd
from jaxkd.types import Outputs

# Around `kd` at T = 4.
PUBLISHED = Published(weight=0.9, label_weight=0.1)

KD = kd()


def reordered(objective: Objective = KD) -> Objective:
  """Another objective, of a guide whose largest logit is the label's.

  The guide's logits are the same values, given to the label's class first and
  then to the others in the guide's order. Its taps do not change.

  Args:
    objective: any of logits. In a config, its name or a mapping.

  The loss raises:
    ValueError: the guide is `labels`.
  """

  def loss(params, memory, *, guide: Outputs | None, batch, **others):
    if guide is None:
      raise ValueError(
        f'reordered sorts the logits of the guide of {objective}, and labels'
        ' have none: let a network be the guide'
      )
    logits = losses.reordered(guide.logits, batch['label'])
    guide = guide.replace(logits=logits)
    return objective.loss(params, memory, guide=guide, batch=batch, **others)

  return Objective('reordered', {'objective': objective}, objective.init, loss)
