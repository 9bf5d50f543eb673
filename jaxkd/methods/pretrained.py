"""Students that are pretrained on the teacher's features, then on labels."""

from jaxkd.catalog import check_whole
from jaxkd.graph import Frozen, Graph, Learner, Phase
from jaxkd.methods import weights
from jaxkd.methods.transfers import ObjectiveSpec, from_guide, from_labels


def pretrained(
  objective: ObjectiveSpec = 'ab',
  pretraining_epochs: int = 30,
  pretraining_rate: float | None = None,
  label_weight: weights.Spec = 1.0,
  training_objective: ObjectiveSpec | None = None,
) -> tuple[Phase, ...]:
  """A phase of features alone, then training on labels from there.

  This is how `ab` and `fsp` are used in their papers and in the CIFAR-100
  benchmark (RepDistiller), whose numbers are the defaults: 30 epochs at the
  student's learning rate, without decay of the rate and without labels.
  FitNets' hints came first, too, and then KD. In the first phase, parameters of
  the student that the objective does not reach, such as the head's, are not
  updated; they do not even decay. (BatchNorm's running statistics move in the
  whole student.) The second phase has an optimizer of its own.

  Args:
    objective: of the first phase; one or several, see
      `jaxkd.methods.transfers.weighted_objectives`.
    pretraining_epochs: of the first phase.
    pretraining_rate: its learning rate; None takes the run's.
    label_weight: of the cross-entropy in the second phase; a number or a
      schedule, see `jaxkd.methods.weights.make`.
    training_objective: from the teacher in the second phase, likewise one or
      several; None: labels alone.

  Raises:
    ValueError: less than one epoch in the first phase.

  References:
    https://arxiv.org/abs/1811.03233 (AB), section 3;
    https://arxiv.org/abs/1910.10699 (the benchmark).
  """
  first = Graph(
    {'teacher': Frozen(), 'student': Learner()},
    from_guide('teacher', 'student', objective),
  )
  second = Graph(
    {'student': Learner()}, (from_labels('student', label_weight),)
  )
  if training_objective is not None:
    guided = from_guide('teacher', 'student', training_objective)
    second = Graph(first.networks, (*second.transfers, *guided))
  return (
    first_phase('pretrain', first, pretraining_epochs, pretraining_rate),
    Phase('train', second),
  )


def first_phase(
  name: str, graph: Graph, epochs: int, learning_rate: float | None
) -> Phase:
  """Returns a phase before the training, at a constant learning rate.

  Raises:
    ValueError: less than one epoch.
  """
  check_whole(f'the phase {name!r}', 'pretraining_epochs', epochs)
  return Phase(name, graph, epochs, learning_rate, schedule='constant')
