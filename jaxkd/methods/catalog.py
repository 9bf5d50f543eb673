"""The catalogue of methods, and the phases of a whole run."""

from collections.abc import Callable, Mapping
from typing import Any

from jaxkd.catalog import call, lookup
from jaxkd.graph import Frozen, Learner, Phase
from jaxkd.methods.assistants import dgkd, takd
from jaxkd.methods.born_again import ban
from jaxkd.methods.distil import distil, kd
from jaxkd.methods.factor_transfer import ft
from jaxkd.methods.gpd import gpd
from jaxkd.methods.mutual import dml
from jaxkd.methods.plain import baseline as baseline_phases
from jaxkd.methods.plain import kd_baseline as kd_baseline_phases
from jaxkd.methods.plain import plain
from jaxkd.methods.pretrained import pretrained
from jaxkd.methods.pro_kd import pro_kd
from jaxkd.methods.simkd import simkd
from jaxkd.methods.slkd import slkd
from jaxkd.methods.teacher import teacher

CATALOG: dict[str, Callable[..., tuple[Phase, ...]]] = {
  'ban': ban,
  'dgkd': dgkd,
  'distil': distil,
  'dml': dml,
  'ft': ft,
  'gpd': gpd,
  'kd': kd,
  'plain': plain,
  'pretrained': pretrained,
  'pro_kd': pro_kd,
  'simkd': simkd,
  'slkd': slkd,
  'takd': takd,
  'teacher': teacher,
}
# A setting of version 0.1 -> its name today, by method; '' is any other method.
RENAMED = {
  'objectives': {
    'gpd': 'static',
    'pretrained': 'training_objective',
    '': 'objective',
  }
}


def phases(
  name: str,
  settings: Mapping[str, Any],
  *,
  teacher_settings: Mapping[str, Any],
  teacher_checkpoint: str = '',
  baseline: bool = False,
  kd_baseline: bool = False,
) -> tuple[Phase, ...]:
  """Returns a run's phases: a method's, and before them those that it needs.

  Args:
    name: of the method, a key of `CATALOG`.
    settings: the method's keyword arguments.
    teacher_settings: keyword arguments of `teacher`, whose phase comes first
      where the method has a frozen teacher.
    teacher_checkpoint: of that teacher, which is not trained then; '': none.
    baseline: also train the student's twin from labels alone.
    kd_baseline: also distil a twin from the teacher, by plain KD.

  Raises:
    KeyError: no method or teacher loss of that name, with suggestions.
    ValueError: a setting that the method does not take; twins or a checkpoint
      that the method has no use for.
  """
  method = lookup('method', CATALOG, name)
  training = teacher(**teacher_settings)
  if method is teacher:
    if baseline or kd_baseline:
      raise ValueError(
        'baseline and kd_baseline train twins of the student, and the method'
        f' {name} has no student: leave them False'
      )
    # Its settings are the config's section on the teacher.
    return call(f'method {name}', lambda: training, dict(settings))
  _check_renamed(name, settings)
  own = call(f'method {name}', method, dict(settings))
  if kd_baseline or teacher_checkpoint:
    _check_frozen(name, own, kd_baseline, teacher_checkpoint)
  twins = baseline_phases() if baseline else ()
  twins += kd_baseline_phases() if kd_baseline else ()
  own = (*twins, *own)
  if _has(own, Frozen) and not teacher_checkpoint:
    own = (*training, *own)
  return own


def renamed(settings: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a config's section `method` with today's names of settings.

  Args:
    settings: as version 0.1 wrote them, or as they are today; 'name' is the
      method's.
  """
  today = dict(settings)
  for old, names in RENAMED.items():
    if old in today:
      new = names.get(today.get('name', ''), names[''])
      today[new] = today.pop(old)
  return today


def _check_renamed(name: str, settings: Mapping[str, Any]) -> None:
  """Raises ValueError for a setting that has another name today."""
  for old, names in RENAMED.items():
    if old in settings:
      new = names.get(name, names[''])
      raise ValueError(
        f'method {name} has no setting {old!r}: set {new!r}, which takes one'
        f" or several, like {new}={{'kd': 0.9, 'crd': 0.8}}"
      )


def _check_frozen(
  name: str, phases: tuple[Phase, ...], kd_baseline: bool, checkpoint: str
) -> None:
  """Refuses a pretrained teacher where the method itself trains it.

  The method would start from it, and the twin would have another teacher.
  """
  if _has(phases, Learner):
    raise ValueError(
      f'the method {name} trains the teacher itself, so'
      f' kd_baseline={kd_baseline} and teacher.checkpoint={checkpoint!r} are of'
      " no use: leave them False and ''. (teacher.start sets where its training"
      ' starts.)'
    )


def _has(phases: tuple[Phase, ...], kind: type[Frozen] | type[Learner]) -> bool:
  """Returns whether the teacher is such a network in a phase."""
  return any(isinstance(p.graph.networks.get('teacher'), kind) for p in phases)
