"""Reused classifiers, SimKD (Chen et al., CVPR 2022).

https://arxiv.org/abs/2203.14001. The learner's features are projected to those
that the guide's classifier reads, and are classified by it. The method `simkd`
builds such a network; this is its loss.
"""

from jaxkd import losses
from jaxkd.catalog import check_whole
from jaxkd.losses import sizes
from jaxkd.models.reusing import PROJECTED, Projector, classifier_maps
from jaxkd.objectives import regressors, taps
from jaxkd.objectives.base import Objective, Published
from jaxkd.types import Array, Outputs

PUBLISHED = Published(weight=1.0, label_weight=0.0)


def simkd(factor: int = 2) -> Objective:
  """Mean squared error of projected features, before the classifier.

  The published weight of the transfer is 1, that of labels 0. For a learner
  without a projector, the objective owns one that is discarded after training,
  so that it can be used like any other objective of features.

  Args:
    factor: of this projector, see `models.reusing.Projector`.

  Raises:
    ValueError: a factor below 1.

  References:
    https://arxiv.org/abs/2203.14001, eq. 3; the projector and the weights are
    the published code's (https://github.com/DefangChen/SimKD).
  """
  check_whole('simkd', 'factor', factor)

  def ends(learner: Outputs, guide: Outputs | None) -> taps.Maps:
    guide = taps.network(guide)
    source, target = classifier_maps(learner, guide)
    if PROJECTED in learner.taps:
      ((source, _),) = taps.maps(learner, guide, [(PROJECTED, 'pooled')])
    return sizes.match(source, target)

  def projector(target: Array) -> Projector:
    return Projector(target.shape[-1], factor)

  def init(key, *, learner, guide, **_):
    source, target = ends(learner, guide)
    if PROJECTED in learner.taps:
      return {}, {}
    return regressors.init(projector(target), key, source), {}

  def loss(params, memory, *, learner, guide, **_):
    student, target = ends(learner, guide)
    if params:
      student = regressors.apply(projector(target), params, student)
    return losses.hint(student, target), memory

  return Objective('simkd', dict(factor=factor), init, loss)
