"""The checks of a config: names, types, ranges, and contradictions."""

import itertools
from collections.abc import Mapping
from typing import Any

from jaxkd.catalog import UnknownNameError, check_whole, limits, suggestion
from jaxkd.config.tree import BAYES, FREE, Config, default, missing

# Arguments of networks that are not in `settings`, and where they are.
ELSEWHERE = {
  'num_classes': 'the data set',
  'width': '{}.width',
  'branches': 'student.branches',
  'dtype': 'compute_dtype',
  'read_out': 'teacher.read_out',
  'taps': '{}.taps',
}
# Settings that are a string or a mapping.
MAPPINGS = ('teacher.classes',)
RENAMED = {  # name of a setting in earlier versions -> what it is today
  'teacher.cache_outputs': (
    "set teacher.cache, to 'disk' for files in the cache folder; by default it"
    " is 'auto'"
  ),
}
TYPES = {  # as messages call them
  float: 'a number',
  int: 'a whole number',
  str: 'a string',
  tuple: 'a tuple',
}


def check(config: Config) -> None:
  """Compares a config with the tree.

  Raises:
    KeyError: a key that is missing from the tree or from the config.
    ValueError: not a ConfigDict; a value of another type than the tree's, or
      outside its limits; a value that the config file leaves to its user and
      that is not set.
  """
  if not hasattr(config, 'to_dict'):
    raise ValueError(
      'get_config() must return a config like that of jaxkd.config.default(),'
      f' got {type(config).__name__}'
    )
  _check_keys(config)
  for key in missing(config):
    raise ValueError(f'this config needs --config.{key}=...')
  _compare(config.to_dict(), default().to_dict(), '')
  for section in ('student', 'teacher'):
    for key in ELSEWHERE.keys() & config[section].settings.keys():
      raise ValueError(
        f'{section}.settings must not have {key!r}: it follows from'
        f' {ELSEWHERE[key].format(section)}'
      )
  _check_numbers(config.to_dict(), '')
  _check_tuples(config)


def _check_keys(config: Config) -> None:
  """Checks that the config, which is sorted by its keys, can be read.

  Raises:
    ValueError: a mapping inside of it has names and numbers as keys.
  """
  try:
    config.to_dict()
  except TypeError as error:
    raise ValueError(
      'a mapping in this config, such as the classes of a teacher, has both'
      ' names and numbers as keys: write it as a string, like'
      " classes=\"{'cat': 'animal', 3: 'animal'}\""
    ) from error


def _check_numbers(section: Mapping[str, Any], at: str) -> None:
  """Checks the numbers of a section against their ranges."""
  for key, value in section.items():
    name = f'{at}{key}'
    if name in limits.SETTINGS:
      limits.check(name, value, limits.interval(limits.SETTINGS[name]))
    elif isinstance(value, Mapping) and name not in FREE:
      _check_numbers(value, f'{name}.')


def _check_tuples(config: Config) -> None:
  """Checks what the ranges of their entries do not say about tuples."""
  optimizer, schedule, study = config.optimizer, config.schedule, config.study
  for name, values in (
    ('optimizer.betas', optimizer.betas),
    ('optimizer.rates', optimizer.rates.values()),
    ('schedule.milestones', schedule.milestones),
    ('teacher.mean', config.teacher.mean),
    ('teacher.std', config.teacher.std),
  ):
    if not all(map(limits.is_real, values)):
      raise ValueError(f'{name} must have numbers only, got {list(values)}')
  if len(optimizer.betas) != 2:
    raise ValueError(
      'optimizer.betas must be two numbers, like (0.9, 0.999), got'
      f' {tuple(optimizer.betas)}'
    )
  for seed in study.seeds:
    check_whole('study', 'seeds', seed, least=0)
  for key in ('vary', 'only', 'columns'):
    if not all(isinstance(name, str) for name in study[key]):
      raise ValueError(
        f'study.{key} must have names only, got {tuple(study[key])}: a tuple of'
        " one is written ('NAME',)"
      )


