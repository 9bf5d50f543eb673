"""Weights & Biases: one run for each folder, continued when it is resumed."""

import json
import os
import subprocess
import sys
import types

import pytest
import tiny

from jaxkd.runs.run import Run
from jaxkd.training import log


class FakeRun:
  """Remembers what it is told."""

  def __init__(self, arguments):
    self.arguments, self.logged, self.summary = arguments, [], {}
    self.defined, self.status = [], None

  def log(self, values):
    self.logged.append(values)

  def define_metric(self, name, step_metric):
    self.defined.append((name, step_metric))

  def finish(self, exit_code):
    self.status = exit_code


@pytest.fixture
def wandb(monkeypatch):
  """A module in place of W&B, with the list of its runs."""
  module = types.ModuleType('wandb')
  module.runs = []

  def init(**arguments):
    module.runs.append(FakeRun(arguments))
    return module.runs[-1]

  module.init, module.Image, module.Settings = init, lambda x: x, dict
  monkeypatch.setitem(sys.modules, 'wandb', module)
  return module


class KilledError(Exception):
  """Ends a run in the middle."""


def experiment(folder, project='lab/kd', **changes):
  return tiny.experiment(
    cache=str(folder / 'cache'), log__wandb=project, **changes
  )


def kill(epoch):
  if epoch.phase == 'distil':
    raise KilledError


def epochs(runs):
  """Returns the (phase, epoch) that runs were sent, in their order."""
  return [
    (key.removesuffix('/epoch'), value)
    for run in runs
    for values in run.logged
    for key, value in values.items()
    if key.endswith('/epoch')
  ]


def test_a_resumed_run_continues(wandb, tmp_path):
  folder = tmp_path / 'study' / 'run'
  with pytest.raises(KilledError):
    Run(experiment(tmp_path), folder, [kill]).finish()
  summary = Run(experiment(tmp_path), folder).finish()
  killed, resumed = wandb.runs
  assert killed.arguments['id'] == resumed.arguments['id']
  assert killed.arguments['resume'] == 'allow'
  assert resumed.arguments['entity'] == 'lab'
  assert resumed.arguments['project'] == 'kd'
  assert resumed.arguments['name'] == 'study/run'
  assert resumed.arguments['config']['batch_size'] == 8
  assert (killed.status, resumed.status) == (1, 0)
  want = [(phase, n) for phase in ('teacher', 'distil') for n in (1, 2)]
  assert epochs(wandb.runs) == want
  assert ('distil/*', 'distil/epoch') in resumed.defined
  last = log.read(folder / 'metrics.jsonl')[-1]
  sent = resumed.logged[-1]
  for key in ('test/student/top1', 'gap/student', 'learning_rate', 'step'):
    assert sent[f'distil/{key}'] == last[key]
  student = summary['networks']['student']
  assert resumed.summary['student/top1'] == student['top1']
  assert 'student/model' not in resumed.summary
  pictures = [
    x for run in wandb.runs for x in run.logged if 'epoch' not in str(x)
  ]
  assert [list(x) for x in pictures] == [
    ['teacher/train_images'],
    ['distil/train_images'],
  ]


def test_epochs_that_were_sent_are_not_sent_again(wandb, tmp_path):
  folder = tmp_path / 'run'
  with pytest.raises(KilledError):
    Run(experiment(tmp_path), folder, [kill]).finish()
  # As if it had been killed before the epoch was saved.
  for path in (folder / 'checkpoints' / 'distil').iterdir():
    assert path.name == '5'
    path.rename(tmp_path / 'lost')
  Run(experiment(tmp_path), folder).finish()
  sent = epochs(wandb.runs)
  assert sent.count(('distil', 1)) == 1 and ('distil', 2) in sent


def test_the_project_may_change(wandb, tmp_path):
  folder = tmp_path / 'run'
  with pytest.raises(KilledError):
    Run(experiment(tmp_path), folder, [kill]).finish()
  Run(experiment(tmp_path, project='other'), folder).finish()
  one, other = wandb.runs
  assert one.arguments['id'] != other.arguments['id']
  assert other.arguments['entity'] is None
  assert json.loads((folder / 'wandb.json').read_text())['project'] == '/other'


def test_nothing_is_sent_by_default(wandb, tmp_path):
  made = tiny.experiment(method=dict(name='plain'))
  Run(made, tmp_path / 'run').finish()
  assert wandb.runs == [] and not (tmp_path / 'run/wandb.json').exists()


def test_a_missing_library_is_named_before_anything(monkeypatch, tmp_path):
  monkeypatch.setitem(sys.modules, 'wandb', None)
  with pytest.raises(ImportError, match=r"pip install 'jaxkd\[wandb\]'"):
    Run(experiment(tmp_path), tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


OFFLINE = """
import pathlib, sys
sys.path[:0] = ['.', 'tests']
import tiny
from jaxkd.runs.run import Run
made = tiny.experiment(method=dict(name='plain'), log__wandb='jaxkd-test')
Run(made, pathlib.Path(sys.argv[1])).finish()
"""


@pytest.mark.slow
def test_the_library_itself_works_offline(tmp_path):
  pytest.importorskip('wandb')
  subprocess.run(
    [sys.executable, '-c', OFFLINE, str(tmp_path / 'run')],
    check=True,
    env={**os.environ, 'WANDB_MODE': 'offline'},
  )
  (folder,) = (tmp_path / 'run' / 'wandb').glob('offline-run-*')
  (record,) = folder.glob('*.wandb')
  run = json.loads((tmp_path / 'run' / 'wandb.json').read_text())
  assert run['id'] in record.name and run['epochs'] == {'train': 2}
  data = record.read_bytes()
  assert b'train/test/student/top1' in data
