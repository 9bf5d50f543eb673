"""Cross-entropy against the labels (Bridle, 1990).

https://doi.org/10.1007/978-3-642-76153-9_28
"""

from jaxkd import losses
from jaxkd.objectives.base import Objective, pointwise


def cross_entropy() -> Objective:
  """Cross-entropy of the learner against the labels."""
  return pointwise(
    'cross_entropy',
    lambda learner, guide, batch: losses.cross_entropy(
      learner.logits, batch['label']
    ),
    takes_labels=True,
  )._replace(matches_probabilities=True)
