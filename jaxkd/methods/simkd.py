"""Reused classifiers, SimKD (Chen et al., CVPR 2022)."""

from jaxkd import objectives
from jaxkd.graph import Frozen, Graph, Learner, Phase, ReusedHead, Transfer
from jaxkd.methods import weights
from jaxkd.methods.transfers import from_labels


def simkd(
  factor: int = 2,
  label_weight: weights.Spec = 0.0,
  guide_weight: weights.Spec = 1.0,
) -> tuple[Phase, ...]:
  """The student learns the features that the teacher's classifier expects.

  The student is its own network up to its deepest stage, a projector, and the
  teacher's classifier, which is not trained. So it is tested, saved and
  exported. It has no classifier of its own.

  Args:
    factor: of the projector, see `models.reusing.Projector`.
    label_weight: of the cross-entropy against labels; a number or a schedule,
      see `jaxkd.methods.weights.make`. The published method has none.
    guide_weight: of the squared error of the features, likewise.

  References:
    https://arxiv.org/abs/2203.14001, eq. 3 and figure 1; the projector and the
    weights are the published code's (https://github.com/DefangChen/SimKD).
  """
  features = Transfer(
    'teacher', 'student', objectives.simkd(), weights.make(guide_weight)
  )
  labels = (from_labels('student', label_weight),) if label_weight else ()
  graph = Graph(
    {
      'teacher': Frozen(),
      'student': Learner(head=ReusedHead('teacher', factor)),
    },
    (*labels, features),
  )
  return (Phase('simkd', graph),)
