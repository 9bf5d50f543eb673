"""The grid of a sweep: a study whose recipes are combinations of settings.

An axis is KEY=VALUE,VALUE,...: commas inside brackets, braces or quotes belong
to a value. Each value is read like that of KEY=VALUE on the command line.
"""

import itertools
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jaxkd import config as configs
from jaxkd.commands import config_files
from jaxkd.config import Config
from jaxkd.runs.expansion import nested

PAIRS = {'(': ')', '[': ']', '{': '}'}
QUOTES = ('"', "'")
LONGEST = 120  # letters of a recipe's name, which names a folder
ALONE = 'run'  # as a study calls its only recipe


class Axis(NamedTuple):
  """A setting and the values that it takes.

  key: its name.
  values: as they are written.
  """

  key: str
  values: tuple[str, ...]


def axis(text: str) -> Axis:
  """Returns the axis of an argument of --over.

  >>> axis('method.weight=1,3,10')
  Axis(key='method.weight', values=('1', '3', '10'))
  >>> axis('schedule.milestones=(0.5, 0.75),(0.9,)').values
  ('(0.5, 0.75)', '(0.9,)')

  Raises:
    ValueError: not of this form; a value twice; a bracket or quote that is not
      closed.
  """
  key, equals, rest = text.partition('=')
  key = key.strip().removeprefix('--config.')
  if not (key and equals and rest.strip()):
    raise ValueError(
      f'--over={text}: write KEY=VALUE,VALUE like method.weight=1,3,10'
    )
  if key == 'seed':
    raise ValueError(
      f'--over={text}: seeds are set by --seeds=5 or --seeds=3,7'
    )
  values = tuple(split(rest))
  repeated = {x for x in values if values.count(x) > 1}
  if repeated:
    raise ValueError(
      f'--over={text} has {sorted(repeated)[0]!r} more than once'
    )
  return Axis(key, values)


def split(text: str) -> list[str]:
  """Returns the values between commas outside of brackets and quotes.

  Raises:
    ValueError: a bracket or a quote is not closed, or closed and not opened.
  """
  parts, open_, quote = [''], [], ''
  for letter in text:
    if quote:
      quote = '' if letter == quote else quote
    elif letter in QUOTES and (open_ or not parts[-1].strip()):
      quote = letter  # an apostrophe inside a word is none
    elif letter in PAIRS:
      open_.append(PAIRS[letter])
    elif letter in PAIRS.values():
      if not open_ or open_.pop() != letter:
        raise ValueError(f'{text}: there is a {letter} too many')
    if letter == ',' and not (open_ or quote):
      parts.append('')
    else:
      parts[-1] += letter
  if open_ or quote:
    raise ValueError(f'{text}: a {(open_ or [quote])[-1]} is missing')
  return [part.strip() for part in parts]


def seeds(text: str) -> tuple[int, ...]:
  """Returns the seeds of --seeds: 5 is 0 to 4, and 3,7 or 7, is a list.

  >>> seeds('3'), seeds('3,7'), seeds('7,')
  ((0, 1, 2), (3, 7), (7,))

  Raises:
    ValueError: not whole numbers, or none.
  """
  parts = [part.strip() for part in text.split(',')]
  listed = len(parts) > 1
  if listed and not parts[-1]:
    parts.pop()
  if not all(part.isdecimal() for part in parts):
    raise ValueError(
      f'--seeds={text}: write a number of seeds like 5, for 0 to 4, or a list'
      ' like 3,7'
    )
  numbers = tuple(map(int, parts))
  if listed:
    return numbers
  if not numbers[0]:
    raise ValueError(f'--seeds={text}: at least one seed is needed')
  return tuple(range(numbers[0]))


