"""The command of each run of a study: `jaxkd train CONFIG ... KEY=VALUE`."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from jaxkd import config as configs
from jaxkd.commands import config_files
from jaxkd.config import Config
from jaxkd.runs.members import Member


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
  # A run has no study of its own; and what is given twice may be added up.
  kept = [x for x in settings if not x.startswith(('study.', 'study='))]
  own = _extra(_load(name, kept), member.config, vary)
  keys = {each.partition('=')[0] for each in own}
  kept = [x for x in kept if not _changed(x.partition('=')[0], keys)]
  own = _extra(_load(name, kept), member.config, vary)
  config = _load(name, [*kept, *own])
  left = configs.differing(
    configs.resolved(config), configs.resolved(member.config)
  )
  if left:
    raise ValueError(
      f'recipe {member.recipe!r} cannot be written as settings of a command:'
      + ''.join(f'\n  {line}' for line in left)
    )
  return ('train', name, f'--workdir={member.folder}', *kept, *own)


def _changed(key: str, keys: Collection[str]) -> bool:
  """Returns whether a setting, or a section that it is in, is among others."""
  return any(key == each or key.startswith(f'{each}.') for each in keys)


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
  old, new = dict(_flat(before)), dict(_flat(after))
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


def _flat(tree: Mapping[str, Any], at: str = '') -> Iterator[tuple[str, Any]]:
  """Yields settings by name; mappings whose keys are free are values."""
  for key, value in tree.items():
    name = f'{at}{key}'
    free = name in configs.FREE and name != 'method' or at == 'method.'
    if isinstance(value, Mapping) and not free:
      yield from _flat(value, f'{name}.')
    else:
      yield name, value


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
