"""Multi-level logit distillation (Jin, Wang and Lin, CVPR 2023).

https://doi.org/10.1109/CVPR52729.2023.02325. Deviation: see `losses.mlkd`; a
batch has one view here.
"""

from collections.abc import Sequence

import numpy as np

from jaxkd import losses
from jaxkd.losses.temperature import check_temperature
from jaxkd.objectives.base import Objective, Published, pointwise

PUBLISHED = Published(weight=0.9, label_weight=0.1)


def mlkd(
  temperatures: Sequence[float] = (2.0, 3.0, 4.0, 5.0, 6.0),
  instance_weight: float = 1.0,
  batch_weight: float = 1.0,
  class_weight: float = 1.0,
) -> Objective:
  """KL of the instances, Gram matrices of the batch and of the classes.

  The published code's transfer has a weight of 0.9 on CIFAR-100, beside 0.1 x
  cross-entropy. A relation of the batch: under data parallelism, of the global
  one.

  Args:
    temperatures: the loss is summed over them; each in units of logits.
    instance_weight: of T² KL(guide ‖ learner).
    batch_weight: of the similarities of examples.
    class_weight: of the correlations of classes.

  Raises:
    ValueError: temperatures that are not a list, or not positive.
  """
  if np.ndim(temperatures) != 1:
    raise ValueError(
      'mlkd: temperatures must be a list, like (2.0, 4.0), got'
      f' {temperatures!r}'
    )
  temperatures = tuple(temperatures)
  for temperature in temperatures:
    check_temperature('mlkd', temperature)
  return pointwise(
    'mlkd',
    lambda learner, guide, batch: losses.mlkd(
      learner.logits,
      guide.logits,
      temperatures,
      instance_weight,
      batch_weight,
      class_weight,
    ),
    temperatures=temperatures,
    instance_weight=instance_weight,
    batch_weight=batch_weight,
    class_weight=class_weight,
  )
