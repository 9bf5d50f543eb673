"""Pro-KD: a student that follows the teacher's footsteps.

Rezagholizadeh et al., 2021, https://arxiv.org/abs/2110.08532. The student is
distilled from the teacher as it was along its training, one checkpoint after
another, without labels, at a temperature that falls to 1; then it is tuned on
labels.

Deviation: no checkpoints are kept. The teacher is trained in the same steps as
the student, from labels alone, and guides it as it then is: what is followed is
the same path, with a checkpoint at every step instead of a few, and a teacher
whose BatchNorm is in train mode. Stages that go on with a teacher where another
stage has left it would begin its optimizer and its learning rate anew at each
checkpoint, which is another path. The price is a teacher's training for every
student.
"""

from jaxkd.graph import Graph, Learner, Stage
from jaxkd.methods import weights
from jaxkd.methods.arrows import Spec, arrows, labelled


def pro_kd(
  objective: Spec,
  tune_epochs: int,
  tune_learning_rate: float | None = None,
  label_weight: weights.Spec = 0.0,
  guide_weight: weights.Spec = 1.0,
) -> tuple[Stage, ...]:
  """Distillation from a teacher while it is trained, then training on labels.

  Args:
    objective: of the first phase, such as {'name': 'annealed', 'start': 4.0,
      'epochs': 240}. How far the temperature falls is not known to us, hence no
      default.
    tune_epochs: of the second phase. Not known to us, either.
    tune_learning_rate: its peak; None takes the run's.
    label_weight: of the cross-entropy against labels in the first phase; 0 is
      the paper's.
    guide_weight: of the objective; a number or a schedule, see
      `jaxkd.methods.weights.make`.

  Raises:
    ValueError: less than one epoch in the second phase.
  """
  if tune_epochs < 1:
    raise ValueError(f'pro_kd has tune_epochs={tune_epochs}, the least is 1')
  follow = Graph(
    {'teacher': Learner(), 'student': Learner()},
    (
      labelled('teacher'),
      labelled('student', label_weight),
      *arrows('teacher', 'student', objective, guide_weight),
    ),
  )
  tune = Graph({'student': Learner()}, (labelled('student'),))
  return (
    Stage('follow', follow),
    Stage('tune', tune, tune_epochs, tune_learning_rate),
  )
