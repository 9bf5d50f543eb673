"""The command line: help, arguments, messages, exit status."""

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from jaxkd import __version__
from jaxkd.cli.arguments import reworded
from jaxkd.cli.verbs import COMMANDS, Command
from jaxkd.commands import errors

GENERAL = """\
usage: jaxkd COMMAND ...

Knowledge distillation of image classifiers in JAX and Flax.

{commands}

examples:
  jaxkd train kd_digits --workdir=runs/kd    a first distillation, in a minute
  jaxkd eval runs/kd
  jaxkd export runs/kd student.onnx

`jaxkd COMMAND --help` has the arguments and examples of a command, and
`jaxkd --version` prints the version.
"""


class Parser(argparse.ArgumentParser):
  """A parser whose mistakes are errors that `errors.run` explains."""

  def error(self, message: str) -> NoReturn:
    """Raises a mistake in the arguments.

    Raises:
      ValueError: always.
    """
    raise ValueError(f'{message} (`{self.prog} --help` has examples)')

  def check_options(self, words: Sequence[str]) -> None:
    """Checks the names of options, before any that is needed is missed.

    Raises:
      ValueError: there is no such option.
    """
    known = [x for action in self._actions for x in action.option_strings]
    for word in words:
      name, _, value = word.partition('=')
      if not name.startswith('--') or name == '--' or name in known:
        continue
      near = difflib.get_close_matches(name, known, n=1)
      key = name.removeprefix('--')
      hint = f' Did you mean {near[0]}?' if near else ''
      if name == '--config':
        hint = f' The config comes by itself: {self.prog} {value or "CONFIG"}'
      elif _is_setting(key):
        hint = f' Settings have no dashes: {key}={value or "VALUE"}'
      self.error(f'no option {name}.{hint}')


def _is_setting(key: str) -> bool:
  from jaxkd.config import default

  return key.partition('.')[0] in default()


def _help() -> str:
  width = max(map(len, COMMANDS))
  lines = [f'  {name:{width}}  {x.summary}' for name, x in COMMANDS.items()]
  return GENERAL.format(commands='\n'.join(lines))


def parser_of(name: str, command: Command) -> Parser:
  """Returns the parser of a command's arguments."""
  examples = '\n'.join(f'  {x}' for x in command.examples)
  parser = Parser(
    prog=f'jaxkd {name}',
    description=f'{command.summary[0].upper()}{command.summary[1:]}.',
    epilog=f'examples:\n{examples}',
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  command.arguments(parser)
  parser.add_argument(
    '--debug', action='store_true', help='show where an error comes from'
  )
  return parser


def _main(words: list[str]) -> int | None:
  """Runs a command line and returns its exit status; see `main`."""
  name, *rest = words or ['--help']
  if name in ('-h', '--help', 'help') and not rest:
    print(_help(), end='')
    return 0
  if name == '--version':
    print(f'jaxkd {__version__}')
    return 0
  if name == 'help':
    name, rest = rest[0], ['--help']
  if name not in COMMANDS:
    raise ValueError(_unknown(name))
  # Messages name settings as the flags of jaxkd.main: --config.KEY=VALUE.
  rest = [x.removeprefix('--config.') for x in rest]
  parser = parser_of(name, COMMANDS[name])
  parser.check_options(rest)
  args = parser.parse_intermixed_args(rest)
  _quiet(args.debug)
  return COMMANDS[name].run(args)


def _unknown(name: str) -> str:
  """Returns what to say of a word that is no command."""
  if name.startswith('-'):
    return (
      f'a command comes first, got {name}: one of {", ".join(COMMANDS)}.'
      ' (`jaxkd --help` explains them)'
    )
  near = difflib.get_close_matches(name, COMMANDS, n=2, cutoff=0.5)
  hint = f'Did you mean {" or ".join(map(repr, near))}? ' if near else ''
  return (
    f'no command {name!r}. {hint}There are: {", ".join(COMMANDS)}. (`jaxkd'
    ' --help` explains them)'
  )


def _quiet(debug: bool) -> None:
  """Hides what orbax logs: whole tracebacks of errors that it also raises."""
  from absl import logging

  logging.set_verbosity(logging.WARNING if debug else logging.FATAL)


def _find_own_modules() -> None:
  """Lets configs name modules in the current folder, as `python -m` does."""
  here = os.getcwd()
  if not (sys.flags.safe_path or here in sys.path or '' in sys.path):
    sys.path.insert(0, here)


def main(arguments: list[str] | None = None) -> None:
  """Runs the command; a failure ends in a message and a status.

  See `errors.run` for the statuses. --debug shows a traceback instead.

  Args:
    arguments: of the command line; None takes the process's.
  """
  words = sys.argv[1:] if arguments is None else list(arguments)
  status = None

  def command() -> None:
    nonlocal status
    _find_own_modules()
    status = _main(words)

  errors.run(command, debug='--debug' in words, reworded=reworded)
  if status:
    sys.exit(status)
