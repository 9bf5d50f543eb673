"""Where the runs of a sweep are started: in processes here, or by submitit."""

import math
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

GPUS = pathlib.Path('/proc/driver/nvidia/gpus')  # one entry for each
CORES = 4  # as `training.mesh` has them
SHARE = 0.9  # of a GPU's memory, for all of its processes
PATIENCE = 30.0  # seconds that a process has to end in
MINUTES = 24 * 60  # of a job, unless set; submitit's own default is 5


class Running(Protocol):
  """A run that has been started."""

  def poll(self) -> int | None:
    """Returns the exit status, None while it runs; below 0 is a signal."""
    ...

  def stop(self) -> None:
    """Asks it to end in such a way that it can be resumed."""
    ...

  def wait(self) -> None:
    """Waits for it to end, and ends it if it does not."""
    ...


class Launcher(Protocol):
  """A way to start runs."""

  def start(
    self, words: Sequence[str], log: pathlib.Path, slot: int, batch_size: int
  ) -> Running:
    """Starts a run.

    Args:
      words: of its command, after `jaxkd`.
      log: a file that its output is added to.
      slot: which of the runs at a time it is, from 0.
      batch_size: of the run, which its CPU devices have to divide.
    """
    ...


def command(words: Sequence[str]) -> list[str]:
  """Returns a command of jaxkd that ends with the process that starts it."""
  return [sys.executable, '-m', 'jaxkd.cli.attached', *words]


class Process:
  """A run in a process of this machine."""

  def __init__(
    self,
    words: Sequence[str],
    log: pathlib.Path,
    environment: Mapping[str, str],
    cores: Sequence[int] = (),
  ):
    """Starts it.

    Args:
      words: see `Launcher.start`, as the log.
      log: of its output.
      environment: variables that are set for it.
      cores: that it may use; () are all.
    """
    with log.open('ab') as file:
      # In a session of its own: Ctrl-C reaches the sweep, which stops it.
      self._process = subprocess.Popen(
        command(words),
        stdin=subprocess.PIPE,
        stdout=file,
        stderr=subprocess.STDOUT,
        env={**os.environ, **environment},
        start_new_session=True,
      )
    if cores:
      try:
        os.sched_setaffinity(self._process.pid, cores)
      except OSError:
        pass  # it has ended, or it is not allowed: it shares all cores then

  def poll(self) -> int | None:
    """Returns the exit status, None while it runs."""
    status = self._process.poll()
    if status is not None and self._process.stdin:
      self._process.stdin.close()
    return status

  def stop(self) -> None:
    """Sends SIGTERM."""
    if self._process.poll() is None:
      self._process.send_signal(signal.SIGTERM)

  def wait(self, seconds: float | None = PATIENCE) -> None:
    """Waits for it to end, and kills it if it takes too long.

    Args:
      seconds: that it has; None for ever.
    """
    try:
      self._process.wait(seconds)
    except subprocess.TimeoutExpired:
      self._process.kill()
      self._process.wait()
    self.poll()


class Processes:
  """Processes that share the cores, or the GPUs, of this machine."""

  def __init__(self, jobs: int):
    """Divides the machine.

    Args:
      jobs: processes at a time.
    """
    self._jobs = jobs
    self._cores = _cores()
    self._gpus = gpus()

  def start(
    self, words: Sequence[str], log: pathlib.Path, slot: int, batch_size: int
  ) -> Process:
    """Starts a run in a process, see `Launcher.start`."""
    environment = self.environment(slot, batch_size)
    cores = [] if self._gpus or self._jobs == 1 else self._own(slot)
    return Process(words, log, environment, cores)

  def _own(self, slot: int) -> list[int]:
    """Returns the cores of a slot; [] if there are fewer than slots."""
    if self._jobs > len(self._cores):
      return []
    return self._cores[slot :: self._jobs]

  def environment(self, slot: int, batch_size: int) -> dict[str, str]:
    """Returns the variables by which a process takes its part of the machine.

    A single process has all of it, and no variable is set.
    """
    if self._jobs == 1:
      return {}
    if self._gpus:
      each = math.ceil(self._jobs / len(self._gpus))
      own = self._gpus[slot :: self._jobs] or [
        self._gpus[slot % len(self._gpus)]
      ]
      shared = {'XLA_PYTHON_CLIENT_MEM_FRACTION': f'{SHARE / each:.3f}'}
      return {
        'CUDA_VISIBLE_DEVICES': ','.join(own),
        **(shared if each > 1 else {}),
      }
    if 'JAX_NUM_CPU_DEVICES' in os.environ:
      return {}
    most = max(1, min(len(self._own(slot)), CORES))
    devices = max(n for n in range(1, most + 1) if batch_size % n == 0)
    return {'JAX_NUM_CPU_DEVICES': str(devices)}


