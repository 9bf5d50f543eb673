"""Training of the teacher from labels."""

from collections.abc import Callable
from typing import NamedTuple

from jaxkd import objectives
from jaxkd.catalog import lookup
from jaxkd.graph import LABELS, Graph, Learner, Phase, Transfer
from jaxkd.methods.weights import Ramp
from jaxkd.objectives import Objective


class TeacherLoss(NamedTuple):
  """A loss of the teacher's training.

  objective: reduction over the classes -> its objective.
  read_out: how the outputs of a network trained by it become logits; a key of
    `models.READ_OUTS`.
  """

  objective: Callable[[str], Objective]
  read_out: str


TEACHER_LOSSES = {
  'binary_cross_entropy': TeacherLoss(
    lambda reduction: objectives.binary_cross_entropy(reduction=reduction),
    'softmax',
  ),
  'brier': TeacherLoss(objectives.brier, 'softmax'),
  'cross_entropy': TeacherLoss(
    lambda reduction: objectives.cross_entropy(), 'softmax'
  ),
  'square_logits': TeacherLoss(objectives.square_logits, 'clip'),
}


def teacher(
  loss: str = 'cross_entropy',
  reduction: str = 'sum',
  scale: float = 1.0,
  epochs: int | None = None,
  learning_rate: float | None = None,
  stop: int | None = None,
  cross_entropy_epochs: int = 0,
  blend_epochs: int = 0,
  seed: int | None = None,
) -> tuple[Phase, ...]:
  """Trains a teacher from labels, by cross-entropy or by squared errors.

  Args:
    loss: a key of `TEACHER_LOSSES`; 'cross_entropy' is the loss of labels that
      the data's problem has.
    reduction: over the classes, 'sum' or 'mean'; not of cross-entropy.
    scale: factor on the loss.
    epochs: None takes the run's.
    learning_rate: None takes the run's.
    stop: epochs after which the training ends early; None trains to the end.
    cross_entropy_epochs: for which it first learns by cross-entropy alone.
    blend_epochs: over which the loss then takes the place of cross-entropy.
    seed: None takes the run's.

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
        f' but the loss is {loss!r}: set another one, or leave both 0'
      )
    when = cross_entropy_epochs, cross_entropy_epochs + blend_epochs
    weighted = [
      (labels, Ramp(1.0, 0.0, *when)),
      (objective, Ramp(0.0, scale, *when)),
    ]
  usual = objectives.cross_entropy().name
  transfers = tuple(
    Transfer(LABELS, 'teacher', each, weight, default=each.name == usual)
    for each, weight in weighted
  )
  graph = Graph({'teacher': Learner()}, transfers)
  return (
    Phase(
      'teacher', graph, epochs, learning_rate, stop, seed=seed, reusable=True
    ),
  )
