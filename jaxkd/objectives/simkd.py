"""Reused classifiers, SimKD (Chen et al., CVPR 2022).

https://arxiv.org/abs/2203.14001. The learner's features are projected to those
that the guide's classifier reads, and that classifier is its own. The method
`simkd` makes such a network; this is what it learns by.
"""

from typing import Any

import flax.linen as nn
import jax

from jaxkd import losses
from jaxkd.catalog import check_whole
from jaxkd.losses import sizes
from jaxkd.models.reusing import PROJECTED, Projector
from jaxkd.objectives import regressors, taps
from jaxkd.objectives.base import Objective
from jaxkd.types import Array, Outputs


def read(learner: Outputs, guide: Outputs) -> tuple[str, str]:
  """Returns which tap is projected, and which one it is compared with.

  That is the learner's deepest stage, and the guide's last pre-activations,
  whose rectified mean its classifier reads. Where what is pooled is not as wide
  as they are, or there are none, as in MobileNetV2 and in transformers, it is
  the pooled vector.
  """
  (stage, last), (_, pooled) = taps.named(
    learner, guide, ('last', 'last'), ('last_pre', 'pooled')
  )
  as_wide = guide.taps[last].shape[-1] == guide.taps[pooled].shape[-1]
  return stage, last if as_wide and last.endswith(taps.PRE) else pooled


def maps(learner: Outputs, guide: Outputs) -> taps.Maps:
  """Returns what is to be projected, and the map it is compared with."""
  stage, last = read(learner, guide)
  ((source, target),) = taps.maps(learner, guide, [(stage, last)])
  return source, nn.relu(target) if last.endswith(taps.PRE) else target


def reused(learner: Outputs, guide: Outputs) -> dict[str, Any]:
  """Returns what `models.reusing` has to know of two networks, from shapes."""
  _, target = jax.eval_shape(maps, learner, guide)
  stage, _ = read(learner, guide)
  return {
    'stage': stage,
    'features': target.shape[-1],
    'size': target.shape[1:3],
  }


def simkd(factor: int = 2) -> Objective:
  """Mean squared error of projected features, before the classifier.

  The published weight of the transfer is 1, that of labels 0. A learner that
  has no projector is given one that is gone afterwards, together with the
  guide's classifier, so that the objective is one of features among others.

  Args:
    factor: of such a projector, see `models.reusing.Projector`.

  Raises:
    ValueError: a factor below 1.

  References:
    https://arxiv.org/abs/2203.14001, eq. 3; the projector and the weights are
    the published code's (https://github.com/DefangChen/SimKD).
  """
  check_whole('simkd', 'factor', factor)

  def ends(learner: Outputs, guide: Outputs | None) -> taps.Maps:
    guide = taps.network(guide)
    source, target = maps(learner, guide)
    if PROJECTED in learner.taps:
      ((source, _),) = taps.maps(learner, guide, [(PROJECTED, 'pooled')])
    return sizes.match(source, target)

  def projector(target: Array) -> Projector:
    return Projector(target.shape[-1], factor)

  def init(key, guide, learner, examples):
    del examples
    source, target = ends(learner, guide)
    if PROJECTED in learner.taps:
      return {}, {}
    return regressors.init(projector(target), key, source), {}

  def loss(params, memory, guide, learner, batch, key):
    del batch, key
    student, target = ends(learner, guide)
    if params:
      student = regressors.apply(projector(target), params, student)
    return losses.hint(student, target), memory

  return Objective('simkd', dict(factor=factor), init, loss)
