"""Binary cross-entropy against the labels (Cox, J. R. Stat. Soc. B 1958).

https://doi.org/10.1111/j.2517-6161.1958.tb00292.x
"""

from collections.abc import Sequence

from jaxkd import losses
from jaxkd.catalog import is_number
from jaxkd.objectives.base import Objective, pointwise


def binary_cross_entropy(
  positive_weight: float | Sequence[float] = 1.0, reduction: str = 'sum'
) -> Objective:
  """Cross-entropy of one sigmoid for each class against the labels.

  For data with several labels for each image; with one label, each class is
  told from all others.

  Args:
    positive_weight: factor on the terms of labels that are present, above 0: a
      number, or one for each class. The number of images without a label
      divided by that of images with it balances both.
    reduction: over the classes, 'sum' or 'mean'.

  Raises:
    ValueError: a weight that is not a positive number.

  References:
    https://doi.org/10.1111/j.2517-6161.1958.tb00292.x.
  """
  weights = (
    (positive_weight,)
    if isinstance(positive_weight, int | float)
    else tuple(positive_weight)
  )
  if not weights or not all(is_number(x) and x > 0 for x in weights):
    raise ValueError(
      'binary_cross_entropy needs a positive_weight above 0, or one for each'
      f' class, got {positive_weight!r}'
    )
  return pointwise(
    'binary_cross_entropy',
    lambda learner, guide, batch: losses.binary_cross_entropy(
      learner.logits, batch['label'], positive_weight, reduction
    ),
    takes_labels=True,
    positive_weight=positive_weight,
    reduction=reduction,
  )._replace(sigmoid=True)
