"""A lock on the folder of a run: one process at a time writes to it.

The lock is a file in the folder, with the host and the process that holds it.
The holder has it locked for the kernel, too (flock), which forgets that when
the process ends, however it ends: a killed process never stops a resume on its
own machine. A process on another machine cannot be looked at, and not every
network file system shares flock between machines; so the holder touches the
file every `BEAT` seconds, and whoever finds the file of another machine waits
for a sign of life before taking it.
"""

import contextlib
import datetime
import json
import os
import pathlib
import shlex
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from jaxkd.training.progress import say

try:
  import fcntl
except ImportError:  # not on Windows
  fcntl = None

NAME = 'lock.json'
BEAT = 20.0  # seconds between two signs of life
# Seconds without one after which another machine's process counts as dead:
# network file systems keep a file's time in memory for a minute.
PATIENCE = 120.0
SETTLED = 0.5  # seconds after which a file is as the last writer left it
OLD = 3600.0  # seconds; clocks of two machines differ by less


class LockedError(ValueError):
  """Another process works on the folder."""


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
  """Holds the lock on a folder, which is made if need be.

  If the folder is still empty in the end, it is removed again.

  Raises:
    LockedError: another process holds the lock.
    OSError: the folder cannot be written to.
  """
  made = [x for x in (folder, *folder.parents) if not x.exists()]
  folder.mkdir(parents=True, exist_ok=True)
  path = folder / NAME
  try:
    file = _acquire(path)
    try:
      with _beating(path):
        yield
    finally:
      path.unlink(missing_ok=True)
      os.close(file)
  finally:
    with contextlib.suppress(OSError):  # there are results in it
      for each in made:
        each.rmdir()


def holder(folder: pathlib.Path) -> dict[str, Any] | None:
  """Returns what the lock of a folder says, if a process holds it.

  It does not wait: another machine's process counts as alive as long as its
  last sign of life is recent.

  Args:
    folder: of a run or a study; it need not exist.
  """
  path = folder / NAME
  own = _read(path)
  if not own:
    return None
  if own.get('host') == socket.gethostname() and own.get('boot') == _boot():
    alive = _runs(own.get('pid'), own.get('process_start'))
    return own if alive or own.get('pid') == os.getpid() else None
  try:
    return own if time.time() - path.stat().st_mtime < PATIENCE else None
  except FileNotFoundError:
    return None


def _acquire(path: pathlib.Path) -> int:
  """Returns the open file of a lock that this process holds now."""
  while True:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
      known = _lock(path, file)
      if not _is(path, file):  # its holder has ended, and removed it
        os.close(file)
        continue
      holder = _read(path)
      if holder and _lives(path, holder, known):
        raise _refusal(path, holder)
      if _write(path, file, known):
        return file
      os.close(file)  # another process was as quick
    except BaseException:
      with contextlib.suppress(OSError):
        os.close(file)
      raise


def _write(path: pathlib.Path, file: int, known: bool) -> bool:
  """Writes who this process is; returns whether it holds the lock then.

  Where the kernel does not lock files, two processes can come here at once; the
  last to write has the lock.
  """
  text = json.dumps(_self(), indent=2) + '\n'
  os.ftruncate(file, 0)
  os.pwrite(file, text.encode(), 0)
  if known:
    return True
  time.sleep(SETTLED)
  return _is(path, file) and path.read_text() == text


def _lock(path: pathlib.Path, file: int) -> bool:
  """Locks an open file for the kernel.

  Returns:
    Whether this machine's processes are known not to hold it; False where the
    file system has no such locks.

  Raises:
    LockedError: one of them, or of another machine, holds it.
  """
  if fcntl is None:
    return False
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    raise _refusal(path, _read(path)) from None
  except OSError:  # the file system does not support it
    return False
  return True


def _is(path: pathlib.Path, file: int) -> bool:
  """Returns whether an open file is still the one at the path."""
  try:
    return os.path.samestat(os.stat(path), os.fstat(file))
  except FileNotFoundError:
    return False


