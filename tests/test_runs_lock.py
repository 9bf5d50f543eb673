"""The lock on a run's folder: one holder at a time, and none that is dead."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest
import tiny

from jaxkd.runs import lock
from jaxkd.runs.lock import LockedError, locked
from jaxkd.runs.run import Run
from jaxkd.runs.study import Study

# Not through jaxkd.runs, whose import takes seconds.
HOLDER = """
import importlib.util, pathlib, sys, time
spec = importlib.util.spec_from_file_location('lock', sys.argv[1])
lock = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lock)
if sys.argv[3] == 'False':
  lock.fcntl = None
with lock.locked(pathlib.Path(sys.argv[2])):
  print('held', flush=True)
  time.sleep(60)
"""


@pytest.fixture(params=[True, False], ids=['flock', 'no flock'])
def flock(request, monkeypatch):
  """Whether the kernel locks files, in all processes of a test."""
  if not request.param:
    monkeypatch.setattr(lock, 'fcntl', None)
  return request.param


@pytest.fixture
def holder(tmp_path, flock):
  """Another process that holds the lock on `tmp_path / 'run'`."""
  words = lock.__file__, str(tmp_path / 'run'), str(flock)
  process = subprocess.Popen(
    [sys.executable, '-c', HOLDER, *words], stdout=subprocess.PIPE, text=True
  )
  assert process.stdout is not None
  assert process.stdout.readline() == 'held\n'
  yield process
  process.kill()
  process.wait()
  process.stdout.close()


def test_a_second_process_is_refused(tmp_path, holder):
  path = tmp_path / 'run' / lock.NAME
  before = path.read_bytes()
  with pytest.raises(LockedError) as refused, locked(tmp_path / 'run'):
    pass
  record = json.loads(before)
  assert record['pid'] == holder.pid
  for part in (f'process {holder.pid} on {record["host"]}', str(path)):
    assert part in str(refused.value)
  assert path.read_bytes() == before


def test_a_killed_process_holds_nothing(tmp_path, holder):
  holder.send_signal(signal.SIGKILL)
  holder.wait()
  path = tmp_path / 'run' / lock.NAME
  assert path.exists()
  with locked(tmp_path / 'run'):
    assert json.loads(path.read_text())['pid'] == os.getpid()
  assert not path.exists()


def test_a_folder_without_results_is_removed(tmp_path):
  with locked(tmp_path / 'a' / 'b'):
    assert (tmp_path / 'a' / 'b' / lock.NAME).exists()
  assert list(tmp_path.iterdir()) == []
  with locked(tmp_path / 'a' / 'b'):
    (tmp_path / 'a' / 'b' / 'result').touch()
  assert [x.name for x in (tmp_path / 'a' / 'b').iterdir()] == ['result']


def test_the_lock_ends_with_an_error(tmp_path):
  with pytest.raises(KeyError), locked(tmp_path):
    raise KeyError
  with locked(tmp_path), pytest.raises(LockedError), locked(tmp_path):
    pass


def written(path, **changes):
  """Writes a lock as a process has left it."""
  record = {**lock._self(), **changes}
  path.write_text(json.dumps(record))


@pytest.mark.parametrize(
  'changes',
  [
    dict(pid=2**22 + 1),  # above Linux's largest
    dict(pid=os.getppid(), process_start='1'),  # used again
  ],
)
@pytest.mark.usefixtures('flock')
def test_the_lock_of_a_dead_process_is_taken(tmp_path, changes):
  written(tmp_path / lock.NAME, **changes)
  with locked(tmp_path):
    pass


def test_a_process_that_runs_is_recognised_by_its_start(tmp_path, monkeypatch):
  monkeypatch.setattr(lock, 'fcntl', None)
  pid = os.getppid()
  written(tmp_path / lock.NAME, pid=pid, process_start=lock._start_of(pid))
  with pytest.raises(LockedError, match=f'process {pid}'), locked(tmp_path):
    pass


@pytest.mark.parametrize(
  'changes',
  [dict(host='elsewhere', boot='other'), dict(boot='other')],
  ids=['machine', 'boot'],
)
def test_another_machine_is_waited_for(tmp_path, monkeypatch, changes, capsys):
  monkeypatch.setattr(lock, 'PATIENCE', 0.2)
  path = tmp_path / lock.NAME
  written(path, **changes)
  with locked(tmp_path):  # it gives no sign of life
    pass
  assert 'waiting up to' in capsys.readouterr().out
  written(path, **changes)
  monkeypatch.setattr(time, 'sleep', lambda _: os.utime(path, (1, 1)))
  with pytest.raises(LockedError), locked(tmp_path):
    pass


def test_an_old_lock_of_another_machine_is_taken_at_once(tmp_path):
  path = tmp_path / lock.NAME
  written(path, host='elsewhere', boot='other')
  os.utime(path, (time.time() - 2 * lock.OLD,) * 2)
  start = time.monotonic()
  with locked(tmp_path):
    pass
  assert time.monotonic() - start < lock.PATIENCE / 10


@pytest.mark.parametrize('text', ['', '{"host"', '[]', '{}'])
def test_a_lock_that_cannot_be_read_is_taken(tmp_path, text, monkeypatch):
  monkeypatch.setattr(lock, 'PATIENCE', 0.1)
  (tmp_path / lock.NAME).write_text(text)
  with locked(tmp_path):
    pass


def test_the_holder_gives_signs_of_life(tmp_path, monkeypatch):
  monkeypatch.setattr(lock, 'BEAT', 0.01)
  path = tmp_path / lock.NAME
  with locked(tmp_path):
    os.utime(path, (1, 1))
    end = time.monotonic() + 10
    while path.stat().st_mtime == 1 and time.monotonic() < end:
      time.sleep(0.01)
    assert path.stat().st_mtime > 1


def race(folder, supported, start, holds):
  if not supported:
    lock.fcntl = None
  start.wait()
  try:
    with locked(folder):
      with holds.get_lock():
        holds.value += 1
      time.sleep(1.5)
  except LockedError:
    pass


@pytest.mark.slow
def test_of_many_processes_one_takes_a_dead_ones_lock(tmp_path, flock):
  written(tmp_path / lock.NAME, pid=2**22 + 1)
  context = multiprocessing.get_context('spawn')
  start, holds = context.Barrier(4), context.Value('i', 0)
  arguments = tmp_path, flock, start, holds
  processes = [context.Process(target=race, args=arguments) for _ in range(4)]
  for process in processes:
    process.start()
  for process in processes:
    process.join()
  assert holds.value == 1


def test_a_run_and_a_study_are_locked(tmp_path):
  config = tiny.config(study__seeds=(0,), cache=str(tmp_path / 'cache'))
  for job in (
    Run(tiny.experiment(), tmp_path / 'run'),
    Study(config, tmp_path / 'study'),
  ):
    with locked(job.workdir), pytest.raises(LockedError):
      job.finish()
    assert not job.workdir.exists()


def test_a_run_that_has_ended_meanwhile_is_not_repeated(tmp_path):
  job = Run(tiny.experiment(), tmp_path / 'run')
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run/config.json').write_text(json.dumps(job._config))
  (tmp_path / 'run/summary.json').write_text('{"networks": {}}')
  assert job.finish() == {'networks': {}}


def test_a_lock_that_its_holder_removes_is_not_taken(tmp_path, monkeypatch):
  path, kernel = tmp_path / lock.NAME, lock._lock
  removed = []

  def ends_just_now(place, file):
    # The holder ends after this process has opened its file.
    if not removed:
      removed.append(place.unlink())
    return kernel(place, file)

  monkeypatch.setattr(lock, '_lock', ends_just_now)
  with locked(tmp_path):
    assert removed
    assert json.loads(path.read_text())['pid'] == os.getpid()
    if lock.fcntl is not None:
      with pytest.raises(LockedError), locked(tmp_path):
        pass
  assert not path.exists()
