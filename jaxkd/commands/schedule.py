"""The runs of a sweep, one after another or several at a time."""

import dataclasses
import pathlib
import re
import signal
import time
from collections.abc import Callable, Mapping, Sequence

from jaxkd.commands.launchers import Launcher, Running
from jaxkd.runs import folder, layout, lock

LOG = 'output.log'  # of a run, in its folder
PAUSE = 0.2  # seconds between two looks at the runs
LAST = 400  # letters of a message that are shown


@dataclasses.dataclass(frozen=True)
class Job:
  """A run to be started.

  name: as it is shown.
  words: of its command, after `jaxkd`.
  folder: of the run.
  batch_size: of the run.
  prepared: phase -> key of the network that it prepares, see `cache.prepared`.
  """

  name: str
  words: tuple[str, ...]
  folder: pathlib.Path
  batch_size: int
  prepared: Mapping[str, str]

  @property
  def finished(self) -> bool:
    """Whether the run has results."""
    return folder.read_summary(self.folder) is not None


@dataclasses.dataclass(frozen=True)
class Outcome:
  """How a run ended.

  job: which.
  reason: why it failed; '' if it did not.
  seconds: that it took.
  """

  job: Job
  reason: str
  seconds: float


@dataclasses.dataclass
class _Active:
  job: Job
  running: Running
  slot: int
  start: float
  offset: int  # in the log, where this attempt begins


class Schedule:
  """Runs that are started when a place is free and nothing is in their way.

  Of runs that prepare the same network, such as a teacher, the first goes ahead
  until that network is trained; the others then take it from the cache. A run
  that another process works on is waited for.
  """

  def __init__(
    self,
    jobs: Sequence[Job],
    launcher: Launcher,
    places: int,
    report: Callable[[Outcome], None],
    note: Callable[[str], None],
  ):
    """Plans the runs.

    Args:
      jobs: those that are not finished.
      launcher: that starts them.
      places: how many at a time.
      report: called with each run that has ended.
      note: called with what else is worth a line.
    """
    self._jobs = tuple(jobs)
    self._waiting = list(jobs)
    self._launcher = launcher
    self._free = list(range(places))
    self._report = report
    self._note = note
    self._active: list[_Active] = []
    self._trained: set[str] = set()  # keys of prepared networks
    self._noted: set[str] = set()  # names of runs that are waited for

  def run(self) -> None:
    """Starts all runs and waits for them; stops them if it is interrupted."""
    try:
      while self._waiting or self._active:
        self._start()
        self._end()
        if self._waiting or self._active:
          time.sleep(PAUSE)
    finally:
      for each in self._active:
        each.running.stop()
      for each in self._active:
        each.running.wait()

  def _start(self) -> None:
    """Starts as many runs as there are places."""
    for job in list(self._waiting):
      if not self._free:
        return
      if self._held(job) or self._ahead(job):
        continue
      self._waiting.remove(job)
      if job.finished:  # by the process that was waited for
        self._report(Outcome(job, '', 0.0))
        continue
      slot, log = self._free.pop(0), job.folder / LOG
      offset = log.stat().st_size if log.exists() else 0
      running = self._launcher.start(job.words, log, slot, job.batch_size)
      self._active.append(_Active(job, running, slot, time.monotonic(), offset))

  def _end(self) -> None:
    """Takes note of the runs that have ended."""
    for each in list(self._active):
      status = each.running.poll()
      if status is None:
        continue
      self._active.remove(each)
      self._free.append(each.slot)
      self._free.sort()
      seconds = time.monotonic() - each.start
      if each.job.finished:
        self._report(Outcome(each.job, '', seconds))
      elif lock.holder(each.job.folder):
        self._waiting.append(each.job)  # another process was quicker
      else:
        text = _tail(each.job.folder / LOG, each.offset)
        self._report(Outcome(each.job, reason(status, text), seconds))

  def _held(self, job: Job) -> bool:
    """Returns whether another process works on a run."""
    holder = lock.holder(job.folder)
    if holder and job.name not in self._noted:
      self._noted.add(job.name)
      self._note(
        f'waiting for {job.name}: process {holder.get("pid")} on'
        f' {holder.get("host")} is working on it'
      )
    return holder is not None

  def _ahead(self, job: Job) -> bool:
    """Returns whether another run is training a network that a run needs."""
    return any(
      key in each.job.prepared.values() and not self._is_trained(key)
      for each in self._active
      for key in job.prepared.values()
    )

  def _is_trained(self, key: str) -> bool:
    """Returns whether a run has finished the phase that prepares a network."""
    if key not in self._trained:
      done = any(
        layout.phase(job.folder, phase).exists()
        for job in self._jobs
        for phase, own in job.prepared.items()
        if own == key
      )
      self._trained |= {key} if done else set()
    return key in self._trained


def leaders(jobs: Sequence[Job]) -> list[Job]:
  """Returns the first run that prepares each network that others need, too."""
  by_key: dict[str, list[Job]] = {}
  for job in jobs:
    for key in job.prepared.values():
      by_key.setdefault(key, []).append(job)
  first = {x[0].name: x[0] for x in by_key.values() if len(x) > 1}
  return list(first.values())


def reason(status: int, text: str) -> str:
  """Returns why a run failed, in a line.

  Args:
    status: its exit status, below 0 for a signal.
    text: what it wrote.
  """
  messages = re.findall(r'^jaxkd: (.*(?:\n.+)*)', text, re.MULTILINE)
  if status < 0:
    name = signal.Signals(-status).name
    memory = ' (is the memory full?)' if name == 'SIGKILL' else ''
    return f'killed by {name}{memory}'
  if messages:
    words = messages[-1].removesuffix('(--debug shows where)')
    return ' '.join(words.split())[:LAST]
  lines = [line for line in text.splitlines() if line.strip()]
  last = f': {lines[-1].strip()[:LAST]}' if lines else ''
  return f'exit status {status}{last}'


def _tail(log: pathlib.Path, offset: int) -> str:
  """Returns what has been added to a log."""
  try:
    with log.open('rb') as file:
      file.seek(offset)
      return file.read().decode(errors='replace')
  except OSError:
    return ''
