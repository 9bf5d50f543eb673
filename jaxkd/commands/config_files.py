"""Config files: found by name, listed, loaded, and changed by settings."""

import ast
import importlib.resources
import importlib.util
import inspect
import pathlib
import types
from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from jaxkd import disk, text
from jaxkd.allocation import keep_freed_memory
from jaxkd.catalog import UnknownNameError, suggestion
from jaxkd.config import Config, check

OWN = pathlib.Path('configs')  # in the folder where a command is called
MAPPING = (
  '. The config file has a mapping there, which only another mapping replaces,'
  " like \"{'name': 'dkd'}\" or \"{'kd': 0.9, 'crd': 0.8}\""
)


def installed() -> pathlib.Path:
  """Returns the folder of the config files that come with jaxkd.

  It is jaxkd/configs where jaxkd is installed, and configs/ in a checkout.
  """
  package = pathlib.Path(str(importlib.resources.files('jaxkd')))
  folder = package / 'configs'
  return folder if folder.is_dir() else package.parent / 'configs'


def names() -> dict[str, pathlib.Path]:
  """Returns the config files that have names; those in ./configs come first."""
  found = {}
  for folder in (installed(), OWN):
    files = sorted(folder.glob('*.py'))
    found |= {x.stem: x for x in files if not x.stem.startswith('_')}
  return found


def find(name: str) -> pathlib.Path:
  """Returns the path of a config file.

  Args:
    name: a path, with or without .py; or the name of a file in ./configs or of
      one that comes with jaxkd, which configs/NAME.py is, too.

  Raises:
    FileNotFoundError: a path where there is no file.
    KeyError: no such name, with suggestions.
  """
  path = disk.expanded(name)
  for each in (path, path.with_name(f'{path.name}.py')):
    if path.name and each.is_file():
      return each
  known = names()
  if path.parent in (pathlib.Path(), OWN):
    stem = path.name.removesuffix('.py')
    if stem in known:
      return known[stem]
    raise UnknownNameError(
      f'no config {stem!r}, neither in ./configs nor in jaxkd.'
      f' {suggestion(stem, known)}'
    )
  raise FileNotFoundError(
    f'no config file {path}: check the path, or give one of the names that'
    ' `jaxkd configs` lists'
  )


def load(name: str) -> Config:
  """Returns the config of a file.

  Args:
    name: see `find`; what follows a colon is the argument of its get_config, as
      in kd_cifar:resnet20,resnet8.

  Raises:
    FileNotFoundError: see `find`.
    KeyError: see `find`.
    ValueError: the file is no config file, or takes no such argument.
  """
  name, colon, argument = name.partition(':')
  path = find(name)
  function = getattr(_module(path), 'get_config', None)
  if function is None:
    raise ValueError(f'{path} is not a config file: it has no get_config()')
  arguments = [argument] if colon else []
  try:
    inspect.signature(function).bind(*arguments)
  except TypeError as error:
    raise ValueError(
      f'{path} takes no argument, and {argument!r} follows the colon'
      if colon
      else f'{path} needs an argument: {name}:ARGUMENT. `jaxkd configs {name}`'
      ' shows the file'
    ) from error
  config = function(*arguments)
  if not isinstance(config, ConfigDict):
    raise ValueError(
      f'get_config() of {path} must return a config like that of'
      f' jaxkd.config.default(), got {type(config).__name__}'
    )
  return config


def _module(path: pathlib.Path) -> types.ModuleType:
  """Runs a file and returns its names."""
  spec = importlib.util.spec_from_file_location(f'config_{path.stem}', path)
  if spec is None or spec.loader is None:
    raise ValueError(f'{path} is not a config file: its suffix is not .py')
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
  except SyntaxError as error:
    raise ValueError(
      f'{error.filename}, line {error.lineno}, is not Python: {error.msg}'
    ) from error
  return module


def change(config: Config, settings: Sequence[str]) -> None:
  """Changes settings of a config, as --config.KEY=VALUE does.

  Args:
    config: to be changed.
    settings: KEY=VALUE; the key's dots separate levels.

  Raises:
    ValueError: not of this form, of another type, or in a section that does not
      exist. Keys that do not exist are found by `jaxkd.config.check`.
  """
  for each in settings:
    key, equals, value = each.partition('=')
    if not (equals and key):
      raise ValueError(
        f'{each!r} is not a setting: write KEY=VALUE, like epochs=10 or'
        ' student.name=resnet8'
      )
    section = isinstance(_value(config, key), ConfigDict)
    if section and not value.lstrip().startswith('{'):
      name = value or 'NAME'
      raise ValueError(
        f'{each}: {key} is a section of the config. Change a setting in it, as'
        f' in {key}.name={name}, or the whole of it by a mapping:'
        f' "{key}={{\'name\': {name!r}}}"'
      )
  words = ['jaxkd', *(f'--config.{each}' for each in settings)]
  values = flags.FlagValues()
  try:
    config_flags.DEFINE_config_dict(
      'config',
      config,
      flag_values=values,
      lock_config=False,
      accept_new_attributes=True,
      sys_argv=words,
    )
    values(words)
  except flags.Error as error:
    said = str(error).replace('flag --config.', '').replace('--config.', '')
    raise ValueError(said + hint(error) + _present(config, said)) from error
  except (KeyError, TypeError) as error:
    raise ValueError(
      f'{", ".join(settings)}: the config has no such section ({error}). A new'
      ' one is set as a whole, like'
      " method.objective=\"{'kd': 0.9, 'crd': 0.8}\""
    ) from error


def _value(config: Config, key: str) -> Any:
  """Returns the value of a key with dots, or None if there is none."""
  at: Any = config
  for part in key.split('.'):
    at = at.get(part) if isinstance(at, ConfigDict) else None
  return at


def _present(config: Config, message: str) -> str:
  """Returns the value that a setting has where another one is refused."""
  key, equals, _ = message.partition('=')
  value = _value(config, key)
  shown = equals and value is not None and not isinstance(value, ConfigDict)
  return f'. The config has {key}={value!r}' if shown else ''


def hint(error: flags.Error) -> str:
  """Returns what to write where a mapping is expected, or ''."""
  return MAPPING if 'as a ConfigDict' in str(error) else ''


def prepare(config: Config) -> Config:
  """Checks a config, makes its devices, and returns it.

  Args:
    config: before anything is computed.

  Raises:
    KeyError: see `jaxkd.config.check`.
    ValueError: likewise; there is no device.
  """
  from jaxkd.training.mesh import check_devices, use_cores

  check(config)
  keep_freed_memory()
  use_cores(config.batch_size)
  check_devices()
  return config


def description(path: pathlib.Path) -> str:
  """Returns the first line of a file's docstring, or ''."""
  try:
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ''
  except (SyntaxError, ValueError):
    return '(not Python)'
  return docstring.partition('\n')[0]


def listing() -> str:
  """Returns a table of the config files that have names."""
  rows: list[tuple[Any, ...]] = [('config', 'what it trains')]
  rows += [(name, description(path)) for name, path in sorted(names().items())]
  return (
    f'{text.table(rows)}\n\n'
    '`jaxkd configs NAME` prints one, `jaxkd describe NAME` its networks, and'
    ' `jaxkd train\nNAME --workdir=DIR` trains them. They are in'
    f' {installed()}.'
  )
