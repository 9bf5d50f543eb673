"""Hard distillation (Touvron et al., ICML 2021).

https://arxiv.org/abs/2012.12877, equation 3.
"""

import jax.numpy as jnp

from jaxkd import losses
from jaxkd.objectives.base import Objective, pointwise


def hard_kd(labels: float = 0.5) -> Objective:
  """Cross-entropy against the labels and against the guide's decisions.

  A learner with two heads learns the labels with the first one, its tap
  'head_class', and the guide's most probable classes with the second one,
  'head_dist': a DeiT with a distillation token. Others learn both with their
  logits. The labels are in it, so that it is used with a label weight of 0.

  Args:
    labels: weight of the labels, 0 to 1; the rest is that of the guide.

  Raises:
    ValueError: another weight.
  """
  if not 0 <= labels <= 1:
    raise ValueError(f'labels must be from 0 to 1, got {labels}')

  def loss(learner, guide, batch):
    by_labels = learner.taps.get('head_class', learner.logits)
    by_guide = learner.taps.get('head_dist', learner.logits)
    decisions = jnp.argmax(guide.logits, axis=-1)
    return labels * losses.cross_entropy(by_labels, batch['label']) + (
      1 - labels
    ) * losses.cross_entropy(by_guide, decisions)

  return pointwise('hard_kd', loss, labels=labels)