def check_lengths(
  config: Config, phase: str, epochs: int, length: int, schedule: str
) -> None:
  """Checks the learning rate's schedule against the length of a phase.

  Args:
    config: with the section on the schedule.
    phase: its name.
    epochs: that are trained.
    length: epochs that the schedule covers, `epochs` or more.
    schedule: name of the phase's schedule.

  Raises:
    ValueError: the warm-up takes the whole phase; a milestone that comes before
      the one in front of it, or not before the end.
  """
  warmup = config.schedule.warmup_epochs
  if warmup >= epochs:
    raise ValueError(
      f'schedule.warmup_epochs={warmup:g} must be below the {epochs} epochs of'
      f' the phase {phase}: its learning rate would never reach its peak'
    )
  if schedule != 'milestones':
    return
  milestones = tuple(config.schedule.milestones)
  at = [x * length if x < 1 else x for x in milestones]
  for before, after in itertools.pairwise(at):
    if not before < after:
      raise ValueError(
        f'schedule.milestones must ascend, got {milestones}: those below 1 are'
        f' fractions of the {length} epochs of the phase {phase}, the others'
        ' count epochs'
      )
  if at and at[-1] >= length:
    raise ValueError(
      f'schedule.milestones={milestones} must be before the end of the phase'
      f' {phase}, which has {length} epochs: give fractions of a training, like'
      ' (0.5, 0.75), for phases of several lengths'
    )


def check_start(config: Config, trains: bool) -> None:
  """Checks that a teacher's checkpoint and the start of its training fit.

  Args:
    config: with the section on the teacher.
    trains: whether the run trains nothing but the teacher.

  Raises:
    ValueError: one is set where the other is meant.
  """
  section = config.teacher
  if section.start == BAYES:
    raise ValueError(
      f'teacher.start must be a checkpoint, got {section.start!r}: a posterior'
      ' cannot be trained; set teacher.checkpoint to it'
    )
  if section.checkpoint and trains:
    raise ValueError(
      f'teacher.checkpoint={section.checkpoint!r} is a teacher that is used as'
      ' it is, and this run trains one; if its training starts there, set'
      ' teacher.start instead'
    )
  if section.checkpoint and section.start:
    raise ValueError(
      f'teacher.start={section.start!r} is where the training of a teacher'
      f' starts, and teacher.checkpoint={section.checkpoint!r} is trained'
      " already: set one of them to ''"
    )


def teacher_stop(config: Config) -> int:
  """Returns after how many epochs the teacher's training ends early, or 0."""
  at, epochs = config.teacher.stop, config.teacher.epochs or config.epochs
  return max(1, round(at * epochs)) if 0 < at < 1 else round(at)


def check_teacher(config: Config) -> None:
  """Checks the durations of a teacher's training.

  Raises:
    ValueError: it ends before its parts do, or later than it can.
  """
  section = config.teacher
  epochs = section.epochs or config.epochs
  if section.stop >= 1 and section.stop != round(section.stop):
    raise ValueError(
      'teacher.stop must be a fraction of the epochs below 1, or a whole number'
      f' of them, got {section.stop:g}'
    )
  if section.stop > epochs:
    raise ValueError(
      f'teacher.stop must be at most the {epochs} epochs of the training, got'
      f' {section.stop:g}: 0 trains to the end'
    )
  first = section.cross_entropy_epochs
  last, end = first + section.blend_epochs, teacher_stop(config) or epochs
  if first >= end or last > end:
    raise ValueError(
      f'teacher.cross_entropy_epochs={first} and'
      f' teacher.blend_epochs={section.blend_epochs} lead to the loss'
      f' {section.loss!r} by epoch {last}, but its training ends after {end}'
    )


def _compare(config: Mapping[str, Any], tree: Mapping[str, Any], at: str):
  """Compares a section with the tree's; see `check`.

  Args:
    config: the section.
    tree: the same section of the tree.
    at: the section's name and a dot, or ''.
  """
  for key, value in config.items():
    name = f'{at}{key}'
    if name in RENAMED:
      raise UnknownNameError(f'no setting {name!r}: {RENAMED[name]}')
    if key not in tree:
      names = [f'{at}{k}' for k in tree]
      raise UnknownNameError(f'no setting {name!r}. {suggestion(name, names)}')
    wanted = tree[key]
    if name in MAPPINGS and isinstance(value, Mapping):
      continue
    if isinstance(wanted, Mapping) != isinstance(value, Mapping):
      raise ValueError(f'{name} must be a value like {wanted!r}, got {value!r}')
    if isinstance(wanted, Mapping):
      if name not in FREE:
        _compare(value, wanted, f'{name}.')
    elif not _fits(value, wanted):
      raise ValueError(f'{name} must be {_kind(wanted)}, got {value!r}')
  for key in tree:
    if key not in config:
      raise UnknownNameError(
        f'the setting {at + key!r} is missing: a config file starts from'
        f' jaxkd.config.default()'
      )


def _kind(wanted: Any) -> str:
  if isinstance(wanted, bool):
    return 'True or False'
  return f'{TYPES[type(wanted)]} like {wanted!r}'


def _fits(value: Any, wanted: Any) -> bool:
  if isinstance(wanted, float):
    return isinstance(value, int | float) and not isinstance(value, bool)
  if isinstance(wanted, tuple):
    return isinstance(value, tuple | list)
  return type(value) is type(wanted)
