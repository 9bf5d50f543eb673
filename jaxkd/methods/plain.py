"""The student without a teacher, and its twins to compare it with."""

import dataclasses

from jaxkd.graph import Frozen, Graph, Learner, Phase
from jaxkd.methods.distil import kd
from jaxkd.methods.transfers import (
  ObjectiveSpec,
  from_labels,
  from_labels_by,
)

# Without branches, as the student is deployed.
TWIN = Learner(like='student', branches=1, same_start=True)


def plain(label_objective: ObjectiveSpec | None = None) -> tuple[Phase, ...]:
  """Plain training: the student learns from the labels alone.

  Args:
    label_objective: from the labels, see `distil`.
  """
  transfers = from_labels_by(label_objective, 'student')
  graph = Graph({'student': Learner()}, transfers)
  return (Phase('train', graph),)


def baseline() -> tuple[Phase, ...]:
  """Plain training of the student's twin: same start, same order of data."""
  graph = Graph({'plain_student': TWIN}, (from_labels('plain_student'),))
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
