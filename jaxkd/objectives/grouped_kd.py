"""Grouped knowledge distillation (Zhao et al., AAAI 2023).

https://arxiv.org/abs/2304.04462. Deviation: the published code's warm-up over
10 epochs is not part of it: it is a transfer's weight, a function of the epoch.
"""

from jaxkd import losses
from jaxkd.catalog import lookup
from jaxkd.objectives.base import Objective, Published, pointwise

# For the recognition of faces.
PUBLISHED = Published(weight=1.0)

CHOOSERS = {
  'guide': lambda learner, guide: guide,
  'learner': lambda learner, guide: learner,
}


def grouped_kd(
  binary_weight: float = 1.0,
  primary_weight: float = 8.0,
  secondary_weight: float = 0.0,
  temperature: float = 4.0,
  coverage: float = 0.93,
  size: int | None = None,
  chooser: str = 'learner',
) -> Objective:
  """T² times weighted parts of KL(guide ‖ learner): primary and other classes.

  Defaults are the published code's, for 85,742 faces; it has a secondary weight
  of 4 in its adaptive variant, and cross-entropy with a weight of 1.

  Args:
    binary_weight: of the divergence between the two groups.
    primary_weight: of the divergence among an example's primary classes.
    secondary_weight: of the divergence among the others.
    temperature: T > 0, in units of logits.
    coverage: fraction of the batch's mean softmax that the primary classes
      cover; it determines their number.
    size: the number of primary classes, instead of `coverage`.
    chooser: whose logits select the primary classes, 'learner' or 'guide'.

  Raises:
    KeyError: no such chooser, with suggestions.
  """
  choose = lookup('chooser', CHOOSERS, chooser)

  def function(learner, guide, batch):
    logits = choose(learner, guide).logits
    return losses.grouped_kd(
      learner.logits,
      guide.logits,
      losses.primary_classes(logits, batch['label'], coverage, size),
      binary_weight,
      primary_weight,
      secondary_weight,
      temperature,
    )

  return pointwise(
    'grouped_kd',
    function,
    binary_weight=binary_weight,
    primary_weight=primary_weight,
    secondary_weight=secondary_weight,
    temperature=temperature,
    coverage=coverage,
    size=size,
    chooser=chooser,
  )
