"""What the command line says when it fails, and its exit status.

A mistake of the user's, and whatever the machine lacks, is explained on one
screen; anything else is a fault of jaxkd, and says so.
"""

import dis
import errno
import importlib.metadata
import json
import os
import pathlib
import signal
import sys
import sysconfig
import tempfile
import threading
import traceback
import types
import warnings
from collections.abc import Callable
from typing import Any

MISTAKE = 1
FAULT = 70  # EX_SOFTWARE of sysexits.h
INTERRUPTED = 128  # plus the number of the signal, as shells have it
EXPLAINED = (ImportError, KeyError, ValueError)  # where jaxkd raises them
SIGNALS = ('SIGTERM', 'SIGHUP')  # besides Ctrl-C; Windows lacks the second
PACKAGE = pathlib.Path(__file__).parents[1]
# The Python and the libraries that are installed.
LIBRARIES = tuple(
  pathlib.Path(os.path.realpath(path))
  for name, path in sysconfig.get_paths().items()
  if name.endswith(('lib', 'stdlib'))  # data is the folder around them
)
OTHER_PLACE = 'Choose a place that you may write to, or change its permissions'
SPACE = (
  'Saved files are intact: free some space, and the same command resumes the'
  ' run'
)
FILES = 'Raise the limit of open files, for example by `ulimit -n 8192`'
REMEDIES = {
  errno.EACCES: OTHER_PLACE,
  errno.EPERM: OTHER_PLACE,
  errno.EROFS: OTHER_PLACE,
  errno.EDQUOT: SPACE,
  errno.EFBIG: SPACE,
  errno.ENOSPC: SPACE,
  errno.EMFILE: FILES,
  errno.ENFILE: FILES,
}
OUT_OF_MEMORY = (
  'The memory is full: set a smaller --config.batch_size or'
  ' --config.compute_dtype=bfloat16 in a new --workdir; or, where other'
  ' processes take the memory, stop them and run the same command again'
)


class Terminated(BaseException):
  """A signal that ends the process, as an exception that cleans up."""

  def __init__(self, number: int):
    super().__init__(number)
    self.number = number


def run(
  command: Callable[[], object],
  *,
  debug: bool = False,
  parsed: Callable[[], bool] = lambda: True,
  reworded: Callable[[str], str] = str,
) -> None:
  """Runs a command; a failure ends in a message and an exit status.

  The status is 1 for what a user can mend, 70 for a fault of jaxkd, and 128
  plus the number of a signal: 130 after Ctrl-C, 143 after SIGTERM.

  Args:
    command: to be called.
    debug: whether errors are raised, with their traceback.
    parsed: whether the command line could be parsed, asked after an error.
    reworded: names flags in a message as the command line has them.
  """
  before = _catch_signals()
  try:
    command()
  except Terminated as ended:
    _interrupted('terminated', ended.number)
  except KeyboardInterrupt:
    _interrupted('interrupted', signal.SIGINT)
  except BrokenPipeError:  # as of `... | head`; nobody reads a message
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(INTERRUPTED + signal.SIGPIPE)
  except Exception as error:
    if debug:
      raise
    message = explain(error, parsed())
    message = message and reworded(message)
    status = FAULT if message is None else MISTAKE
    message = f'{message}\n(--debug shows where)' if message else fault(error)
    print(f'\njaxkd: {message}', file=sys.stderr)
    sys.exit(status)
  finally:
    for name, handler in before.items():
      signal.signal(name, handler)


def _interrupted(how: str, number: int) -> None:
  # What a library was about to write is abandoned, which is no news.
  warnings.filterwarnings('ignore', 'coroutine', RuntimeWarning)
  print(f'\njaxkd: {how}; the same command resumes it', file=sys.stderr)
  sys.exit(INTERRUPTED + number)


def _catch_signals() -> dict[int, Any]:
  """Turns signals into `Terminated`; returns their handlers before.

  A signal that is ignored, as under nohup, stays so.
  """
  if threading.current_thread() is not threading.main_thread():
    return {}

  def end(number: int, frame: types.FrameType | None) -> None:
    del frame
    raise Terminated(number)

  numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
  before = {number: signal.getsignal(number) for number in numbers}
  default = {n: x for n, x in before.items() if x == signal.SIG_DFL}
  for number in default:
    signal.signal(number, end)
  return default


