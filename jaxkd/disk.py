"""Files: paths as users write them, and atomic writing.

A reader sees a complete file or none.
"""

import contextlib
import json
import math
import os
import pathlib
import re
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

CARD = 'network.json'  # the model card, beside or in a file of variables
NETWORKS = 'networks'  # the folder of networks in the folder of a run
PARTIAL = '.partial'  # suffix of unfinished files, which nothing reads
VARIABLE = re.compile(r'\$(?:\{(\w+)\}|(\w+))')


def expanded(path: str | os.PathLike[str]) -> pathlib.Path:
  """Returns a user's path, with ~, ~USER, $NAME and ${NAME} replaced.

  A shell replaces them only in some places: not in --workdir=~/run, and not in
  a config file. Every path of a command line or a config goes through here;
  what is recorded is what the user wrote, so that a run can be moved.

  Raises:
    ValueError: a variable that is not set; a user or a home that is unknown.
  """
  text = os.fspath(path)
  for match in VARIABLE.finditer(text):
    name = match[1] or match[2]
    if name not in os.environ:
      raise ValueError(
        f'the path {text!r} contains ${name}, and this environment variable is'
        ' not set: set it, or write the path without it'
      )
  text = VARIABLE.sub(lambda match: os.environ[match[1] or match[2]], text)
  home = os.path.expanduser(text)
  if home.startswith('~'):  # it is left as it is
    raise ValueError(
      f'the path {os.fspath(path)!r} begins with a home folder that is unknown:'
      ' set $HOME, or write the path without ~ (./~ for a file of that name)'
    )
  return pathlib.Path(home)


def folder_of(
  value: str, variable: str, default: str, key: str
) -> pathlib.Path:
  """Returns a folder that has a default.

  Args:
    value: of the setting; '' takes that of the environment variable, or else
      the default.
    variable: its name.
    default: a path, which may begin with ~.
    key: name of the setting, for the message.

  Raises:
    ValueError: the home folder is needed and unknown.
  """
  path = value or os.environ.get(variable, '')
  if path:
    return expanded(path)
  try:
    return expanded(default)
  except ValueError as error:
    raise ValueError(
      f'the folder {default} cannot be used, since the home folder is unknown:'
      f' set --config.{key}=FOLDER, or the environment variable {variable}'
    ) from error


def check_writable(folder: pathlib.Path, what: str) -> None:
  """Checks that a folder can be written to, or can be made; it is not made.

  Args:
    folder: to be written to later.
    what: its name in the message, such as 'the cache of teachers'.

  Raises:
    OSError: of the kind that the system gave, with the remedy.
  """
  places = (folder.absolute(), *folder.absolute().parents)
  place = next(x for x in places if os.path.lexists(x))
  try:
    with tempfile.TemporaryFile(dir=place):
      pass
  except OSError as error:
    reason = error.strerror
    if not place.is_dir():
      reason = f'{place} is not a folder'
    raise type(error)(
      f'{what}, {folder}, cannot be written to ({reason}): choose another'
    ) from error


def check_output(path: pathlib.Path) -> None:
  """Checks that a file can be written, before the work for it is done.

  Raises:
    OSError: it is a folder, or its folder cannot be made or written to.
  """
  if path.is_dir():
    raise IsADirectoryError(f'{path} is a folder: name the file in it to write')
  check_writable(path.parent, 'the folder of the output')


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a temporary path that is renamed to `path` on success.

  Args:
    path: the path of the file; its folder exists.
  """
  partial = path.with_name(path.name + PARTIAL)
  yield partial
  os.replace(partial, path)


def plain(value: Any) -> Any:
  """Returns a value as plain JSON has it: tuples as lists, NaN as None.

  JSON has no numbers that are not finite (RFC 8259, section 6).
  """
  if isinstance(value, Mapping):
    return {key: plain(x) for key, x in value.items()}
  if isinstance(value, list | tuple):
    return [plain(x) for x in value]
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value


def json_text(value: Any, indent: int | None = None) -> str:
  """Returns a value as JSON; a number that is not finite is null."""
  return json.dumps(plain(value), indent=indent, allow_nan=False)


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes a value to a JSON file, atomically; see `json_text`."""
  text = json_text(value, indent=2) + '\n'
  with replacing(path) as partial:
    partial.write_text(text)
