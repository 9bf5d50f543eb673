"""Sweeps: a study's folder, filled by processes, resumed, and compared."""

import io
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time

import jax
import pytest

from jaxkd import cli
from jaxkd.commands import config_files, launchers, sweep
from jaxkd.commands.schedule import LOG
from jaxkd.runs.study import Study

try:  # not in a test: it closes the handlers of logging
  import submitit
except ImportError:
  submitit = None

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = '''
"""Runs of seconds: networks without convolutions on synthetic images."""

from jaxkd.config import default


def get_config():
  config = default()
  config.epochs = {epochs}
  config.batch_size = 8
  config.cache = '{cache}'
  config.data.name = 'synthetic'
  config.data.image_size = 8
  config.data.settings = dict(
    num_classes=3, channels=1, train_size=40, test_size=60
  )
  config.student.name = config.teacher.name = 'mlp'
  config.student.width = 0.5
  config.method = dict(name='kd')
  return config
'''
GRID = ('--seeds=2', '--over=method.temperature=1,4')
RECIPES = ('temperature=1', 'temperature=4')
RUNS = [f'runs/{recipe}/seed{n}' for recipe in RECIPES for n in (0, 1)]


def write_config(folder, epochs=1):
  text = CONFIG.format(epochs=epochs, cache=folder / 'cache')
  (folder / 'tiny.py').write_text(text)


@pytest.fixture
def place(monkeypatch, tmp_path):
  """The current folder, with a config."""
  write_config(tmp_path)
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(sys, 'path', sys.path[:])
  monkeypatch.setenv('JAX_NUM_CPU_DEVICES', str(jax.device_count()))
  return tmp_path


class Here:
  """Runs a command at once in this process, with its output in the log."""

  started = []

  def __init__(self, words, log, environment, cores=()):
    del environment, cores
    Here.started.append(next(x for x in words if x.startswith('--workdir=')))
    code, output = 0, io.StringIO()
    before = sys.stdout, sys.stderr
    sys.stdout = sys.stderr = output
    try:
      cli.main(list(words))
    except SystemExit as ended:
      code = ended.code
    finally:
      sys.stdout, sys.stderr = before
    with log.open('a') as file:
      file.write(output.getvalue())
    self._status = code

  def poll(self):
    return self._status

  def stop(self):
    pass

  def wait(self):
    pass


@pytest.fixture
def command(place, monkeypatch, capsys):
  """Runs `jaxkd ...`, whose processes are calls: (status, stdout, stderr)."""
  monkeypatch.setattr(launchers, 'Process', Here)
  monkeypatch.setattr(Here, 'started', [])

  def run(*words):
    status = 0
    try:
      cli.main(list(words))
    except SystemExit as stopped:
      status = stopped.code or 0
    return status, *capsys.readouterr()

  return run


def finished(folder):
  return sorted(
    str(x.parent.relative_to(folder)) for x in folder.rglob('summary.json')
  )


def test_a_sweep_is_a_study(command, place, capsys):
  status, out, err = command('sweep', 'tiny', '--workdir=all', *GRID)
  assert (status, err) == (0, '')
  assert finished(place / 'all') == sorted(['.', *RUNS])
  lines = [x for x in out.splitlines() if x.startswith('[')]
  assert len(lines) == 4
  first = (
    r'\[1/4\] temperature=1/seed0: student top-1 .* %, .* s \(about .* left'
  )
  assert re.match(first, lines[0]) and 'left' not in lines[3]
  assert re.search(r'temperature 1 +2 .* baseline', out)
  assert re.search(r'temperature 4 +2 .* 2\n', out)
  assert 'The same as a page: all/comparison.html' in out
  assert 'Comparison over seeds' in (place / 'all/comparison.html').read_text()
  for run in RUNS:  # as ordinary runs that Study reads
    log = (place / 'all' / run / LOG).read_text()
    assert 'Finished. Results' in log
  config = config_files.load('tiny')
  config.study.seeds = (0, 1)
  config.study.recipes = {
    name: {'method': {'temperature': int(name[-1])}} for name in RECIPES
  }
  study = Study(config, place / 'all')
  assert study.summary is not None
  assert 'difference' in study.report(study.summary)
  # The same command runs nothing again, and shows the same.
  Here.started.clear()
  status, again, _ = command('sweep', 'tiny', '--workdir=all', *GRID)
  assert status == 0 and Here.started == []
  assert again.strip() in out
  # More seeds are added to the folder; compare shows all of them.
  more = ('--seeds=3', GRID[1])
  status, out, _ = command('sweep', 'tiny', '--workdir=all', *more)
  assert status == 0 and len(Here.started) == 2
  assert out.startswith('4 of 6 runs are finished\n[5/6] temperature=1/seed2')
  status, out, _ = command('compare', 'all/runs/*/seed[01]')
  assert status == 0 and re.search(r'temperature 1 +2 ', out)
  status, out, _ = command('compare', 'all')
  assert re.search(r'temperature 1 +3 ', out)