def _read(path: pathlib.Path) -> dict[str, Any]:
  """Returns what a lock's holder has written; {} if nothing or half of it."""
  try:
    holder = json.loads(path.read_text())
  except (OSError, ValueError):
    return {}
  return holder if isinstance(holder, dict) else {}


def _self() -> dict[str, Any]:
  """Returns what a lock says about this process."""
  now = datetime.datetime.now().astimezone()
  return {
    'host': socket.gethostname(),
    'boot': _boot(),
    'pid': os.getpid(),
    'process_start': _start_of(os.getpid()),
    'since': now.isoformat(timespec='seconds'),
    'command': shlex.join(sys.argv),
  }


def _boot() -> str:
  """Returns what tells this machine, since it was started, from others."""
  try:
    text = pathlib.Path('/proc/sys/kernel/random/boot_id').read_text()
  except OSError:
    return ''
  return text.strip()


def _start_of(pid: int) -> str:
  """Returns when a process was started, in the kernel's unit; '' if unknown."""
  try:
    text = pathlib.Path(f'/proc/{pid}/stat').read_text()
  except OSError:
    return ''
  # The name, in parentheses, may contain anything.
  return text.rpartition(')')[2].split()[19]


def _lives(path: pathlib.Path, holder: dict[str, Any], known: bool) -> bool:
  """Returns whether the process that a lock names still holds it.

  Args:
    path: of the lock.
    holder: what it says.
    known: see `_lock`.
  """
  if holder.get('host') == socket.gethostname():
    if holder.get('boot') == _boot():
      start = holder.get('process_start')
      return not known and _runs(holder.get('pid'), start)
    # Started again since, or another machine of this name.
    return _gives_sign_of_life(path, holder, PATIENCE)
  if known and holder.get('boot') == _boot() != '':
    return False  # another container on this machine
  return _gives_sign_of_life(path, holder, OLD)


def _runs(pid: Any, start: Any) -> bool:
  """Returns whether a process of this machine exists, and is that process."""
  if not isinstance(pid, int) or pid == os.getpid():
    return False
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False
  except PermissionError:
    pass  # another user's
  return not start or _start_of(pid) in ('', start)


def _gives_sign_of_life(
  path: pathlib.Path, holder: dict[str, Any], old: float
) -> bool:
  """Waits for the holder of a lock on another machine to touch it.

  Args:
    path: of the lock.
    holder: what it says.
    old: seconds since the last sign of life that need no waiting.
  """

  def touched() -> float:
    try:
      return path.stat().st_mtime
    except FileNotFoundError:
      return 0.0

  first = touched()
  if time.time() - first > old:
    return False
  say(
    f'{path.parent} was in use by {_who(holder)}: waiting up to'
    f' {PATIENCE:.0f} s for a sign of life of it'
  )
  end = time.monotonic() + PATIENCE
  while time.monotonic() < end:
    time.sleep(min(1.0, PATIENCE))
    if touched() != first:
      return True
  return False


def _who(holder: dict[str, Any]) -> str:
  if not holder:
    return 'another process'
  return (
    f'process {holder.get("pid")} on {holder.get("host")}, since'
    f' {holder.get("since")}'
  )


def _refusal(path: pathlib.Path, holder: dict[str, Any]) -> LockedError:
  command = holder.get('command')
  return LockedError(
    f'{path.parent} is in use by {_who(holder)}'
    f'{f" ({command})" if command else ""}: wait for it, stop it, or choose'
    ' another --workdir. The lock ends with the process; only if you know that'
    f' there is none, remove {path}'
  )


@contextlib.contextmanager
def _beating(path: pathlib.Path) -> Iterator[None]:
  """Touches a file every `BEAT` seconds, in a thread."""
  ended = threading.Event()

  def beat():
    while not ended.wait(BEAT):
      with contextlib.suppress(OSError):
        os.utime(path)

  thread = threading.Thread(target=beat, name='jaxkd-lock', daemon=True)
  thread.start()
  try:
    yield
  finally:
    ended.set()
    thread.join()