def _cores() -> list[int]:
  """Returns the cores that this process may use; [] where that is unknown."""
  if hasattr(os, 'sched_getaffinity'):
    return sorted(os.sched_getaffinity(0))
  return []


def gpus() -> list[str]:
  """Returns the NVIDIA GPUs that runs may use, without starting JAX on them."""
  platforms = os.environ.get('JAX_PLATFORMS', '')
  if platforms and not {'cuda', 'gpu'} & set(platforms.split(',')):
    return []
  visible = os.environ.get('CUDA_VISIBLE_DEVICES')
  if visible is not None:
    return [x for x in visible.split(',') if x and x != '-1']
  number = len(list(GPUS.iterdir())) if GPUS.is_dir() else 0
  return list(map(str, range(number)))


class Submitted:
  """A run that has been submitted to submitit."""

  def __init__(self, job: Any):
    """Follows a job.

    Args:
      job: of submitit.
    """
    self._job = job

  def poll(self) -> int | None:
    """Returns the exit status; 1 for a job that ended without one."""
    if not self._job.done():
      return None
    try:
      return self._job.result()
    except Exception:  # submitit raises its own, and whatever the job raised
      return 1

  def stop(self) -> None:
    """Cancels the job."""
    if not self._job.done():
      self._job.cancel(check=False)

  def wait(self) -> None:
    """Does not wait: a cluster ends its jobs itself."""


class Submitit:
  """Jobs of a cluster, or of this machine, by submitit."""

  def __init__(
    self,
    cluster: str,
    folder: pathlib.Path,
    parameters: Mapping[str, Any] | None = None,
  ):
    """Opens the cluster.

    Args:
      cluster: 'slurm' or 'local'.
      folder: where submitit keeps its files.
      parameters: of a job, as submitit calls them, such as `timeout_min`.

    Raises:
      ImportError: submitit is not installed.
      ValueError: there is no such cluster here, or no such parameter.
    """
    try:
      import submitit
    except ImportError as error:
      raise ImportError(
        f'--launcher={cluster} needs submitit: pip install "jaxkd[slurm]"'
      ) from error
    try:
      self._executor = submitit.AutoExecutor(folder, cluster=cluster)
      self._executor.update_parameters(
        **{'timeout_min': MINUTES, 'name': 'jaxkd', **(parameters or {})}
      )
    except (NameError, RuntimeError, ValueError, AssertionError) as error:
      raise ValueError(f'--launcher={cluster}: {error}') from error

  def start(
    self, words: Sequence[str], log: pathlib.Path, slot: int, batch_size: int
  ) -> Submitted:
    """Submits a run, see `Launcher.start`; a cluster divides its machines."""
    del slot, batch_size
    return Submitted(self._executor.submit(call, list(words), str(log)))


def call(words: list[str], log: str) -> int:
  """Runs a command of jaxkd inside a job, and returns its exit status.

  Args:
    words: see `Launcher.start`.
    log: its path.
  """
  process = Process(words, pathlib.Path(log), {})
  try:
    process.wait(None)
  except BaseException:
    process.stop()
    process.wait()
    raise
  status = process.poll()
  return 1 if status is None else status