@pytest.mark.slow
def test_printed_commands_fill_the_same_folders(command, place):
  words = ('sweep', 'tiny', '--workdir=a b', *GRID, 'epochs=1', '--print')
  status, out, err = command(*words)
  assert status == 0 and not (place / 'a b').exists()
  lines = out.splitlines()
  assert len(lines) == 4
  assert 'The first trains what later ones take from the cache: run it' in err
  for line in lines:
    python, *_, verb, name = shlex.split(line)[:5]
    assert (python, verb, name) == (sys.executable, 'train', 'tiny')
    assert command(*shlex.split(line)[3:])[0] == 0
  assert finished(place / 'a b') == sorted(RUNS)
  status, out, err = command(*words)
  assert (status, out) == (0, '') and '4 of 4 runs are finished' in err
  Here.started.clear()
  status, out, _ = command(*words[:-1])
  assert status == 0 and Here.started == []
  assert finished(place / 'a b') == sorted(['.', *RUNS])


def test_a_failed_run_is_named_and_tried_again(command, place):
  over = ('--over=optimizer.weight_decay=5e-4,1e9', '--seeds=1')
  words = ('sweep', 'tiny', '--workdir=all', *over, 'epochs=4')
  status, out, err = command(*words)
  assert status == 1
  failed = [x for x in out.splitlines() if '/seed0: failed' in x]
  assert len(failed) == 2  # when it failed, and in the end
  assert re.match(
    r'\[\d/2\] .*/seed0: failed after .*: .*(NaN|infin)', failed[0]
  )
  assert re.match(r'  all/runs/.*/seed0: failed: .*(NaN|infinite)', failed[1])
  assert 'The same command runs again what has failed' in out
  assert 'summary.json' not in os.listdir('all')
  Here.started.clear()
  assert command(*words)[0] == 1
  assert len(Here.started) == 1


def test_a_mistake_in_any_run_is_reported_before_the_first(command, place):
  for over, message in (
    ('method.temprature=1,2', "takes no setting 'temprature'"),
    (
      'teacher.loss=brier,briar',
      "recipe 'loss=briar': no teacher loss 'briar'",
    ),
    ('teacher.los=brier', "no setting 'teacher.los'. Did you mean"),
    ('student.width=0.5,-1', 'student.width'),
    ('schedule.milestones=(0.5,0.75', 'is missing'),
    ('seed=1,2', 'seeds are set by --seeds'),
  ):
    status, _, err = command('sweep', 'tiny', '--workdir=x', f'--over={over}')
    assert status == 1 and message in err, (over, err)
  assert not (place / 'x').exists() and Here.started == []


def test_a_config_file_that_changes_meanwhile_is_noticed(
  command, place, monkeypatch
):
  class Changing(Here):
    def __init__(self, *arguments):
      super().__init__(*arguments)
      write_config(place, epochs=2)

  monkeypatch.setattr(launchers, 'Process', Changing)
  status, out, _ = command('sweep', 'tiny', '--workdir=all', *GRID)
  assert status == 1
  assert out.count('another config') == 6  # three runs, each twice
  assert 'epochs: 1 -> 2' in out


def test_a_folder_of_another_study_is_refused(command, place):
  command('sweep', 'tiny', '--workdir=all', '--seeds=1')
  status, _, err = command('sweep', 'tiny', '--workdir=all', 'epochs=2')
  assert status == 1 and 'epochs: 1 -> 2' in err


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (['--jobs=-1'], '--jobs must be at least 1'),
    (['--slurm=timeout_min=3'], 'is for --launcher=slurm'),
    (['--launcher=local', '--slurm=x'], 'write KEY=VALUE'),
    (['--launcher=local', '--slurm=timeout=3'], '--launcher=local: '),
  ],
)
def test_options_that_do_not_fit_are_refused(command, place, words, message):
  if '--launcher=local' in words and submitit is None:
    pytest.skip('submitit is not here')
  status, _, err = command('sweep', 'tiny', '--workdir=x', *words)
  assert status == 1 and message in err


