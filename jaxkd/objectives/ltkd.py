"""Long-tailed knowledge distillation (Kim, CVPR 2026).

https://arxiv.org/abs/2506.18496: from a biased teacher, a balanced student.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from jaxkd import losses
from jaxkd.objectives.base import Objective, pointwise

EXAMPLE = {'class_counts': lambda classes: tuple(range(classes, 0, -1))}
GROUPS = 3  # head, medium, tail


def ltkd(
  class_counts: Sequence[int],
  alpha: float = 1.0,
  beta: float = 1.0,
  temperature: float = 4.0,
) -> Objective:
  """KL between head, medium and tail, rebalanced, and KL inside of each.

  We do not know the paper's weights and temperature: see `losses.ltkd`.

  Args:
    class_counts: training examples of each class, K of them, at least 3. The
      most frequent third is the head, the rarest the tail (rounded down).
    alpha: weight of the divergence between the groups.
    beta: weight of the divergences inside of them.
    temperature: T > 0, in units of logits.

  Raises:
    ValueError: counts that are not a list; fewer than 3 classes.

  The loss raises:
    ValueError: other numbers of counts and of logits.
  """
  if np.ndim(class_counts) != 1:
    raise ValueError(
      'ltkd: class_counts must be a list, the training examples of each class,'
      f' got {class_counts!r}'
    )
  class_counts = tuple(class_counts)
  groups = groups_by_frequency(class_counts)

  def function(learner, guide, batch):
    classes = learner.logits.shape[-1]
    if classes != len(groups):
      raise ValueError(
        f'ltkd has class_counts of {len(groups)} classes, but the networks'
        f' have {classes} logits: give one count for each'
      )
    return losses.ltkd(
      learner.logits,
      guide.logits,
      jnp.asarray(groups),
      GROUPS,
      alpha,
      beta,
      temperature,
    )

  return pointwise(
    'ltkd',
    function,
    class_counts=class_counts,
    alpha=alpha,
    beta=beta,
    temperature=temperature,
  )


def groups_by_frequency(class_counts: Sequence[int]) -> np.ndarray:
  """Returns the group of each class: 0 for the head, 1, 2 for the tail.

  Of classes with equal counts, the first is treated as more frequent.

  Raises:
    ValueError: fewer classes than groups.

  >>> groups_by_frequency((5, 70, 9, 40))
  array([2, 0, 1, 1])
  """
  if len(class_counts) < GROUPS:
    raise ValueError(
      'ltkd has a head, a medium and a tail: class_counts must be of at least'
      f' {GROUPS} classes, got {tuple(class_counts)}'
    )
  third = len(class_counts) // GROUPS
  order = np.argsort(-np.asarray(class_counts), kind='stable')
  groups = np.ones(len(class_counts), int)
  groups[order[:third]], groups[order[-third:]] = 0, 2
  return groups
