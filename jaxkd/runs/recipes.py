"""Runs grouped by recipe over their seeds, and recipes by their test images.

Runs of one recipe have equal settings, but for their seed and for what cannot
change a result; see `Record.identity`. Recipes are compared with one another
only if they were tested on the same images.
"""

import collections
import dataclasses
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxkd.runs.records import Record

SEEDS = ('seed', 'teacher.seed', 'data.settings.seed')
COMMIT = 'commit'  # in place of a setting, where only it differs
DATA = 'data fingerprint'
# Settings of the data that choose or change the test images; `data.settings`
# do, too. Others change the training images only.
TESTED = (
  'data.name',
  'data.test',
  'data.image_size',
  'data.channels',
  'data.validation',
  'data.hold_out',
  'data.hold_out_seed',
)
# What a label always names, and names first.
ALWAYS = (
  'method.name',
  'method.objective.name',
  'teacher.name',
  'student.name',
)
FIRST = (*ALWAYS, 'teacher.checkpoint', 'teacher.loss')
SECTIONS = ('method', 'student', 'teacher', 'data', 'optimizer', 'schedule')
LONGEST = 3  # settings in a label, if fewer tell all recipes apart
# Settings under other names than their own.
WORDS = {
  'method.name': '',
  'data.name': '',
  'data.few_shot': 'few-shot',
  'optimizer.name': 'optimizer',
  'schedule.name': 'schedule',
}


@dataclasses.dataclass
class Recipe:
  """Runs of equal settings.

  identity: the settings, by name.
  runs: by seed.
  label: the settings that tell it from others, as words.
  """

  identity: dict[str, Any]
  runs: dict[str, Record]
  label: str = ''


@dataclasses.dataclass
class Group:
  """Recipes that were tested on the same images.

  recipes: in the order of their first runs.
  test: what chooses the test images: settings, their number.
  differing: the settings that differ between the recipes, in the order of
    labels; each has a value for every recipe, None where it does not have it.
  """

  recipes: list[Recipe]
  test: dict[str, Any]
  differing: dict[str, list[Any]]


def group(
  records: Sequence[Record],
) -> tuple[list[Group], dict[pathlib.Path, str]]:
  """Groups runs by test images and recipe.

  Returns:
    The groups; and why runs are left out, by path.
  """
  left_out: dict[pathlib.Path, str] = {}
  groups = []
  for test, members in _by_test(records):
    recipes = []
    for runs in _bundled(members, _identity).values():
      for part, further in _apart(runs):
        own, repeated = _by_seed(part, further)
        recipes += own
        left_out |= repeated
    differing = _differing(recipes)
    _label(recipes, differing)
    groups.append(Group(recipes, test, differing))
  return groups, left_out


def _by_test(
  records: Sequence[Record],
) -> list[tuple[dict[str, Any], list[Record]]]:
  """Returns the runs by the test images that they were tested on."""
  prints = collections.defaultdict(set)
  for each in records:
    if each.provenance('data_fingerprint'):
      prints[_key(each.data)].add(each.provenance('data_fingerprint'))

  def test(record: Record) -> dict[str, Any]:
    chosen = {
      key: value
      for key, value in record.data.items()
      if key in TESTED
      or (key.startswith('data.settings.') and key not in SEEDS)
    }
    chosen['test images'] = record.provenance('test_images')
    # Images that differ under the same settings, as of a changed folder.
    if len(prints[_key(record.data)]) > 1:
      chosen[DATA] = record.provenance('data_fingerprint')
    return chosen

  return [
    (test(members[0]), members) for members in _bundled(records, test).values()
  ]


def _key(values: Mapping[str, Any]) -> str:
  return json.dumps(values, sort_keys=True)


def _bundled(records: Iterable[Record], of: Any) -> dict[str, list[Record]]:
  """Returns the runs by what a function returns of them, in their order."""
  bundles: dict[str, list[Record]] = {}
  for each in records:
    bundles.setdefault(_key(of(each)), []).append(each)
  return bundles


def _identity(record: Record) -> dict[str, Any]:
  return {k: x for k, x in record.identity.items() if k not in SEEDS}


def _apart(
  runs: Sequence[Record],
) -> list[tuple[list[Record], dict[str, Any]]]:
  """Splits runs by the seeds that do not change together with the first one.

  Returns:
    Runs, and what tells them from the other parts. Each run of a part has a
    value of the first seed that differs, and the others are equal to it or the
    same in all runs.
  """
  varying = _varying(runs)
  further = [
    key
    for key in varying[1:]
    if any(x.settings.get(key) != x.settings.get(varying[0]) for x in runs)
  ]

  def others(record: Record) -> dict[str, Any]:
    return {key: record.settings.get(key) for key in further}

  parts = _bundled(runs, others).values()
  return [(part, others(part[0])) for part in parts]


def _varying(runs: Sequence[Record]) -> list[str]:
  """Returns the kinds of seeds that differ between runs; the first is theirs.

  A run that only trains a teacher has the teacher's seed.
  """
  own: list[str] = list(SEEDS)
  if runs[0].settings['method.name'] == 'teacher':
    own.remove('seed')
  varying = [
    key
    for key in own
    if len({_key({'': x.settings.get(key)}) for x in runs}) > 1
  ]
  return varying or own[:1]


