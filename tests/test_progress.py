"""What is shown while a run trains: on a terminal, in a notebook, in a file."""

import os
import pathlib
import re
import struct
import subprocess
import sys

import pytest
import tiny

from jaxkd.runs.run import Run
from jaxkd.training import progress
from jaxkd.training.progress import Forecast, Part, Runs

LINE = re.compile(
  r'(teacher|distil) \d/2: loss \d+\.\d{4}, test top-1 .*\d images/s'
  r'(, .* left)?'
)
CONTROL = re.compile(r'[\x00-\x09\x0b-\x1f\x7f]')


class TestForecast:
  """A run whose steps and evaluations take as long as their cost says."""

  PARTS = Part('a', 3, 4, 40.0, 5.0), Part('b', 2, 6, 12.0, 7.0)
  START, FIRST = 11.0, 3.0  # more for a part's start, and its first evaluation

  def events(self, speed=1.0):
    """Yields (forecast, seconds that are left) after each step and test."""
    events = []  # (method, arguments, seconds)
    for part in self.PARTS:
      events += [('begin', (part.name, 0), 0.0)]
      events += [('started', (self.START,), self.START)]
      for epoch in range(part.epochs):
        step = speed * part.cost / part.steps
        events += [('trained', (1, step), step)] * part.steps
        test = speed * part.test_cost + self.FIRST * (epoch == 0)
        events += [('tested', (test,), test)]
    forecast, left = Forecast(self.PARTS), sum(x for *_, x in events)
    for name, arguments, seconds in events:
      getattr(forecast, name)(*arguments)
      left -= seconds
      yield name, forecast.left(), left

  def test_is_unknown_before_the_first_step(self):
    first = [left for name, left, _ in self.events()][:2]
    assert first == [None, None]
    assert str(Forecast(self.PARTS)) == ''

  @pytest.mark.parametrize('speed', [1.0, 0.03])
  def test_is_exact_once_all_has_been_measured(self, speed):
    seen = list(self.events(speed))
    first = [name for name, *_ in seen].index('tested')
    for _, left, want in seen[first:]:
      assert left == pytest.approx(want, abs=1e-9)
    assert seen[-1][1] == pytest.approx(0, abs=1e-9)

  def test_before_the_first_evaluation_only_compilation_is_missing(self):
    seen = list(self.events())
    first = [name for name, *_ in seen].index('tested')
    for _, left, want in seen[2:first]:
      assert want - left == pytest.approx(2 * self.FIRST)

  def test_a_resumed_phase_has_fewer_steps(self):
    forecast = Forecast(self.PARTS)
    forecast.begin('b', 7)  # of 12, in the second of two epochs
    forecast.trained(1, 2.0)
    assert forecast.left() == pytest.approx(4 * 2.0 + 7.0)

  def test_a_phase_that_is_done_takes_no_time(self):
    rest = Part('b', 0, 6, 12.0, 7.0)
    alone, both = Forecast(self.PARTS[:1]), Forecast([self.PARTS[0], rest])
    for each in (alone, both):
      each.begin('a', 0)
      each.trained(1, 10.0)
    assert alone.left() == both.left() == pytest.approx(11 * 10.0 + 3 * 5.0)

  def test_a_study_has_the_runs_that_follow(self):
    runs = Runs(3)
    forecast = Forecast([Part('a', 1, 2, 2.0, 0.0)], runs.later)

    def run():
      forecast.begin('a', 0)
      forecast.trained(1, 90.0)
      return str(forecast)

    # Each of the two others takes as long as this one in all: 90 s are left,
    # and next to nothing has passed on the clock.
    assert runs.timed(run) == '1 min 30 s left (4 min 30 s of the study)'
    assert runs.later(60.0) == pytest.approx(60.0, abs=1.0)  # (0 + 60) / 2 * 2
    runs.timed(run)
    assert runs.timed(run) == '1 min 30 s left'  # it is the last one

  @pytest.mark.parametrize(
    ('later', 'want'), [(90.0, '0 s left (1 min 30 s of the study)'), (0.0, '')]
  )
  def test_a_run_of_a_study_ends(self, later, want):
    forecast = Forecast([Part('a', 1, 1)], lambda seconds: later)
    forecast.begin('a', 0)
    forecast.trained(1, 5.0)
    forecast.tested(5.0)
    assert str(forecast) == want


def shown(monkeypatch, out, err, workdir, cache):
  """Trains with other files in place of stdout and stderr."""
  with out as stdout, err as stderr, monkeypatch.context() as patched:
    patched.setattr(sys, 'stdout', stdout)
    patched.setattr(sys, 'stderr', stderr)
    Run(tiny.experiment(cache=cache), workdir).finish()


def everything(descriptor: int) -> str:
  """Returns what can be read without waiting."""
  os.set_blocking(descriptor, False)
  parts = []
  while True:
    try:
      part = os.read(descriptor, 1 << 16)
    except (BlockingIOError, OSError):  # of a terminal without its other end
      break
    if not part:
      break
    parts.append(part)
  os.close(descriptor)
  return b''.join(parts).decode()


