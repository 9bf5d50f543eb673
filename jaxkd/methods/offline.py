"""One network learns: from labels alone, or also from a frozen teacher."""

import dataclasses

from jaxkd import objectives
from jaxkd.catalog import lookup
from jaxkd.graph import LABELS, Frozen, Graph, Learner, Stage, Transfer
from jaxkd.objectives import Objective

# Without branches, as the student is deployed.
TWIN = Learner(like='student', branches=1, same_start=True)


def from_labels(name: str, network: Learner, objective: Objective) -> Graph:
  """labels -> one network."""
  return Graph({name: network}, (Transfer(LABELS, name, objective),))


def plain() -> tuple[Stage, ...]:
  """Plain training: the student learns from the labels alone."""
  graph = from_labels('student', Learner(), objectives.cross_entropy())
  return (Stage('train', graph),)


def baseline() -> tuple[Stage, ...]:
  """Plain training of the student's twin: same start, same order of data."""
  graph = from_labels('plain_student', TWIN, objectives.cross_entropy())
  return (Stage('baseline', graph),)


def kd_baseline() -> tuple[Stage, ...]:
  """Hinton distillation of the student's twin, with the defaults of `kd`."""
  (stage,) = kd()
  transfers = tuple(
    dataclasses.replace(transfer, learner='kd_student')
    for transfer in stage.graph.transfers
  )
  graph = Graph({'teacher': Frozen(), 'kd_student': TWIN}, transfers)
  return (Stage('kd_baseline', graph),)


def teacher(
  loss: str = 'cross_entropy',
  reduction: str = 'sum',
  scale: float = 1.0,
  epochs: int | None = None,
  learning_rate: float | None = None,
) -> tuple[Stage, ...]:
  """Trains a teacher from labels, by cross-entropy or by the Brier score.

  Args:
    loss: 'cross_entropy' or 'brier'.
    reduction: of the Brier score over classes, 'sum' or 'mean'.
    scale: factor on the loss.
    epochs: None takes the run's.
    learning_rate: None takes the run's.

  References:
    Brier score: Hamidi et al., ECCV 2024, https://arxiv.org/abs/2407.18041.
  """
  objective = lookup('teacher loss', TEACHER_LOSSES, loss)(reduction)
  transfer = Transfer(LABELS, 'teacher', objective, scale)
  graph = Graph({'teacher': Learner()}, (transfer,))
  return (Stage('teacher', graph, epochs, learning_rate),)


def kd(
  temperature: float = 4.0,
  label_weight: float = 0.1,
  guide_weight: float = 0.9,
) -> tuple[Stage, ...]:
  """Hinton distillation from a frozen teacher.

  Args:
    temperature: T of both softmaxes.
    label_weight: of the cross-entropy against labels.
    guide_weight: of T² KL(teacher ‖ student).

  References:
    https://arxiv.org/abs/1503.02531; the defaults are the CIFAR-100
    benchmark's, https://arxiv.org/abs/1910.10699.
  """
  labels, guide = objectives.cross_entropy(), objectives.kd(temperature)
  graph = Graph(
    networks={'teacher': Frozen(), 'student': Learner()},
    transfers=(
      Transfer(LABELS, 'student', labels, label_weight),
      Transfer('teacher', 'student', guide, guide_weight),
    ),
  )
  return (Stage('distil', graph),)


TEACHER_LOSSES = {
  'brier': objectives.brier,
  'cross_entropy': lambda reduction: objectives.cross_entropy(),
}