def _by_seed(
  runs: Sequence[Record], further: dict[str, Any]
) -> tuple[list[Recipe], dict[pathlib.Path, str]]:
  """Returns a recipe of runs, or one for each commit if seeds are repeated.

  Args:
    runs: of one identity.
    further: what tells them from others of this identity.

  Returns:
    The recipes; and why runs are left out.
  """
  key = _varying(runs)[0]
  seeds = [str(x.settings.get(key)) for x in runs]
  commits = list(dict.fromkeys(x.commit for x in runs))
  if len(set(seeds)) < len(seeds) and len(commits) > 1:
    parts = [
      _by_seed([x for x in runs if x.commit == c], {**further, COMMIT: c})
      for c in commits
    ]
    return [r for own, _ in parts for r in own], {
      path: reason for _, out in parts for path, reason in out.items()
    }
  by_seed: dict[str, Record] = {}
  left_out = {}
  for seed, run in zip(seeds, runs, strict=True):
    first = by_seed.setdefault(seed, run)
    if first is not run:
      left_out[run.path] = f'the same recipe and seed as {first.path}'
  identity = {**_identity(runs[0]), **_fixed(runs, key), **further}
  return [Recipe(identity, by_seed)], left_out


def _fixed(runs: Sequence[Record], key: str) -> dict[str, Any]:
  """Returns the other seeds that are the same in all runs, unless 0.

  Args:
    runs: of a recipe.
    key: the kind of seed that differs.
  """
  seeds = {k: {x.settings.get(k) for x in runs} for k in SEEDS if k != key}
  own = {x.settings.get(key) for x in runs}
  return {
    k: x.pop() for k, x in seeds.items() if len(x) == 1 and x - own - {0, None}
  }


def _differing(recipes: Sequence[Recipe]) -> dict[str, list[Any]]:
  """Returns the settings that differ, see `Group`.

  Arguments of a method are compared between recipes of that method, but for its
  objective; other settings between the recipes that have them.
  """
  keys = dict.fromkeys(key for x in recipes for key in x.identity)
  return {
    key: [x.identity.get(key) for x in recipes]
    for key in sorted(keys, key=_rank)
    if _differs(key, recipes)
  }


def _differs(key: str, recipes: Sequence[Recipe]) -> bool:
  values: dict[Any, set[str]] = collections.defaultdict(set)
  for each in recipes:
    own_method = key.startswith('method.') and key != 'method.name'
    name = each.identity['method.name'] if own_method else ''
    if key == 'method.objective.name':
      values[''].add(_key({'': each.identity.get(key)}))
    elif key in each.identity:
      values[name].add(_key({'': each.identity[key]}))
  return any(len(x) > 1 for x in values.values())


def _rank(key: str) -> tuple[bool, int, int, str]:
  """Returns the place of a setting in labels."""
  first = FIRST.index(key) if key in FIRST else len(FIRST)
  section = key.partition('.')[0]
  known = SECTIONS.index(section) if section in SECTIONS else len(SECTIONS)
  return key == COMMIT, first, known, key


def _label(recipes: Sequence[Recipe], differing: Mapping[str, Any]) -> None:
  """Labels recipes by the settings that differ.

  If they are many, by as few as tell the recipes apart, in the order of labels.
  """
  if not differing:
    for each in recipes:
      each.label = alone(each.identity)
    return
  keys = list(differing)
  if len(keys) > LONGEST:
    keys = _enough(recipes, keys)
  for each in recipes:
    each.label = ', '.join(
      phrase(key, each.identity[key])
      for key in keys
      if each.identity.get(key) is not None
    ) or alone(each.identity)


def _enough(recipes: Sequence[Recipe], keys: Sequence[str]) -> list[str]:
  """Returns settings that tell recipes apart as well as all do.

  They are those of `ALWAYS`, and the first of the others.
  """

  def parts(chosen: Sequence[str]) -> int:
    return len({_key({k: x.identity.get(k) for k in chosen}) for x in recipes})

  chosen: list[str] = []
  for key in keys:
    if key in ALWAYS or parts([*chosen, key]) > parts(chosen):
      chosen.append(key)
  return chosen


def alone(identity: Mapping[str, Any]) -> str:
  """Returns the label of a recipe that is not compared with another."""
  keys = ('method.name', 'teacher.name', 'student.name')
  return ', '.join(phrase(k, identity[k]) for k in keys if k in identity)


def phrase(key: str, value: Any) -> str:
  """Returns a setting and its value as words.

  >>> phrase('teacher.loss', 'brier')
  'teacher loss brier'
  >>> phrase('method.name', 'kd')
  'kd'
  """
  return f'{words(key)} {show(value)}'.strip()


def words(key: str) -> str:
  """Returns the name of a setting as words.

  >>> words('optimizer.learning_rate'), words('student.name')
  ('learning rate', 'student')
  """
  if key in WORDS:
    return WORDS[key]
  section, _, rest = key.removesuffix('.name').partition('.')
  if section in ('student', 'teacher') or not rest:
    return ' '.join([section, *rest.split('.')]).replace('_', ' ').strip()
  return rest.replace('settings.', '').replace('.', ' ').replace('_', ' ')


def show(value: Any) -> str:
  """Returns the value of a setting as text."""
  if isinstance(value, float):
    return f'{value:g}'
  if isinstance(value, list | tuple):
    return f'({", ".join(map(show, value))})'
  return '-' if value in (None, '') else str(value)