def test_durations_are_readable():
  assert [sweep.duration(x) for x in (0.4, 59.6, 3599, 86_460)] == [
    '0 s',
    '1 min 0 s',
    '59 min 59 s',
    '24 h 1 min',
  ]


# With real processes


@pytest.fixture
def start(tmp_path):
  """Starts `jaxkd ...` in a folder with a config; ends it with the test."""
  processes = []

  def run(*words):
    processes.append(
      subprocess.Popen(
        [sys.executable, '-m', 'jaxkd.cli', *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={
          **os.environ,
          'PYTHONPATH': str(ROOT),
          'JAX_NUM_CPU_DEVICES': '1',
        },
      )
    )
    return processes[-1]

  yield run
  for each in processes:
    each.kill()
    each.wait()
    each.stdout.close()


def until(condition, process=None):
  end = time.monotonic() + 300
  while not condition():
    assert time.monotonic() < end
    assert process is None or process.poll() is None, process.stdout.read()
    time.sleep(0.1)


def holders(place):
  """The processes that hold the locks of a study and of its runs."""
  pids = []
  for path in (place / 'all/lock.json', *place.glob('all/runs/*/*/lock.json')):
    try:
      pids.append(json.loads(path.read_text())['pid'])
    except (FileNotFoundError, json.JSONDecodeError):
      pass  # released, or half written
  return pids


def is_alive(pid):
  try:
    return pathlib.Path(f'/proc/{pid}/stat').read_text().split()[2] != 'Z'
  except OSError:
    return False


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists('/proc'), reason='needs /proc')
def test_a_sweep_that_is_killed_twice_is_resumed(start, tmp_path):
  """By SIGKILL; its runs end with it, and nothing finished is run again."""
  write_config(tmp_path, epochs=20)
  words = ('sweep', 'tiny', '--workdir=all', *GRID, '--jobs=2')
  times = {}
  for n in (1, 2):
    process = start(*words)
    until(lambda n=n: len(finished(tmp_path / 'all')) >= n, process)
    until(lambda: len(holders(tmp_path)) > 1, process)
    children = [x for x in holders(tmp_path) if x != process.pid]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    until(lambda pids=children: not any(map(is_alive, pids)))
    done = {x: (tmp_path / 'all' / x / 'summary.json') for x in RUNS}
    done = {x: y.stat().st_mtime for x, y in done.items() if y.exists()}
    assert times.items() <= done.items() and len(done) >= n
    times = done
  process = start(*words)
  out, _ = process.communicate(timeout=300)
  assert process.returncode == 0, out
  assert f'{len(times)} of 4 runs are finished' in out
  assert re.search(r'temperature 4 +2 ', out)
  for run, when in times.items():
    path = tmp_path / 'all' / run / 'summary.json'
    assert path.stat().st_mtime == when


@pytest.mark.slow
def test_ctrl_c_stops_the_runs_and_they_are_resumed(start, tmp_path):
  write_config(tmp_path, epochs=20)
  words = ('sweep', 'tiny', '--workdir=all', '--seeds=2', '--jobs=2')
  process = start(*words)
  until(lambda: len(holders(tmp_path)) == 3, process)
  process.send_signal(signal.SIGINT)
  out, _ = process.communicate(timeout=120)
  assert process.returncode == 130, out
  assert 'interrupted; the same command resumes it' in out
  assert holders(tmp_path) == []  # released, not left behind
  process = start(*words)
  out, _ = process.communicate(timeout=300)
  assert process.returncode == 0, out


@pytest.mark.slow
@pytest.mark.skipif(submitit is None, reason='submitit is not here')
def test_runs_are_submitted_as_jobs(start, tmp_path):
  write_config(tmp_path)
  words = ('sweep', 'tiny', '--workdir=all', '--seeds=1', '--launcher=local')
  over = '--over=optimizer.weight_decay=5e-4,1e9'
  process = start(*words, over, 'epochs=4', '--jobs=2')
  out, _ = process.communicate(timeout=300)
  assert process.returncode == 1, out
  assert finished(tmp_path / 'all') == ['runs/weight_decay=5e-4/seed0']
  assert re.search(r'weight_decay=1e9/seed0: failed: .*(NaN|infinite)', out)
