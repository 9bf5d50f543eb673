"""Pro-KD: a student that follows the teacher's footsteps.

Rezagholizadeh et al., 2021, https://arxiv.org/abs/2110.08532. The student is
distilled from the teacher as it was along its training, one checkpoint after
another, without labels, at a temperature that falls to 1; then it is tuned on
labels.

By default no checkpoints are kept: the teacher is trained in the same steps as
the student, from labels alone, and guides it as it then is. What is followed is
the same path, with a checkpoint at every step instead of a few, and a teacher
whose BatchNorm is in train mode. The price is a teacher's training for every
student. Where checkpoints of a teacher's training are at hand, they are
followed one after another, frozen, as in the paper.
"""

from collections.abc import Mapping, Sequence

from jaxkd.catalog import check_whole
from jaxkd.graph import Frozen, Graph, Learner, Phase
from jaxkd.methods import networks, weights
from jaxkd.methods.arrows import Spec, arrows, labelled


def pro_kd(
  objective: Spec,
  tune_epochs: int,
  tune_learning_rate: float | None = None,
  label_weight: weights.Spec = 0.0,
  guide_weight: weights.Spec = 1.0,
  checkpoints: Sequence[networks.Spec] = (),
  checkpoint_epochs: int = 1,
) -> tuple[Phase, ...]:
  """Distillation from a teacher while it is trained, then training on labels.

  Args:
    objective: of the first phase, such as {'name': 'annealed', 'start': 4.0,
      'epochs': 240}. How far the temperature falls is not known to us, hence no
      default. With checkpoints it is one objective.
    tune_epochs: of the second phase. Not known to us, either.
    tune_learning_rate: its peak; None takes the run's.
    label_weight: of the cross-entropy against labels in the first phase; 0 is
      the paper's.
    guide_weight: of the objective; a number or a schedule, see
      `jaxkd.methods.weights.make`.
    checkpoints: of a teacher, from early to late, each a mapping of the model's
      'name', its 'checkpoint', what else `networks.node` takes, and the
      'temperature' that the objective then has. Each is a phase, `follow1`,
      `follow2`, ..., at a constant learning rate, whose optimizer starts anew.
      () trains the config's teacher in the student's steps.
    checkpoint_epochs: for which each checkpoint is followed.

  Raises:
    ValueError: less than one epoch; a checkpoint that names none.
  """
  for name, epochs in (
    ('tune_epochs', tune_epochs),
    ('checkpoint_epochs', checkpoint_epochs),
  ):
    check_whole('pro_kd', name, epochs)
  to_student = label_weight, guide_weight
  follow = [Phase('follow', _taught(Learner(), objective, *to_student))]
  if checkpoints:
    follow = [
      Phase(
        f'follow{n}',
        _taught(*_given(spec, objective), *to_student, name=f'teacher{n}'),
        checkpoint_epochs,
        schedule='constant',
      )
      for n, spec in enumerate(checkpoints, 1)
    ]
  tune = Graph({'student': Learner()}, (labelled('student'),))
  return (*follow, Phase('tune', tune, tune_epochs, tune_learning_rate))


def _taught(
  teacher: Learner | Frozen,
  objective: Spec,
  label_weight: weights.Spec,
  guide_weight: weights.Spec,
  name: str = 'teacher',
) -> Graph:
  """Returns a teacher, frozen or learning from labels, and the student."""
  learning = (labelled(name),) if isinstance(teacher, Learner) else ()
  to_student = (
    labelled('student', label_weight),
    *arrows(name, 'student', objective, guide_weight),
  )
  nodes = {name: teacher, 'student': Learner()}
  return Graph(nodes, (*learning, *to_student))


def _given(spec: networks.Spec, objective: Spec) -> tuple[Frozen, Spec]:
  """Returns a teacher's checkpoint, and the objective at its temperature."""
  given = dict(spec) if isinstance(spec, Mapping) else {}
  if not given.get('checkpoint'):
    raise ValueError(
      f'pro_kd follows checkpoints, and {spec!r} names none: give mappings like'
      " {'name': 'resnet20', 'checkpoint': 'FOLDER'}, or () to follow the"
      " config's teacher while it is trained"
    )
  if 'temperature' in given:
    named = {'name': objective} if isinstance(objective, str) else objective
    objective = {**named, 'temperature': given.pop('temperature')}
  return networks.node(Frozen, given), objective