def explain(error: BaseException, parsed: bool = True) -> str | None:
  """Returns an error's message, with a remedy where it has none.

  Args:
    error: any.
    parsed: False if the command line could not be parsed.

  Returns:
    None if it is a fault of jaxkd.
  """
  place = place_of_user(error)
  if isinstance(error, KeyError | TypeError) and not (parsed or place):
    return (
      f'--config... names a section that the config does not have: {error}. A'
      ' new one is set as a whole, like'
      " --config.method.objective=\"{'kd': 0.9, 'crd': 0.8}\""
    )
  if isinstance(error, MemoryError) or 'RESOURCE_EXHAUSTED' in str(error):
    return f'{_first_line(error)}\n{OUT_OF_MEMORY}'
  if isinstance(error, OSError):
    return _explain_system(error)
  if isinstance(error, json.JSONDecodeError):
    return f'a JSON file is damaged: {error}'
  if isinstance(error, EXPLAINED) and _raised_here(_innermost(error)):
    return str(error)
  if place:
    return f'{type(error).__name__} in {place}: {error}'
  if not parsed:
    return str(error)
  if isinstance(error, ImportError) or _outdated():
    lines = _outdated() or ['a library is missing, or does not fit']
    return (
      f'{error}\n' + '\n'.join(lines) + '\nInstall what jaxkd needs by `pip'
      " install --upgrade 'jaxkd'`"
    )
  return None


def _explain_system(error: OSError) -> str:
  if error.errno is None:
    return str(error)
  default = 'Check the path and its permissions'
  return f'{error}. {REMEDIES.get(error.errno, default)}'


def _first_line(error: BaseException) -> str:
  return (str(error) or type(error).__name__).splitlines()[0][:300]


def _innermost(error: BaseException) -> types.TracebackType | None:
  """Returns the end of an error's traceback, where it was raised."""
  place = error.__traceback__
  while place is not None and place.tb_next is not None:
    place = place.tb_next
  return place


def _raised_here(place: types.TracebackType | None) -> bool:
  """Returns whether a `raise` of jaxkd's, not an operation, made an error.

  What jaxkd raises it explains; an operation that fails was not expected to.
  An error without a traceback was never raised, and is taken as explained.
  """
  if place is None:
    return True
  code = place.tb_frame.f_code
  if PACKAGE not in pathlib.Path(code.co_filename).parents:
    return False
  return dis.opname[code.co_code[place.tb_lasti]] == 'RAISE_VARARGS'


def first_of(error: BaseException) -> BaseException:
  """Returns the error in whose handling, in several steps, an error was raised.

  It is the error itself if there was none before.
  """
  while error.__context__ is not None:
    error = error.__context__
  return error


def place_of_user(error: BaseException) -> str:
  """Returns the last place in the user's own code on an error's way; or ''."""
  own = ''
  for frame in traceback.extract_tb(error.__traceback__):
    path = pathlib.Path(os.path.realpath(frame.filename))
    theirs = any(map(path.is_relative_to, (PACKAGE, *LIBRARIES)))
    if not theirs and path.exists():
      own = f'{frame.filename}, line {frame.lineno}'
  return own


def _outdated() -> list[str]:
  """Returns a line for each installed library that is too old for jaxkd."""
  try:
    from packaging.requirements import Requirement

    needed = map(Requirement, importlib.metadata.requires('jaxkd') or ())
    lines = []
    for each in needed:
      if each.marker is None or each.marker.evaluate({'extra': ''}):
        version = importlib.metadata.version(each.name)
        if version not in each.specifier:
          lines.append(f'{each.name} {version} is installed, not {each}')
  except ImportError:  # also PackageNotFoundError
    return []
  return lines


def fault(error: BaseException) -> str:
  """Returns the message of a fault of jaxkd, and keeps its traceback."""
  text = ''.join(traceback.format_exception(error))
  frames = traceback.extract_tb(error.__traceback__)
  own = [x for x in frames if x.filename.startswith(str(PACKAGE))]
  place = f', in {own[-1].filename}, line {own[-1].lineno}' if own else ''
  try:
    with tempfile.NamedTemporaryFile(
      'w', prefix='jaxkd-', suffix='.txt', delete=False
    ) as file:
      file.write(text)
    kept = f', which is also in {file.name}'
  except OSError:
    kept = ''
  return (
    f'{type(error).__name__}: {_first_line(error)}{place}\n'
    'This is a fault of jaxkd, not of your command: please report it with the'
    f' command and the output of --debug{kept}'
  )
