"""Runs: finished, resumed, refused, evaluated, and killed at any moment."""

import json
import pathlib
import random
import signal
import subprocess
import sys

import numpy as np
import pytest
import tiny

from jaxkd import checkpoints
from jaxkd.commands.evaluate import evaluate
from jaxkd.runs.results import result_table
from jaxkd.runs.run import Run
from jaxkd.training import checkpoint, log
from jaxkd.training.loop import DivergedError


def finish(workdir, **changes):
  return Run(tiny.experiment(**changes), pathlib.Path(workdir)).finish()


def digests(summary):
  return {n: r['params_sha256'] for n, r in summary['networks'].items()}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('run')


@pytest.fixture(scope='module')
def cache(folder):
  return str(folder / 'cache')


@pytest.fixture(scope='module')
def summary(folder, cache):
  return finish(folder / 'first', cache=cache, baseline=True)


def test_the_summary_has_the_results(summary, folder):
  assert json.loads((folder / 'first/summary.json').read_text()) == summary
  assert set(summary['networks']) == {'teacher', 'plain_student', 'student'}
  for result in summary['networks'].values():
    assert result['model'] == 'mlp'
    assert 0 <= result['top1'] <= result['best_top1_on_test'] <= 1
    assert result['nll'] > 0 and result['params'] > 0 and result['macs'] > 0
    assert len(result['params_sha256']) == 64
  assert summary['method'] == {'name': 'kd'}
  assert summary['epochs'] == 2 and summary['seed'] == 0
  assert summary['seconds'] > 0 and summary['images_per_second'] > 0
  origin = summary['provenance']
  assert origin['guide_fingerprints'] == {
    'teacher': digests(summary)['teacher']
  }
  assert origin['train_images'] == 40 and origin['test_images'] == 21
  assert 'resnet' not in result_table(summary)
  assert result_table(summary).count('mlp') == 3


def test_the_log_has_each_epoch_of_each_phase(summary, folder):
  records = log.read(folder / 'first/metrics.jsonl')
  assert [(r['phase'], r['epoch'], r['step']) for r in records] == [
    (phase, epoch, 5 * epoch)
    for phase in ('teacher', 'baseline', 'distil')
    for epoch in (1, 2)
  ]
  last = records[-1]
  student = summary['networks']['student']
  assert last['test/student/top1'] == student['top1']
  assert last['test/student/nll'] == student['nll']
  kd = last['train/loss/teacher->student:kd']
  labels = last['train/loss/labels->student:cross_entropy']
  np.testing.assert_allclose(last['train/loss'], 0.1 * labels + 0.9 * kd)
  assert 0 <= last['train/top1/student'] <= 1
  assert list((folder / 'first/tensorboard').glob('*/events*'))


def test_the_baseline_starts_where_the_student_starts(folder, cache):
  both = finish(
    folder / 'twins', cache=cache, baseline=True, method=dict(name='plain')
  )
  assert digests(both)['student'] == digests(both)['plain_student']


def test_a_trained_teacher_is_used_again(summary, folder, cache, capsys):
  again = finish(folder / 'second', cache=cache, seed=1)
  assert 'trained before' in capsys.readouterr().out
  assert digests(again)['teacher'] == digests(summary)['teacher']
  assert digests(again)['student'] != digests(summary)['student']
  assert again['phases']['teacher']['cached'].startswith(cache)
  other = finish(folder / 'third', cache=cache, teacher__loss='brier')
  assert digests(other)['teacher'] != digests(summary)['teacher']


def test_a_teacher_can_be_trained_alone_and_named(folder, cache, capsys):
  alone = finish(folder / 'teacher', cache=cache, method=dict(name='teacher'))
  assert set(alone['networks']) == {'teacher'}
  capsys.readouterr()
  named = finish(
    folder / 'named',
    cache=str(folder / 'no cache'),
    teacher__checkpoint=str(folder / 'teacher'),
  )
  assert 'teacher, frozen' in capsys.readouterr().out
  assert digests(named)['teacher'] == digests(alone)['teacher']
  for key in ('top1', 'nll', 'best_top1_on_test'):
    assert named['networks']['teacher'][key] == pytest.approx(
      alone['networks']['teacher'][key]
    )
  assert not (folder / 'no cache').exists()


