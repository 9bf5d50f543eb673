"""Reused classifiers, SimKD (Chen et al., CVPR 2022)."""

from jaxkd import objectives
from jaxkd.graph import Frozen, Graph, Learner, Phase, ReusedHead, Transfer
from jaxkd.methods import weights
from jaxkd.methods.arrows import labelled


def simkd(
  factor: int = 2,
  label_weight: weights.Spec = 0.0,
  guide_weight: weights.Spec = 1.0,
) -> tuple[Phase, ...]:
  """The student's features learn to be those that the teacher's head reads.

  The student is its own network as far as its deepest stage, a projector, and
  the teacher's classifier, which stays as it is. So it is tested, saved and
  exported. Its own classifier is not there.

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
  labels = (labelled('student', label_weight),) if label_weight else ()
  graph = Graph(
    {
      'teacher': Frozen(),
      'student': Learner(head=ReusedHead('teacher', factor)),
    },
    (*labels, features),
  )
  return (Phase('simkd', graph),)
