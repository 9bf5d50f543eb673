"""Runs of a sweep are started in order, several at a time, and stopped."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import pytest

from jaxkd.commands import launchers, schedule
from jaxkd.commands.launchers import Processes
from jaxkd.commands.schedule import Job, Schedule
from jaxkd.runs import lock


class Fake:
  """A launcher whose runs take some looks, and then have results or fail.

  looks: by the name of a run, how often it is looked at before it ends; the
    phase 'teacher' is finished at half of them.
  fails: names of runs -> exit status.
  """

  def __init__(self, looks=None, fails=None):
    self.looks, self.fails = looks or {}, fails or {}
    self.events, self.active, self.most, self.slots = [], set(), 0, []

  def start(self, words, log, slot, batch_size):
    (name,) = words
    self.events.append(f'start {name}')
    self.slots.append((name, slot))
    self.active.add(name)
    self.most = max(self.most, len(self.active))
    log.parent.mkdir(parents=True, exist_ok=True)
    return FakeRun(self, name, log)


class FakeRun:
  def __init__(self, launcher, name, log):
    self.launcher, self.name, self.log = launcher, name, log
    self.left = self.total = launcher.looks.get(name, 2)

  def poll(self):
    self.left -= 1
    phases = self.log.parent / 'phases'
    if self.left <= self.total // 2 and self.name not in self.launcher.fails:
      phases.mkdir(exist_ok=True)
      (phases / 'teacher.json').touch()
    if self.left > 0:
      return None
    self.launcher.active.discard(self.name)
    self.launcher.events.append(f'end {self.name}')
    if self.name in self.launcher.fails:
      self.log.write_text(
        'epoch 1\n\njaxkd: no\nmemory\n(--debug shows where)\n'
      )
      return self.launcher.fails[self.name]
    (self.log.parent / 'summary.json').write_text(json.dumps({'networks': {}}))
    return 0

  def stop(self):
    self.launcher.events.append(f'stop {self.name}')

  def wait(self):
    self.launcher.events.append(f'wait {self.name}')


@pytest.fixture(autouse=True)
def quick(monkeypatch):
  monkeypatch.setattr(schedule, 'PAUSE', 0.0)


def jobs_of(folder, prepared):
  return [
    Job(name, (name,), folder / name, 8, {'teacher': key} if key else {})
    for name, key in prepared.items()
  ]


def run(jobs, launcher, places=1):
  outcomes, notes = [], []
  Schedule(jobs, launcher, places, outcomes.append, notes.append).run()
  return {x.job.name: x.reason for x in outcomes}, notes


def test_one_run_after_another_in_their_order(tmp_path):
  fake = Fake()
  jobs = jobs_of(tmp_path, dict.fromkeys('abc', 'same'))
  assert run(jobs, fake) == (dict.fromkeys('abc', ''), [])
  assert fake.most == 1
  want = [f'{what} {name}' for name in 'abc' for what in ('start', 'end')]
  assert fake.events == want


def test_as_many_as_there_are_places(tmp_path):
  fake = Fake()
  jobs = jobs_of(tmp_path, dict.fromkeys('abcdefg', ''))
  run(jobs, fake, places=3)
  assert fake.most == 3
  assert {slot for _, slot in fake.slots} == {0, 1, 2}


def test_the_first_run_of_each_teacher_goes_ahead(tmp_path):
  fake = Fake({'a': 20, 'c': 20})
  jobs = jobs_of(tmp_path, {'a': 'x', 'b': 'x', 'c': 'y', 'd': 'y', 'e': ''})
  run(jobs, fake, places=4)
  order = [x for x in fake.events if x.startswith('start')]
  assert order[:3] == ['start a', 'start c', 'start e']
  # The others start when the teacher is trained, before the first has ended.
  assert fake.events.index('start b') < fake.events.index('end a')
  assert [job.name for job in schedule.leaders(jobs)] == ['a', 'c']


def test_a_trained_teacher_is_waited_for_by_nobody(tmp_path):
  (tmp_path / 'a' / 'phases').mkdir(parents=True)
  (tmp_path / 'a' / 'phases' / 'teacher.json').touch()
  fake = Fake()
  run(jobs_of(tmp_path, {'a': 'x', 'b': 'x'}), fake, places=2)
  assert fake.events[:2] == ['start a', 'start b']


def test_a_failure_is_named_and_stops_no_other(tmp_path):
  fake = Fake(fails={'a': 1, 'c': -9})
  jobs = jobs_of(tmp_path, dict.fromkeys('abcd', 'same'))
  outcomes, _ = run(jobs, fake, places=2)
  assert outcomes == {
    'a': 'no memory',
    'b': '',
    'c': 'killed by SIGKILL (is the memory full?)',
    'd': '',
  }


def test_an_interrupt_stops_what_runs(tmp_path):
  class Interrupting(FakeRun):
    def poll(self):
      raise KeyboardInterrupt

  fake = Fake()
  fake.start = lambda words, log, slot, size: Interrupting(fake, words[0], log)
  jobs = jobs_of(tmp_path, dict.fromkeys('abc', ''))
  with pytest.raises(KeyboardInterrupt):
    run(jobs, fake, places=2)
  assert fake.events == ['stop a', 'stop b', 'wait a', 'wait b']


def test_a_run_of_another_process_is_waited_for(tmp_path):
  """And its results are taken."""
  (tmp_path / 'a').mkdir()
  other = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=-1)
  holder = {
    'host': socket.gethostname(),
    'boot': lock._boot(),
    'pid': other.pid,
    'process_start': lock._start_of(other.pid),
  }
  (tmp_path / 'a' / lock.NAME).write_text(json.dumps(holder))
  assert lock.holder(tmp_path / 'a') == holder

  class Ending(Fake):
    def start(self, *arguments):
      running = super().start(*arguments)
      summary = tmp_path / 'a' / 'summary.json'
      summary.write_text(json.dumps({'networks': {}}))
      other.communicate(b'\n')
      return running

  fake = Ending()
  outcomes, notes = run(jobs_of(tmp_path, dict.fromkeys('ab', '')), fake)
  assert outcomes == {'a': '', 'b': ''}
  assert fake.events == ['start b', 'end b']
  (note,) = notes
  assert note.startswith(f'waiting for a: process {other.pid} on ')
  assert lock.holder(tmp_path / 'a') is None  # it has ended


def test_a_run_that_another_process_took_is_no_failure(tmp_path):
  """It was started elsewhere between the look at its lock and its start."""
  lock_file = tmp_path / 'a' / lock.NAME

  class Taken(Fake):
    def start(self, *arguments):
      running = super().start(*arguments)
      if self.fails:
        lock_file.write_text(json.dumps({'host': 'elsewhere', 'pid': 1}))
      else:
        lock_file.unlink(missing_ok=True)
      return running

  fake = Taken(fails={'a': 1})
  notes = []

  def note(line):
    notes.append(line)
    lock_file.unlink()  # the other process fails
    fake.fails = {}

  outcomes = []
  jobs = jobs_of(tmp_path, {'a': ''})
  Schedule(jobs, fake, 1, outcomes.append, note).run()
  assert [(x.job.name, x.reason) for x in outcomes] == [('a', '')]
  assert len(notes) == 1 and fake.events.count('start a') == 2


def test_the_lock_of_another_machine_counts_while_it_is_touched(tmp_path):
  path = tmp_path / lock.NAME
  path.write_text(json.dumps({'host': 'elsewhere', 'pid': 1}))
  assert lock.holder(tmp_path)['host'] == 'elsewhere'
  old = time.time() - lock.PATIENCE - 1
  os.utime(path, (old, old))
  assert lock.holder(tmp_path) is None
  assert lock.holder(tmp_path / 'nowhere') is None


@pytest.mark.parametrize(
  ('status', 'text', 'want'),
  [
    (
      1,
      'jaxkd: a\n\nx\njaxkd: no b,\n  only c\n(--debug shows where)',
      'no b, o',
    ),
    (70, 'Fatal: x\n\n', 'exit status 70: Fatal: x'),
    (3, '', 'exit status 3'),
    (-15, 'jaxkd: terminated', 'killed by SIGTERM'),
  ],
)
def test_the_reason_is_the_last_message(status, text, want):
  reason = schedule.reason(status, text)
  assert reason.startswith(want) and '\n' not in reason


# Parts of the machine


def environments(monkeypatch, jobs, *, cores=4, gpus=(), batch_size=32):
  monkeypatch.delenv('JAX_NUM_CPU_DEVICES', raising=False)
  monkeypatch.setattr(launchers, '_cores', lambda: list(range(cores)))
  monkeypatch.setattr(launchers, 'gpus', lambda: list(gpus))
  processes = Processes(jobs)
  return [processes.environment(slot, batch_size) for slot in range(jobs)]


@pytest.mark.parametrize(
  ('jobs', 'cores', 'batch_size', 'want'),
  [(2, 4, 32, 2), (2, 16, 32, 4), (2, 6, 32, 2), (2, 4, 33, 1), (8, 4, 32, 1)],
)
def test_jobs_share_the_cores(monkeypatch, jobs, cores, batch_size, want):
  own = environments(monkeypatch, jobs, cores=cores, batch_size=batch_size)
  assert own == [{'JAX_NUM_CPU_DEVICES': str(want)}] * jobs
  processes = Processes(jobs)
  parts = [processes._own(slot) for slot in range(jobs)]
  used = [core for part in parts for core in part]
  assert used == [] if jobs > cores else sorted(used) == list(range(cores))


def test_one_job_has_the_whole_machine(monkeypatch):
  assert environments(monkeypatch, 1) == [{}]
  assert environments(monkeypatch, 1, gpus='0123') == [{}]
  own = environments(monkeypatch, 2)
  monkeypatch.setenv('JAX_NUM_CPU_DEVICES', '1')
  assert own and Processes(2).environment(0, 32) == {}  # it is the user's


def test_jobs_share_the_gpus(monkeypatch):
  assert environments(monkeypatch, 2, gpus='0123') == [
    {'CUDA_VISIBLE_DEVICES': '0,2'},
    {'CUDA_VISIBLE_DEVICES': '1,3'},
  ]
  assert environments(monkeypatch, 3, gpus='01') == [
    {
      'CUDA_VISIBLE_DEVICES': each,
      'XLA_PYTHON_CLIENT_MEM_FRACTION': '0.450',
    }
    for each in '010'
  ]


@pytest.mark.parametrize(
  ('variables', 'want'),
  [
    ({}, ['0', '1']),
    ({'JAX_PLATFORMS': 'cpu'}, []),
    ({'JAX_PLATFORMS': 'cuda,cpu'}, ['0', '1']),
    ({'CUDA_VISIBLE_DEVICES': '3,GPU-a'}, ['3', 'GPU-a']),
    ({'CUDA_VISIBLE_DEVICES': ''}, []),
    ({'CUDA_VISIBLE_DEVICES': '-1'}, []),
  ],
  ids=str,
)
def test_gpus_are_counted_without_jax(monkeypatch, tmp_path, variables, want):
  for name in ('0000:01:00.0', '0000:02:00.0'):
    (tmp_path / name).mkdir()
  monkeypatch.setattr(launchers, 'GPUS', tmp_path)
  for name in ('JAX_PLATFORMS', 'CUDA_VISIBLE_DEVICES'):
    monkeypatch.delenv(name, raising=False)
  for name, value in variables.items():
    monkeypatch.setenv(name, value)
  assert launchers.gpus() == want
  monkeypatch.setattr(launchers, 'GPUS', pathlib.Path('/no/driver'))
  assert set(launchers.gpus()) <= {'3', 'GPU-a'}


# Processes


@pytest.fixture
def sleeper(monkeypatch):
  """Commands that write a line and then sleep, as quick to start as Python."""
  code = 'import time; print("started", flush=True); time.sleep(60)'
  monkeypatch.setattr(
    launchers, 'command', lambda w: [sys.executable, '-c', code]
  )


def until(condition):
  end = time.monotonic() + 30
  while not condition():
    assert time.monotonic() < end
    time.sleep(0.02)


def test_a_process_writes_to_its_log_and_is_stopped(sleeper, tmp_path):
  log = tmp_path / 'log'
  log.write_text('before\n')
  cores = sorted(os.sched_getaffinity(0))[:1]
  process = launchers.Process([], log, {}, cores)
  until(lambda: 'started' in log.read_text())
  assert log.read_text() == 'before\nstarted\n'
  assert process.poll() is None
  assert sorted(os.sched_getaffinity(process._process.pid)) == cores
  process.stop()
  process.wait()
  assert process.poll() == -15
  process.stop()  # again, which does nothing


def test_a_process_that_does_not_end_is_killed(monkeypatch, tmp_path):
  code = (
    'import signal, time; signal.signal(15, signal.SIG_IGN);'
    'print("deaf", flush=True); time.sleep(60)'
  )
  monkeypatch.setattr(
    launchers, 'command', lambda w: [sys.executable, '-c', code]
  )
  process = launchers.Process([], tmp_path / 'log', {})
  until(lambda: 'deaf' in (tmp_path / 'log').read_text())
  process.stop()
  process.wait(0.1)
  assert process.poll() == -9
