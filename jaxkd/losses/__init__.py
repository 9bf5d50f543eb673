"""Losses: pure functions of arrays, learner first, guide second.

Losses of logits and of features return one value per example, [B]; losses over
the relations of a batch return a scalar. No other loss reduces over the batch,
and none applies a weight or stops gradients: that is left to the caller.
"""

from jaxkd.losses.binary import binary_cross_entropy, binary_kd
from jaxkd.losses.contrastive import crd_nce
from jaxkd.losses.correlations import comparative, dist, mlkd, pearson
from jaxkd.losses.dirichlet import ekd
from jaxkd.losses.divergences import alpha_beta
from jaxkd.losses.features import (
  activation_boundary,
  attention,
  factor,
  hcl,
  hint,
  nst,
  ofd,
  ofd_margin,
  smooth_l1,
  vid,
  vid_log_scale,
)
from jaxkd.losses.groups import (
  grouped_kd,
  grouped_kl,
  ltkd,
  primary_classes,
)
from jaxkd.losses.logits import (
  brier,
  cross_entropy,
  kd,
  soft_cross_entropy,
  square_logits,
  standardise,
)
from jaxkd.losses.orders import pld, reordered
from jaxkd.losses.ranks import cmkd, soft_ranks
from jaxkd.losses.relations import (
  correlation_congruence,
  pkt,
  rkd_angle,
  rkd_distance,
  sp,
)
from jaxkd.losses.sizes import adaptive_average_pool
from jaxkd.losses.stages import fsp, svd_channels, svd_rows
from jaxkd.losses.targets import dkd, nkd, rld

__all__ = [
  'activation_boundary',
  'adaptive_average_pool',
  'alpha_beta',
  'attention',
  'binary_cross_entropy',
  'binary_kd',
  'brier',
  'cmkd',
  'comparative',
  'correlation_congruence',
  'crd_nce',
  'cross_entropy',
  'dist',
  'dkd',
  'ekd',
  'factor',
  'fsp',
  'grouped_kd',
  'grouped_kl',
  'hcl',
  'hint',
  'kd',
  'ltkd',
  'mlkd',
  'nkd',
  'nst',
  'ofd',
  'ofd_margin',
  'pearson',
  'pkt',
  'pld',
  'primary_classes',
  'reordered',
  'rkd_angle',
  'rkd_distance',
  'rld',
  'soft_cross_entropy',
  'soft_ranks',
  'sp',
  'square_logits',
  'smooth_l1',
  'standardise',
  'svd_channels',
  'svd_rows',
  'vid',
  'vid_log_scale',
]
