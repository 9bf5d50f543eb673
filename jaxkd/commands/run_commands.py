"""The command of each run of a study: `jaxkd train CONFIG ... KEY=VALUE`."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxkd import config as configs
from jaxkd.commands import config_files
from jaxkd.config import Config
from jaxkd.runs.study import Member


def words(
  name: str,
  settings: Sequence[str],
  member: Member,
  vary: Sequence[str] = ('seed',),
) -> tuple[str, ...]:
  """Returns the command of a run, after `jaxkd`.

  Args:
    name: of the config, with its argument.
    settings: KEY=VALUE, that all runs have.
    member: the run.
    vary: the settings that take the seed.

  Raises:
    ValueError: settings cannot say what the run's config is.
  """
  config = _load(name, settings)
  own = [*_extra(config, member.config, vary)]
  config_files.change(config, own)
  left = configs.differing(
    configs.resolved(config), configs.resolved(member.config)
  )
  if left:
    raise ValueError(
      f'recipe {member.recipe!r} cannot be written as settings of a command:'
      + ''.join(f'\n  {line}' for line in left)
    )
  return ('train', name, f'--workdir={member.folder}', *settings, *own)


def _load(name: str, settings: Sequence[str]) -> Config:
  config = config_files.load(name)
  config_files.change(config, settings)
  return config


def _extra(config: Config, wanted: Config, vary: Sequence[str]) -> list[str]:
  """Returns the settings that change a config into another one."""
  before, after = config.to_dict(), wanted.to_dict()
  trees = []
  if before['study']['recipes']:
    trees.append('study.recipes={}')
    before['study']['recipes'] = {}
  if before['method'].get('name') != after['method'].get('name'):
    trees.append(f'method={after["method"]!r}')
    before['method'] = after['method']
  old, new = dict(configs.flat(before)), dict(configs.flat(after))
  keys = [
    key
    for key, value in new.items()
    if key not in vary
    and configs.as_json(value) != configs.as_json(old.get(key, _NOTHING))
  ]
  return [
    *trees,
    *(f'{key}={_text(config, key, new[key])}' for key in keys),
    *(f'{key}={new[key]}' for key in vary if key in new),
  ]


_NOTHING = '(nothing)'


def _text(config: Config, key: str, value: Any) -> str:
  """Returns how a value is written, so that it is read as what it is."""
  for text in (str(value), repr(value)):
    copy = configs.of_tree(config.to_dict())
    try:
      config_files.change(copy, [f'{key}={text}'])
    except ValueError:
      continue
    read: Any = copy.to_dict()
    for part in key.split('.'):
      read = read.get(part) if isinstance(read, Mapping) else None
    if configs.as_json(read) == configs.as_json(value):
      return text
  return str(value)
