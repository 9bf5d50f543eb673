"""Pro-KD: a student that follows in the teacher's footsteps.

Rezagholizadeh et al., 2021, https://arxiv.org/abs/2110.08532. The student is
distilled from the teacher as it was along its training, one checkpoint after
another, without labels, at a temperature that falls to 1; then it is tuned on
labels.

By default no checkpoints are needed: the teacher is trained in the same steps
as the student, from labels alone, and guides it as it is at that step. The path
is the same, with a checkpoint at every step instead of a few, and a teacher
whose BatchNorm is in train mode. The price is a teacher's training for every
student. Where checkpoints of a teacher's training are available, they are
followed one after another, frozen, as in the paper.
"""

from collections.abc import Mapping, Sequence

from jaxkd.catalog import check_whole
from jaxkd.graph import Frozen, Graph, Learner, Phase
from jaxkd.methods import weights
from jaxkd.methods.network_specs import NetworkSpec, network
from jaxkd.methods.transfers import ObjectiveSpec, from_guide, from_labels


def pro_kd(
  objective: ObjectiveSpec,
  tune_epochs: int,
  tune_learning_rate: float | None = None,
  label_weight: weights.Spec = 0.0,
  guide_weight: weights.Spec = 1.0,
  checkpoints: Sequence[NetworkSpec] = (),
  checkpoint_epochs: int = 1,
) -> tuple[Phase, ...]:
  """Distillation from a teacher while it is trained, then training on labels.

  Args:
    objective: of the first phase, such as {'name': 'annealed', 'start': 4.0,
      'epochs': 240}; one or several, see
      `jaxkd.methods.transfers.weighted_objectives`. The paper does not state
      where the temperature starts, hence no default. With checkpoints that have
      a temperature it must be one objective.
    tune_epochs: of the second phase, which the paper does not state, either.
    tune_learning_rate: its peak; None takes the run's.
    label_weight: of the cross-entropy against labels in the first phase; 0 is
      the paper's.
    guide_weight: of the objective; a number or a schedule, see
      `jaxkd.methods.weights.make`.
    checkpoints: of a teacher, from early to late, each a mapping of the model's
      'name', its 'checkpoint', the other settings that
      `network_specs.network` takes, and the objective's 'temperature' with this
      teacher. Each is a phase, `follow1`, `follow2`, ..., at a constant
      learning rate, with a new optimizer. () trains the config's teacher in the
      student's steps.
    checkpoint_epochs: for which each checkpoint is followed.

  Raises:
    ValueError: less than one epoch; one of `checkpoints` without a checkpoint.
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
        _taught(*_pretrained(spec, objective), *to_student, name=f'teacher{n}'),
        checkpoint_epochs,
        schedule='constant',
      )
      for n, spec in enumerate(checkpoints, 1)
    ]
  tune = Graph({'student': Learner()}, (from_labels('student'),))
  return (*follow, Phase('tune', tune, tune_epochs, tune_learning_rate))


def _taught(
  teacher: Learner | Frozen,
  objective: ObjectiveSpec,
  label_weight: weights.Spec,
  guide_weight: weights.Spec,
  name: str = 'teacher',
) -> Graph:
  """Returns a teacher, frozen or learning from labels, and the student."""
  learning = (from_labels(name),) if isinstance(teacher, Learner) else ()
  to_student = (
    from_labels('student', label_weight),
    *from_guide(name, 'student', objective, guide_weight),
  )
  networks = {name: teacher, 'student': Learner()}
  return Graph(networks, (*learning, *to_student))


def _pretrained(
  spec: NetworkSpec, objective: ObjectiveSpec
) -> tuple[Frozen, ObjectiveSpec]:
  """Returns a teacher's checkpoint, and the objective at its temperature."""
  settings = dict(spec) if isinstance(spec, Mapping) else {}
  if not settings.get('checkpoint'):
    raise ValueError(
      f'checkpoints of pro_kd must be mappings with a checkpoint, got {spec!r}:'
      " give mappings like {'name': 'resnet20', 'checkpoint': 'FOLDER'}, or ()"
      " to follow the config's teacher while it is trained"
    )
  if 'temperature' in settings:
    named = {'name': objective} if isinstance(objective, str) else objective
    objective = {**named, 'temperature': settings.pop('temperature')}
  return network(Frozen, settings), objective