@pytest.mark.usefixtures('summary')
def test_a_student_can_start_from_a_checkpoint(folder, cache):
  start = dict(
    cache=cache,
    student__checkpoint=str(folder / 'first'),
    method=dict(name='plain'),
    optimizer__learning_rate=0.0,
    optimizer__weight_decay=0.0,
  )
  tuned = finish(folder / 'tuned', **start)
  variables, _ = checkpoints.load(folder / 'first')
  after, _ = checkpoints.load(folder / 'tuned')
  for old, new in zip(
    variables['params'].values(), after['params'].values(), strict=True
  ):
    np.testing.assert_array_equal(old['kernel'], new['kernel'])
  assert tuned['epochs'] == 2


def test_evaluation_repeats_the_summary(summary, folder):
  result = evaluate(folder / 'first').to_json()
  student = summary['networks']['student']
  assert result['network'] == 'student' and result['images'] == 21
  assert result['top1'] == student['top1']
  assert result['nll'] == pytest.approx(student['nll'])


def test_averages_are_evaluated_and_kept(folder, cache):
  summary = finish(
    folder / 'ema',
    cache=cache,
    method=dict(name='plain'),
    optimizer__ema=0.5,
    data__settings__train_size=44,  # the last batch of an epoch has 4 examples
  )
  names = digests(summary)
  assert set(names) == {'student', 'student_ema'}
  assert names['student'] != names['student_ema']


class TestRefusals:
  """Folders, checkpoints and data that a run refuses, without any loss."""

  @pytest.mark.usefixtures('summary')
  def test_another_config(self, folder, cache):
    other = tiny.experiment(cache=cache, baseline=True, epochs=3, seed=4)
    with pytest.raises(ValueError) as error:
      Run(other, folder / 'first')
    assert 'epochs: 2 -> 3' in str(error.value)
    assert 'seed: 0 -> 4' in str(error.value)
    assert '--workdir' in str(error.value)

  def test_another_place_is_no_other_config(self, folder, summary):
    moved = tiny.experiment(cache='elsewhere', baseline=True)
    assert Run(moved, folder / 'first').summary == summary

  def test_other_data(self, folder, cache, tmp_path):
    finish(tmp_path, cache=cache)
    (tmp_path / 'summary.json').unlink()
    path = tmp_path / 'data.json'
    path.write_text(json.dumps({'name': 'synthetic', 'fingerprint': 'abc'}))
    with pytest.raises(ValueError, match="another data set(.|\n)*'abc' -> "):
      finish(tmp_path, cache=cache)

  def test_a_folder_with_something_else_in_it(self, tmp_path, cache):
    (tmp_path / 'thesis.tex').write_text('years of work')
    with pytest.raises(ValueError, match=r'holds no run .*thesis\.tex'):
      finish(tmp_path, cache=cache)

  def test_a_partial_file_is_not_something_else(self, tmp_path, cache):
    (tmp_path / 'config.json.partial').write_text('{"se')
    assert finish(tmp_path, cache=cache)['epochs'] == 2

  @pytest.mark.usefixtures('summary')
  @pytest.mark.parametrize(
    ('changes', 'message'),
    [
      (
        dict(teacher__name='resnet8'),
        "has model 'mlp', the config asks for a teacher with model 'resnet8'",
      ),
      (
        dict(data__settings=dict(num_classes=4, channels=1, train_size=40)),
        'has 3 classes .*, the data have 4 .*: set it to a map',
      ),
    ],
  )
  def test_a_checkpoint_of_another_network(
    self, folder, tmp_path, cache, changes, message
  ):
    settings = dict(
      cache=cache, teacher__checkpoint=str(folder / 'first'), **changes
    )
    with pytest.raises(ValueError, match=message):
      finish(tmp_path / 'run', **settings)
    assert not (tmp_path / 'run').exists()

  def test_a_checkpoint_that_is_not_there(self, tmp_path, cache):
    with pytest.raises(FileNotFoundError, match='no checkpoint in .*nowhere'):
      finish(tmp_path, cache=cache, teacher__checkpoint='nowhere')

  @pytest.mark.usefixtures('summary')
  def test_a_checkpoint_of_another_shape(self, folder, tmp_path, cache):
    variables, card = checkpoints.load(folder / 'first')
    del variables['params']['head']['bias']
    checkpoints.save(tmp_path / 'odd', variables, card)
    with pytest.raises(ValueError, match='- params/head/bias .* missing'):
      finish(
        tmp_path / 'run',
        cache=cache,
        teacher__checkpoint=str(tmp_path / 'odd'),
      )

  def test_an_infinite_loss(self, tmp_path, cache):
    wild = dict(
      cache=cache,
      method=dict(name='plain'),
      epochs=9,
      optimizer__learning_rate=1e9,
      optimizer__weight_decay=1e9,
    )
    with pytest.raises(
      DivergedError,
      match='training loss is (NaN|infinite) at step(.|\n)*learning_rate',
    ):
      finish(tmp_path, **wild)
    for record in log.read(tmp_path / 'metrics.jsonl'):
      assert record['test/student/nll'] is not None

  def test_a_full_disk_keeps_what_is_saved(self, tmp_path, cache, monkeypatch):
    # Several optimizers' states, all of which have to be restored.
    method = dict(name='slkd', order='batch', members=1)
    settings = dict(cache=cache, method=method, epochs=2)
    want = finish(tmp_path / 'whole', **settings)
    save, steps = checkpoint.Checkpoints.save, []

    def full(self, state, record):
      if len(steps) == 1:
        raise OSError(28, 'No space left on device')
      steps.append(save(self, state, record))

    monkeypatch.setattr(checkpoint.Checkpoints, 'save', full)
    with pytest.raises(OSError, match='No space left'):
      finish(tmp_path / 'run', **settings)
    monkeypatch.undo()
    assert digests(finish(tmp_path / 'run', **settings)) == digests(want)


