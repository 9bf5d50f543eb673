"""One network learns: from labels alone, or also from a frozen teacher."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxkd import objectives
from jaxkd.catalog import lookup
from jaxkd.graph import LABELS, Frozen, Graph, Learner, Phase, Transfer
from jaxkd.methods import networks, weights
from jaxkd.methods.arrows import Spec, arrows, chosen
from jaxkd.methods.weights import Ramp
from jaxkd.objectives import Objective

# Without branches, as the student is deployed.
TWIN = Learner(like='student', branches=1, same_start=True)


def from_labels(name: str, network: Learner, objective: Objective) -> Graph:
  """labels -> one network."""
  return Graph({name: network}, (Transfer(LABELS, name, objective),))


def plain() -> tuple[Phase, ...]:
  """Plain training: the student learns from the labels alone."""
  graph = from_labels('student', Learner(), objectives.cross_entropy())
  return (Phase('train', graph),)


def baseline() -> tuple[Phase, ...]:
  """Plain training of the student's twin: same start, same order of data."""
  graph = from_labels('plain_student', TWIN, objectives.cross_entropy())
  return (Phase('baseline', graph),)


def kd_baseline() -> tuple[Phase, ...]:
  """Hinton distillation of the student's twin, with the defaults of `kd`."""
  (phase,) = kd()
  transfers = tuple(
    dataclasses.replace(transfer, learner='kd_student')
    for transfer in phase.graph.transfers
  )
  graph = Graph({'teacher': Frozen(), 'kd_student': TWIN}, transfers)
  return (Phase('kd_baseline', graph),)


def teacher(
  loss: str = 'cross_entropy',
  reduction: str = 'sum',
  scale: float = 1.0,
  epochs: int | None = None,
  learning_rate: float | None = None,
  stop: int | None = None,
  cross_entropy_epochs: int = 0,
  blend_epochs: int = 0,
) -> tuple[Phase, ...]:
  """Trains a teacher from labels, by cross-entropy or by squared errors.

  Args:
    loss: a key of `TEACHER_LOSSES`.
    reduction: of squared errors over the classes, 'sum' or 'mean'.
    scale: factor on the loss.
    epochs: None takes the run's.
    learning_rate: None takes the run's.
    stop: the epoch after which the training is broken off; None: never.
    cross_entropy_epochs: for which it first learns by cross-entropy alone.
    blend_epochs: over which the loss then takes the place of cross-entropy.

  Raises:
    KeyError: no such loss, with suggestions.
    ValueError: cross-entropy is to be blended with itself; a negative duration.

  References:
    Squared errors: Hamidi et al., ECCV 2024, https://arxiv.org/abs/2407.18041.
    Teachers that are stopped early: Cho and Hariharan, ICCV 2019,
    https://arxiv.org/abs/1910.01348.
  """
  objective = lookup('teacher loss', TEACHER_LOSSES, loss).objective(reduction)
  weighted = [(objective, scale)]
  if cross_entropy_epochs or blend_epochs:
    labels = objectives.cross_entropy()
    if objective.name == labels.name:
      raise ValueError(
        f'cross_entropy_epochs={cross_entropy_epochs} and'
        f' blend_epochs={blend_epochs} lead from cross-entropy to another loss,'
        f' but the loss is {loss!r}: take another one, or leave both 0'
      )
    when = cross_entropy_epochs, cross_entropy_epochs + blend_epochs
    weighted = [
      (labels, Ramp(1.0, 0.0, *when)),
      (objective, Ramp(0.0, scale, *when)),
    ]
  transfers = tuple(Transfer(LABELS, 'teacher', *pair) for pair in weighted)
  graph = Graph({'teacher': Learner()}, transfers)
  return (Phase('teacher', graph, epochs, learning_rate, stop),)


def kd(
  temperature: float = 4.0,
  label_weight: weights.Spec = 0.1,
  guide_weight: weights.Spec = 0.9,
  objectives: Spec | None = None,
) -> tuple[Phase, ...]:
  """Hinton distillation from a frozen teacher.

  Args:
    temperature: T of both softmaxes.
    label_weight: of the cross-entropy against labels; a number or a schedule,
      see `jaxkd.methods.weights.make`.
    guide_weight: of T² KL(teacher ‖ student), likewise.
    objectives: in the place of that divergence, name -> weight or arguments,
      see `jaxkd.methods.arrows.parts`; `temperature` and `guide_weight` are not
      theirs.

  References:
    https://arxiv.org/abs/1503.02531; the defaults are the CIFAR-100
    benchmark's, https://arxiv.org/abs/1910.10699.
  """
  if objectives is not None:
    return distil(objectives=objectives, label_weight=label_weight)
  objective = {'name': 'kd', 'temperature': temperature}
  return distil(objective, label_weight, guide_weight)


def distil(
  objective: Spec | None = None,
  label_weight: weights.Spec = 1.0,
  guide_weight: weights.Spec = 1.0,
  warmup_epochs: int = 0,
  objectives: Spec | None = None,
  teachers: Mapping[str, Any] | None = None,
  fuse: bool = False,
  label_objective: Spec = 'cross_entropy',
) -> tuple[Phase, ...]:
  """Distillation from frozen teachers by any objectives.

  Args:
    objective: from the teacher to the student: a name of the catalogue, or a
      mapping of 'name' and arguments, such as the taps that it compares; `kd`.
    label_weight: of what labels ask; a number or a schedule, see
      `jaxkd.methods.weights.make`.
    guide_weight: of the objectives, likewise. Published ones lie between 0.02
      and 30,000: see the objective.
    warmup_epochs: over which the objectives grow to their weight.
    objectives: several in the place of `objective`, name -> weight or
      arguments, see `jaxkd.methods.arrows.parts`.
    teachers: network -> its weight, or a mapping of 'weight' and what
      `jaxkd.methods.networks.node` takes; the config's `teacher` alone. Those
      without a checkpoint are trained from labels first.
    fuse: the student has one guide, the weighted sum of the teachers' outputs,
      in the place of several losses.
    label_objective: from the labels to the student, as `objective`.

  Raises:
    ValueError: teachers that cannot be.
  """
  spec = chosen(objective, objectives, 'kd')
  guides = networks.guides({'teacher': 1.0} if teachers is None else teachers)
  weight = weights.make(guide_weight, warmup_epochs)
  if fuse:
    transfers = arrows(guides.fused(), 'student', spec, weight)
  else:
    transfers = tuple(
      arrow
      for name, share in guides.weights.items()
      for arrow in arrows(name, 'student', spec, weights.times(weight, share))
    )
  labels = arrows(LABELS, 'student', label_objective, label_weight)
  graph = Graph(
    networks={**guides.networks, 'student': Learner()},
    transfers=(*labels, *transfers),
  )
  return (*guides.phases, Phase('distil', graph))


class TeacherLoss(NamedTuple):
  """What a teacher can be trained by.

  objective: reduction over the classes -> its objective.
  read_out: what outputs that have learned by it mean; in `models.READ_OUTS`.
  """

  objective: Callable[[str], Objective]
  read_out: str


TEACHER_LOSSES = {
  'brier': TeacherLoss(objectives.brier, 'softmax'),
  'cross_entropy': TeacherLoss(
    lambda reduction: objectives.cross_entropy(), 'softmax'
  ),
  'square_logits': TeacherLoss(objectives.square_logits, 'clip'),
}
