"""Students that learn from the teacher's features first, then from labels."""

from jaxkd.catalog import check_whole
from jaxkd.graph import Frozen, Graph, Learner, Phase, Transfer
from jaxkd.methods import weights
from jaxkd.methods.arrows import Spec, arrows, labelled
from jaxkd.objectives.ft import ft as factors
from jaxkd.objectives.ft import paraphraser


def pretrained(
  objective: Spec = 'ab',
  pretraining_epochs: int = 30,
  pretraining_rate: float | None = None,
  label_weight: weights.Spec = 1.0,
  objectives: Spec | None = None,
) -> tuple[Phase, ...]:
  """A phase of features alone, then training on labels from there.

  So students are taught by `ab` and `fsp` in their papers and in the CIFAR-100
  benchmark (RepDistiller), whose numbers are the defaults: 30 epochs at the
  student's learning rate, without decay of the rate and without labels.
  FitNets' hints came first, too, and then KD. In the first phase only those of
  the student's parameters learn that its objective depends on; the others, such
  as the head's, do not even decay. (BatchNorm's running statistics move in all
  of the student.) The second phase has an optimizer of its own.

  Args:
    objective: of the first phase, or several, see `jaxkd.methods.arrows.parts`.
    pretraining_epochs: of the first phase.
    pretraining_rate: its learning rate; None takes the run's.
    label_weight: of the cross-entropy in the second phase; a number or a
      schedule, see `jaxkd.methods.weights.make`.
    objectives: from the teacher in the second phase, too; None: none.

  Raises:
    ValueError: less than one epoch in the first phase.

  References:
    https://arxiv.org/abs/1811.03233 (AB), section 3;
    https://arxiv.org/abs/1910.10699 (the benchmark).
  """
  first = Graph(
    {'teacher': Frozen(), 'student': Learner()},
    arrows('teacher', 'student', objective),
  )
  second = Graph({'student': Learner()}, (labelled('student', label_weight),))
  if objectives is not None:
    taught = arrows('teacher', 'student', objectives)
    second = Graph(first.networks, (*second.transfers, *taught))
  return (
    _first('pretrain', first, pretraining_epochs, pretraining_rate),
    Phase('train', second),
  )


def ft(
  label_weight: weights.Spec = 1.0,
  guide_weight: weights.Spec = 200.0,
  pretraining_epochs: int = 30,
  pretraining_rate: float | None = 0.01,
  stage: str = 'last',
  guide_stage: str = '',
  rate: float = 0.5,
) -> tuple[Phase, ...]:
  """Factor transfer: a paraphraser of the teacher first, then the student.

  The paraphraser that the first phase has trained is as it is in the second. In
  the first, the student runs along, and nothing of it changes but BatchNorm's
  running statistics. Defaults are the CIFAR-100 benchmark's (RepDistiller),
  whose rate of the first phase is 0.01 where the student is a ResNet or a wide
  one, and otherwise the student's.

  Args:
    label_weight: of the cross-entropy; a number or a schedule, see
      `jaxkd.methods.weights.make`.
    guide_weight: of the factors' loss, likewise.
    pretraining_epochs: of the first phase.
    pretraining_rate: its learning rate; None takes the run's.
    stage: the tap of the student; see the objective `ft`, as the others.
    guide_stage: the tap of the teacher.
    rate: channels of a factor, in those of the teacher's map.

  Raises:
    ValueError: less than one epoch in the first phase; a rate that is not
      positive.

  References:
    https://arxiv.org/abs/1802.04977, section 3;
    https://arxiv.org/abs/1910.10699 (the benchmark).
  """
  ends = stage, guide_stage, rate
  nodes = {'teacher': Frozen(), 'student': Learner()}
  first = Transfer('teacher', 'student', paraphraser(*ends))
  second = Transfer(
    'teacher',
    'student',
    factors(*ends, reconstruction=0.0),
    weights.make(guide_weight),
  )
  labels = labelled('student', label_weight)
  return (
    _first(
      'paraphrase', Graph(nodes, (first,)), pretraining_epochs, pretraining_rate
    ),
    Phase('distil', Graph(nodes, (labels, second))),
  )


def _first(
  name: str, graph: Graph, epochs: int, learning_rate: float | None
) -> Phase:
  """Returns a phase before the training, at a constant learning rate."""
  check_whole(f'the phase {name!r}', 'pretraining_epochs', epochs)
  return Phase(name, graph, epochs, learning_rate, schedule='constant')
