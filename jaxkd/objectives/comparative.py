"""Comparative knowledge distillation (Wilf et al., WACV 2025).

https://arxiv.org/abs/2311.02253
"""

import jax

from jaxkd import losses
from jaxkd.objectives.base import Objective, Published, pointwise

# Labels are a second guide, in place of cross-entropy.
PUBLISHED = Published(weight=1.0, label_weight=0.0)


def comparative(positives: int = 1, negatives: int = 1) -> Objective:
  """Squared error of the differences between examples, over all comparisons.

  Of the guide's logits; or, where the guide is `labels`, of one-hot vectors.
  The paper takes both, each with a weight of 1, and no cross-entropy. It is a
  relation of the batch: under data parallelism, of the global one.

  Args:
    positives: examples on one side; 1 and 1 are pairs, 2 and 1 triples.
    negatives: examples on the other side.
  """

  def function(learner, guide, batch):
    if guide is None:
      target = jax.nn.one_hot(batch['label'], learner.logits.shape[-1])
    else:
      target = guide.logits
    return losses.comparative(learner.logits, target, positives, negatives)

  return pointwise(
    'comparative',
    function,
    takes_labels=True,
    positives=positives,
    negatives=negatives,
  )
