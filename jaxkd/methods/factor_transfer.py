"""Factor transfer (Kim et al., NeurIPS 2018)."""

from jaxkd.graph import Frozen, Graph, Learner, Phase, Transfer
from jaxkd.methods import weights
from jaxkd.methods.pretrained import first_phase
from jaxkd.methods.transfers import from_labels
from jaxkd.objectives.ft import ft as factors
from jaxkd.objectives.ft import paraphraser


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

  The first phase trains the paraphraser, and the second does not change it. In
  the first, the student is run as well, but only its BatchNorm's running
  statistics change. Defaults are the CIFAR-100 benchmark's (RepDistiller),
  whose rate of the first phase is 0.01 where the student is a ResNet or a wide
  one, and otherwise the student's.

  Args:
    label_weight: of the cross-entropy; a number or a schedule, see
      `jaxkd.methods.weights.make`.
    guide_weight: of the factors' loss, likewise.
    pretraining_epochs: of the first phase.
    pretraining_rate: its learning rate; None takes the run's.
    stage: the tap of the student; see the objective `ft`, also for the others.
    guide_stage: the tap of the teacher.
    rate: channels of a factor, as a fraction of those of the teacher's map.

  Raises:
    ValueError: less than one epoch in the first phase; a rate that is not
      positive.

  References:
    https://arxiv.org/abs/1802.04977, section 3;
    https://arxiv.org/abs/1910.10699 (the benchmark).
  """
  ends = stage, guide_stage, rate
  networks = {'teacher': Frozen(), 'student': Learner()}
  first = Transfer('teacher', 'student', paraphraser(*ends))
  second = Transfer(
    'teacher',
    'student',
    factors(*ends, reconstruction=0.0),
    weights.make(guide_weight),
  )
  labels = from_labels('student', label_weight)
  paraphrase = Graph(networks, (first,))
  return (
    first_phase('paraphrase', paraphrase, pretraining_epochs, pretraining_rate),
    Phase('distil', Graph(networks, (labels, second))),
  )
