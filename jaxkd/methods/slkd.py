"""Self-learning teachers, SLKD (Liu, Li, Cheng, 2023).

https://arxiv.org/abs/2304.11923. Untrained networks of the teacher's
architecture, the self-learning teachers (SL-Ts), learn from the teacher while
the student does; their fused logits, never far ahead of the student, are its
second guide. So they learn while they teach. The paper's weights are not all in
print, so the defaults are the released code's. Deviation: in that code the
student's loss also pulls the SL-Ts towards the student; the paper describes no
such pull, and here it is a switch, `detach`.
"""

import functools
from collections.abc import Sequence

from jaxkd.catalog import check_whole, lookup
from jaxkd.graph import Frozen, Fusion, Graph, Learner, Phase
from jaxkd.methods import weights
from jaxkd.methods.transfers import ObjectiveSpec, from_guide, from_labels


def slkd(
  objective: ObjectiveSpec = 'kd',
  members: int = 2,
  label_weight: float = 0.1,
  guide_weight: weights.Spec = 0.9,
  process_label_weight: float = 1.0,
  process_guide_weight: float = 1.0,
  process_weight: float = 1.0,
  fusion: Sequence[float] = (),
  use_teacher: bool = True,
  detach: bool = True,
  order: str = 'parallel',
  warmup_epochs: int = 0,
) -> tuple[Phase, ...]:
  """Distillation from a teacher and from self-learning teachers.

  With CE the cross-entropy against labels and D the objective, the losses are
    of each SL-T     a CE + b D(teacher)
    of the student   a CE + b D(teacher) + p (c CE + d D(fused SL-Ts))

  Args:
    objective: D; one or several, whose weighted sum D then is, see
      `jaxkd.methods.transfers.weighted_objectives`.
    members: how many SL-Ts; 0 leaves distillation from the teacher alone.
    label_weight, guide_weight: a and b; the released code's are 0.1 and 0.9 on
      CIFAR-100, 0.5 and 0.5 on ImageNet. b alone may have a schedule.
    process_label_weight, process_guide_weight, process_weight: c, d and p.
    fusion: weight of each SL-T's logits; () weighs them equally, to a sum of 1.
    use_teacher: if False, the student's loss is p (c CE + d D(fused SL-Ts)).
    detach: no gradient of the student's loss flows into the SL-Ts.
    order: 'parallel' updates all in one step. The paper's sequential variant is
      'batch' (on each batch the SL-Ts one by one, then the student, each taught
      by those before as they are after their update) or 'phase' (first the
      SL-Ts for all epochs, then the student).
    warmup_epochs: D grows to its weight over so many epochs, as DKD's (20).

  Raises:
    ValueError: no guide; another number of fusion weights than of members; an
      attached student that is updated after the members.

  References:
    Section 3 of the paper; its tables 7 (guides), 8 and 9 (orders).
  """
  _check(members, fusion, use_teacher, detach, order)
  _check_numbers(
    label_weight, process_label_weight, process_guide_weight, process_weight
  )
  names = tuple(f'slt{i}' for i in range(members))
  guided = weights.make(guide_weight, warmup_epochs)
  taught = functools.partial(_taught, objective, guided)
  weight = process_weight * process_label_weight if members else 0.0
  to_student = taught('student', label_weight + weight)
  if not use_teacher:
    to_student = taught('student', weight)[:1]
  if members:
    guide = _fusion(names, fusion)
    weight = weights.make(process_weight * process_guide_weight, warmup_epochs)
    to_student += from_guide(guide, 'student', objective, weight, detach)
  to_members = [t for name in names for t in taught(name, label_weight)]
  return ORDERS[order](names, to_members, to_student)


def _taught(objective, guide_weight, name, label_weight):
  guided = from_guide('teacher', name, objective, guide_weight)
  return (from_labels(name, label_weight), *guided)


def _fusion(names, shares):
  shares = shares or [1 / len(names) for _ in names]
  return Fusion(dict(zip(names, shares, strict=True)))


def _check(members, fusion, use_teacher, detach, order):
  """Refuses settings that contradict each other."""
  lookup('order', ORDERS, order)
  check_whole('slkd', 'members', members, least=0)
  if not (members or use_teacher):
    raise ValueError(
      f'slkd with members={members} and use_teacher={use_teacher} leaves the'
      ' student without a guide: set members to 1 or more'
    )
  if fusion and len(fusion) != members:
    raise ValueError(
      f'slkd has members={members}, but fusion={tuple(fusion)} has'
      f' {len(fusion)} weights: give one for each, or () for equal ones'
    )
  if not members and order != 'parallel':
    raise ValueError(
      'slkd with members=0 has no network to update before the student: set'
      f" order to 'parallel', not {order!r}"
    )
  if not detach and (order != 'parallel' or not members):
    raise ValueError(
      'slkd with detach=False needs SL-Ts that are updated in the same step as'
      f" the student: that takes order='parallel' and members, not"
      f' order={order!r} and members={members}'
    )


def _check_numbers(label_weight, label, guide, process):
  """Refuses schedules where weights are multiplied and summed."""
  for name, weight in (
    ('label_weight', label_weight),
    ('process_label_weight', label),
    ('process_guide_weight', guide),
    ('process_weight', process),
  ):
    weights.as_number(f'{name} of slkd', weight)


def _parallel(names, to_members, to_student, turns=()):
  networks = {
    'teacher': Frozen(),
    **{name: Learner(like='teacher') for name in names},
    'student': Learner(),
  }
  graph = Graph(networks, (*to_members, *to_student), turns)
  return (Phase('slkd', graph),)


def _by_batch(names, to_members, to_student):
  turns = (*((name,) for name in names), ('student',))
  return _parallel(names, to_members, to_student, turns)


def _by_phase(names, to_members, to_student):
  learning = {name: Learner(like='teacher') for name in names}
  trained = {name: Frozen(like='teacher') for name in names}
  teacher = {'teacher': Frozen()}
  return (
    Phase('slts', Graph({**teacher, **learning}, tuple(to_members))),
    Phase(
      'slkd',
      Graph({**teacher, **trained, 'student': Learner()}, tuple(to_student)),
    ),
  )


ORDERS = {'parallel': _parallel, 'batch': _by_batch, 'phase': _by_phase}