def study(
  config: Config, axes: Sequence[Axis], own_seeds: Sequence[int]
) -> Config:
  """Returns the study of all combinations of the values of axes.

  Args:
    config: of all runs; its recipes are combined with the axes, too.
    axes: of the grid; without any, there is one recipe or the config's own.
    own_seeds: of the runs; () leaves those of the config.

  Raises:
    ValueError: a value that its setting cannot have; a key twice; a study
      whose seeds are trained together.
  """
  if config.study.together:
    raise ValueError(
      'study.together=True trains all seeds in one process: run this study by'
      ' `jaxkd train`, or set study.together=False'
    )
  keys = [each.key for each in axes]
  for key in keys:
    if keys.count(key) > 1:
      raise ValueError(f'--over={key}=... is given twice: list all its values')
  before = _recipes(config)
  recipes: dict[str, Any] = {}
  for recipe, tree in before.items():
    for values in itertools.product(*(each.values for each in axes)):
      settings = [f'{k}={v}' for k, v in zip(keys, values, strict=True)]
      own = _with(tree, config, keys, settings)
      name = _unique(_name(recipe, keys, values), recipes)
      recipes[name] = own
  new = configs.of_tree(config.to_dict())
  if own_seeds:
    new.study.seeds = tuple(own_seeds)
  elif not new.study.seeds:
    new.study.seeds = (config.seed,)
  if axes:
    new.study.recipes = recipes
    new.study.only = tuple(recipes)  # in this order
    new.study.baseline = ''
  if not config.study.recipes:  # what a sweep shows is a comparison
    new.study.columns, new.study.outcome, new.study.against = (), '', ''
  return new


def _recipes(config: Config) -> dict[str, Any]:
  """Returns the recipes of a config, '' without any."""
  recipes = config.study.recipes.to_dict()
  names = config.study.only or recipes
  return {name: recipes[name] for name in names if name in recipes} or {'': {}}


def _with(
  tree: dict[str, Any],
  config: Config,
  keys: Sequence[str],
  settings: Sequence[str],
) -> dict[str, Any]:
  """Returns a recipe with further settings.

  Args:
    tree: of the recipe.
    config: that the settings are read for.
    keys: of the settings.
    settings: KEY=VALUE.
  """
  changed = configs.of_tree(config.to_dict())
  config_files.change(changed, settings)
  for key in keys:
    tree = _merged(tree, nested(key, _value(changed, key)))
  return tree


def _merged(tree: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
  """Returns a tree with the values of another one."""
  both = dict(tree)
  for key, value in changes.items():
    old = both.get(key)
    if isinstance(value, dict) and isinstance(old, dict):
      value = _merged(old, value)
    both[key] = value
  return both


def _value(config: Config, key: str) -> Any:
  """Returns the value of a setting, as plain values; quotes are left out."""
  at: Any = config
  for part in key.split('.'):
    at = at[part]
  if isinstance(at, ConfigDict):
    return at.to_dict()
  quoted = isinstance(at, str) and len(at) > 1 and at[0] == at[-1]
  return at[1:-1] if quoted and at[0] in QUOTES else at


def _name(recipe: str, keys: Sequence[str], values: Sequence[str]) -> str:
  """Returns the name of a recipe: no dots, and nothing a shell would read."""
  group, slash, own = recipe.rpartition('/')
  parts = [own] if own else []
  for key, value in zip(keys, values, strict=True):
    parts.append(f'{_short(key, keys)}={_slug(value)}')
  name = ','.join(parts)[:LONGEST] or ALONE
  return f'{group}{slash}{name}'


def _short(key: str, keys: Sequence[str]) -> str:
  """Returns the last part of a key, or all if that is no name of its own."""
  parts = [x.removesuffix('.name').split('.') for x in keys]
  own = key.removesuffix('.name').split('.')
  same = [x for x in parts if x[-1] == own[-1]]
  return own[-1] if len(same) == 1 else '_'.join(own)


def _slug(value: str) -> str:
  """Returns a value as a part of a name; 0.05 is 5e-2, since dots cannot be.

  >>> _slug('0.05'), _slug('2.0'), _slug('12.5'), _slug("{'kd': 0.9}")
  ('5e-2', '2', '125e-1', 'kd_9e-1')
  """
  words = re.sub(r'(?<![\w.])(\d+)\.(\d*)(?![\w.])', _exponent, value)
  return re.sub(r'[^A-Za-z0-9+-]+', '_', words).strip('_') or 'none'


def _exponent(match: re.Match[str]) -> str:
  whole, fraction = match[1], match[2].rstrip('0')
  digits = (whole + fraction).lstrip('0') or '0'
  return f'{digits}e-{len(fraction)}' if fraction else digits


def _unique(name: str, names: dict[str, Any]) -> str:
  """Returns a name that is not among others, with a number if need be."""
  numbers = (f'{name}_{n}' for n in itertools.count(2))
  return next(x for x in itertools.chain([name], numbers) if x not in names)
