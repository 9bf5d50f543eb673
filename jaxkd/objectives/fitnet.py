"""FitNets: hints from inside the guide (Romero et al., ICLR 2015).

https://arxiv.org/abs/1412.6550. Deviation, as in the distillation benchmark:
the hint is learned together with the task, not in a phase before it.
"""

from jaxkd import losses
from jaxkd.objectives import regressors, taps
from jaxkd.objectives.base import Objective, Published
from jaxkd.types import Array, Outputs

PUBLISHED = Published(weight=100.0)


def fitnet(stage: str = 'stage2', guide_stage: str = '') -> Objective:
  """Mean squared error of the learner's features, regressed to the guide's.

  The benchmark's weight of the transfer is 100. If the learner's map is larger
  than the guide's, but not twice as large, the regressor's kernel has the size
  of the difference: taps of similar sizes are cheaper.

  Args:
    stage: the tap of the learner, or 'last', its deepest stage.
    guide_stage: the tap of the guide, likewise; '' takes the same name.

  References:
    https://arxiv.org/abs/1412.6550; regressor, stage and weight are the
    CIFAR-100 benchmark's, https://arxiv.org/abs/1910.10699.
  """

  def ends(learner: Outputs, guide: Outputs | None) -> taps.Maps:
    return regressors.connectable(
      *taps.pair(learner, guide, stage, guide_stage)
    )

  def regressor(target: Array) -> regressors.ConvReg:
    return regressors.ConvReg(target.shape[1:])

  def init(key, *, learner, guide, **_):
    source, target = ends(learner, guide)
    return regressors.init(regressor(target), key, source), {}

  def loss(params, memory, *, learner, guide, **_):
    source, target = ends(learner, guide)
    student = regressors.apply(regressor(target), params, source)
    return losses.hint(student, target), memory

  settings: dict[str, object] = dict(stage=stage, guide_stage=guide_stage)
  return Objective('fitnet', settings, init, loss)
