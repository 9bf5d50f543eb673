"""Losses: pure functions of arrays, learner first, guide second.

Logit losses return one value per example, [B]; nothing here reduces over the
batch, weighs or stops gradients: that is the caller's decision.
"""

from jaxkd.losses.features import hint
from jaxkd.losses.logits import (
  brier,
  cross_entropy,
  dkd,
  kd,
  soft_cross_entropy,
  square_logits,
)

__all__ = [
  'brier',
  'cross_entropy',
  'dkd',
  'hint',
  'kd',
  'soft_cross_entropy',
  'square_logits',
]