def test_a_log_file_has_a_line_for_each_epoch(monkeypatch, tmp_path):
  (out, stdout), (err, stderr) = os.pipe(), os.pipe()
  files = os.fdopen(stdout, 'w'), os.fdopen(stderr, 'w')
  shown(monkeypatch, *files, tmp_path / 'run', str(tmp_path / 'cache'))
  text = everything(out)
  assert everything(err) == ''
  assert not CONTROL.search(text)
  epochs = [x for x in text.splitlines() if re.match(r'\w+ \d/\d', x)]
  assert len(epochs) == 4 and all(map(LINE.fullmatch, epochs))
  assert ' left' in epochs[0] and ' left' not in epochs[-1]


def test_a_line_is_in_the_file_at_once(tmp_path, monkeypatch):
  with (tmp_path / 'log').open('w') as file:
    monkeypatch.setattr(sys, 'stdout', file)
    progress.say('distil 1/2')
    assert (tmp_path / 'log').read_text() == 'distil 1/2\n'


def test_a_terminal_has_a_bar_below_the_lines(monkeypatch, tmp_path):
  pty = pytest.importorskip('pty')
  fcntl, termios = map(pytest.importorskip, ('fcntl', 'termios'))
  monkeypatch.delenv('TQDM_DISABLE', raising=False)
  monkeypatch.setenv('TQDM_MININTERVAL', '0')
  ours, theirs = pty.openpty()
  size = struct.pack('HHHH', 40, 120, 0, 0)  # rows and columns
  fcntl.ioctl(theirs, termios.TIOCSWINSZ, size)
  files = os.fdopen(os.dup(theirs), 'w'), os.fdopen(theirs, 'w')
  shown(monkeypatch, *files, tmp_path / 'run', str(tmp_path / 'cache'))
  text = everything(ours)
  # Without the time left where that is less than half a second.
  bar = (
    r'teacher 2/2: +\d+%\|.*\| +\d+/10, loss \d.*, \d+ images/s'
    r'(, \d+ s left)?'
  )
  assert any(re.match(bar, x) for x in text.split('\r'))
  # Each epoch's line replaces the bar.
  lines = [x.rsplit('\r')[-1] for x in text.split('\r\n')]
  assert sum(bool(LINE.fullmatch(x)) for x in lines) == 4
  assert lines[-1] == ''  # no bar is left


KERNEL = """
import sys
{blocked}
from jaxkd.training import progress
with progress.bar(4, 1) as bar:
  bar.update(2)
  progress.say('distil 1/2: loss 1')
"""


def in_kernel(source: str, folder: pathlib.Path) -> list:
  """Returns the outputs of a cell of a new notebook."""
  nbclient = pytest.importorskip('nbclient')
  nbformat = pytest.importorskip('nbformat')
  notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
  client = nbclient.NotebookClient(
    notebook,
    kernel_name='python3',
    resources={'metadata': {'path': str(folder)}},
  )
  path = [str(pathlib.Path(__file__).parents[1]), *sys.path[1:]]
  environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(path)}
  environment.pop('TQDM_DISABLE', None)
  client.execute(env=environment)
  return notebook.cells[0].outputs


def test_a_notebook_has_a_widget(tmp_path):
  pytest.importorskip('ipywidgets')
  outputs = in_kernel(KERNEL.format(blocked=''), tmp_path)
  (text,) = [x for x in outputs if x.output_type == 'stream']
  assert (text.name, text.text) == ('stdout', 'distil 1/2: loss 1\n')
  (widget,) = [x for x in outputs if x.output_type == 'display_data']
  assert 'application/vnd.jupyter.widget-view+json' in widget.data


def test_a_notebook_without_widgets_has_lines_alone(tmp_path):
  blocked = "sys.modules['ipywidgets'] = None"
  (text,) = in_kernel(KERNEL.format(blocked=blocked), tmp_path)
  assert (text.name, text.text) == ('stdout', 'distil 1/2: loss 1\n')


@pytest.mark.slow
def test_the_command_writes_a_readable_log(tmp_path):
  """As in `jaxkd train ... > log 2>&1`."""
  code = (
    "import sys; sys.path[:0] = ['.', 'tests']; import pathlib, tiny;"
    ' from jaxkd.commands import train;'
    ' train.run(tiny.config(), pathlib.Path(sys.argv[1]))'
  )
  with (tmp_path / 'log').open('w') as log:
    subprocess.run(
      [sys.executable, '-c', code, str(tmp_path / 'run')],
      stdout=log,
      stderr=subprocess.STDOUT,
      check=True,
      env={**os.environ, 'JAXKD_CACHE': str(tmp_path / 'cache')},
    )
  text = (tmp_path / 'log').read_text()
  assert not CONTROL.search(text)
  plan, epochs, result = (
    text.index(x) for x in ('Cost of training: ', 'teacher 1/2', 'Finished')
  )
  assert plan < epochs < result