# A child that runs the main job and kills itself: at the n-th step, in the
# middle of the n-th save, or while a network is written.
CHILD = """
import os, signal, sys
sys.path[:0] = ['.', 'tests']
import pathlib, tiny
from jaxkd.runs.run import Run
from jaxkd.training import checkpoint, feed

where, n, workdir, cache = sys.argv[1], int(sys.argv[2]), *sys.argv[3:]
count = 0

def dying(function, first):
  def call(*args, **kwargs):
    global count
    count += 1
    if count < n:
      return function(*args, **kwargs)
    if not first:
      function(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)
  return call

if where == 'step':
  feed.Feed._run = dying(feed.Feed._run, first=False)
if where == 'save':
  import orbax.checkpoint as ocp
  ocp.CheckpointManager.save = dying(ocp.CheckpointManager.save, first=True)
if where == 'commit':
  os.replace = dying(os.replace, first=True)
changes = dict(
  cache=cache,
  student__name='resnet8',
  save_every_steps=2,
  epochs=3,
  optimizer__ema=0.9,
)
Run(tiny.experiment(**changes), pathlib.Path(workdir)).finish()
"""


def child(where, n, workdir, cache):
  return subprocess.run(
    [sys.executable, '-c', CHILD, where, str(n), str(workdir), str(cache)],
    capture_output=True,
    text=True,
    check=False,
  )


@pytest.mark.slow
def test_a_killed_run_ends_as_an_uninterrupted_one(tmp_path):
  whole = child('never', 0, tmp_path / 'whole', tmp_path / 'a')
  assert whole.returncode == 0, whole.stderr
  rng = random.Random(0)
  kills = [
    ('step', rng.randint(3, 9)),
    ('save', rng.randint(2, 5)),
    ('step', rng.randint(3, 6)),
    ('step', rng.randint(1, 6)),
    ('commit', rng.randint(2, 3)),
  ]
  for kill in kills:
    killed = child(*kill, tmp_path / 'killed', tmp_path / 'b')
    assert killed.returncode == -signal.SIGKILL, (kill, killed.stderr)
  last = child('never', 0, tmp_path / 'killed', tmp_path / 'b')
  assert last.returncode == 0, last.stderr
  whole, killed = (
    json.loads((tmp_path / name / 'summary.json').read_text())
    for name in ('whole', 'killed')
  )
  for summary in (whole, killed):
    assert set(summary['networks']) == {'teacher', 'student', 'student_ema'}
  assert whole['networks'] == killed['networks']
  logs = [
    [
      (r['phase'], r['step'], r['train/loss'])
      for r in log.read(tmp_path / name / 'metrics.jsonl')
    ]
    for name in ('whole', 'killed')
  ]
  assert logs[0] == logs[1]
