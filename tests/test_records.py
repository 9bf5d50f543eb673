"""Runs on disk, and how they are grouped into recipes over seeds."""

import json
import pathlib

import made_runs
import pytest
import tiny

from jaxkd import config as configs
from jaxkd.runs import recipes, records
from jaxkd.runs.experiment import build
from jaxkd.runs.run import Run

VERSION_0_1 = pathlib.Path(__file__).parent / 'data' / 'version_0_1' / 'run'


def labels(*names):
  """The labels of the recipes of each group, with their seeds."""
  groups, _ = recipes.group(records.find(names)[0])
  return [{x.label: sorted(x.runs) for x in g.recipes} for g in groups]


def test_runs_are_found_by_every_kind_of_name(tmp_path, monkeypatch):
  made_runs.over_seeds(tmp_path / 'a', [0.1] * 11)
  made_runs.make(tmp_path / 'b' / 'one')
  names = [f'a/seed{n}' for n in range(11)]

  def found(*names):
    runs, _ = records.find(names)
    return [str(run.path.relative_to(tmp_path)) for run in runs]

  assert found(tmp_path / 'a') == names  # seed10 after seed9
  assert found(f'{tmp_path}/*') == [*names, 'b/one']
  assert found(f'{tmp_path}/*/seed?') == names[:10]
  assert found(tmp_path / 'b/one', tmp_path) == ['b/one', *names]
  monkeypatch.setenv('RUNS', str(tmp_path))
  assert found('$RUNS/b/one', '$RUNS/b') == ['b/one']


def test_paths_without_runs_are_refused(tmp_path):
  (tmp_path / 'empty').mkdir()
  for name in ('nowhere', 'empty', 'no*'):
    with pytest.raises(FileNotFoundError, match='no run is there'):
      records.find([tmp_path / name])


def test_unfinished_runs_are_named(tmp_path):
  made_runs.over_seeds(tmp_path, [0.5])
  made_runs.make(tmp_path / 'later', finished=False)
  runs, left_out = records.find([tmp_path])
  assert len(runs) == 1
  assert left_out == {tmp_path / 'later': 'not finished'}


def test_seeds_that_were_trained_together_are_runs(tmp_path):
  config = configs.default()
  config.study.seeds = (0, 1)
  config.study.recipes = {'b': {}, 'a': {'epochs': 9}}
  config.study.only = ('b', 'a')
  study = tmp_path / 'study'
  (study / 'runs').mkdir(parents=True)
  own = configs.resolved(config)
  (study / 'config.json').write_text(json.dumps(own))
  (study / 'summary.json').write_text(
    json.dumps({'provenance': {'git_commit': 'c' * 40}})
  )
  for name, epochs in (('a', 9), ('b', 240)):
    runs = [{**own, 'seed': seed, 'epochs': epochs} for seed in (0, 1)]
    networks = [{'student': {'top1': 0.5 + seed / 10}} for seed in (0, 1)]
    (study / 'runs' / f'{name}.json').write_text(
      json.dumps({'configs': runs, 'runs': networks})
    )
  assert (
    labels(study)
    == labels(tmp_path)
    == [{'epochs 240': ['0', '1'], 'epochs 9': ['0', '1']}]
  )
  runs, _ = records.find([study])
  assert [run.value('student/top1') for run in runs] == [0.5, 0.6] * 2
  assert {run.commit for run in runs} == {'ccccccc'}


def test_a_folder_that_is_being_written_can_be_compared(tmp_path, monkeypatch):
  made_runs.over_seeds(tmp_path, [0.5])
  vanishing = tmp_path / 'vanishing'
  vanishing.mkdir()
  walk = records.os.walk

  def walking(path):
    for place in walk(path):
      vanishing.rmdir() if vanishing.exists() else None
      yield place

  monkeypatch.setattr(records.os, 'walk', walking)
  assert len(records.find([tmp_path])[0]) == 1


def test_a_run_of_version_0_1_is_read():
  (run,), _ = records.find([VERSION_0_1])
  assert (
    run.value('student/top1')
    == json.loads((VERSION_0_1 / 'summary.json').read_text())['networks'][
      'student'
    ]['top1']
  )
  assert {*configs.default().student} == {
    key.split('.')[1]
    for key in run.settings
    if key.startswith('student.') and key.count('.') == 1
  } | {'settings', 'taps'}


def test_a_metric_that_is_missing_gets_suggestions(tmp_path):
  made_runs.make(tmp_path / 'run')
  (run,), _ = records.find([tmp_path])
  assert run.metrics == {
    'student/top1': 0.5,
    'student/nll': 1.0,
    'teacher/top1': 0.75,
  }
  with pytest.raises(KeyError, match="no metric 'top2'. Did you mean 'top1'"):
    run.value('student/top2')
  with pytest.raises(KeyError, match="no metric 'params'"):
    run.value('student/params')
  with pytest.raises(KeyError, match="no network 'studnt'. Did you mean"):
    run.value('studnt/top1')


@pytest.mark.parametrize(
  'settings',
  [
    {'cache': '/elsewhere'},
    {'data.dir': '/elsewhere'},
    {'allow_changed': ('config',)},
    {'save_every_steps': 5},
    {'baseline': True},
    {'kd_baseline': True},
    {'study.columns': ('student/nll',)},
    {'store.views': 3},
    {'method': {'name': 'kd', 'temperature': 4.0}},  # its default
  ],
  ids=str,
)
def test_what_cannot_change_a_result_makes_no_recipe(settings, tmp_path):
  made_runs.make(tmp_path / 'a')
  made_runs.make(tmp_path / 'b', {'seed': 1, **settings})
  ((one,),) = (list(x.values()) for x in labels(tmp_path))
  assert one == ['0', '1']


@pytest.mark.parametrize(
  ('settings', 'want'),
  [
    ({'method.temperature': 2.0}, 'temperature 2'),
    ({'teacher.loss': 'brier'}, 'teacher loss brier'),
    ({'method': {'name': 'gpd'}}, 'gpd'),
    ({'optimizer.learning_rate': 0.1}, 'learning rate 0.1'),
    ({'student.name': 'resnet20'}, 'student resnet20'),
    ({'data.few_shot': 10}, 'few-shot 10'),
    ({'epochs': 30}, 'epochs 30'),
    (
      {'method': {'name': 'distil', 'objective': 'dkd'}},
      'distil, objective dkd',
    ),
  ],
  ids=str,
)
def test_what_can_change_a_result_is_named(settings, want, tmp_path):
  made_runs.make(tmp_path / 'a')
  made_runs.make(tmp_path / 'b', settings)
  (by_label,) = labels(tmp_path)
  assert list(by_label)[1] == want and len(by_label) == 2


def test_settings_of_a_teacher_that_is_not_there_do_not_count(tmp_path):
  plain = {'method': {'name': 'plain'}}
  made_runs.make(tmp_path / 'a', plain, teacher=None)
  other = {**plain, 'seed': 1, 'teacher.name': 'resnet110'}
  made_runs.make(tmp_path / 'b', other, teacher=None)
  assert labels(tmp_path) == [{'plain, student resnet8x4': ['0', '1']}]


def test_checkpoints_are_compared_by_their_content(tmp_path):
  for n, (path, digest) in enumerate(
    [('/a.npz', 'x'), ('/moved/a.npz', 'x'), ('/a.npz', 'y')]
  ):
    made_runs.make(
      tmp_path / f'{n}', {'teacher.checkpoint': path, 'seed': n}
    ).joinpath('pretrained.json').write_text(json.dumps({'teacher': digest}))
  (by_label,) = labels(tmp_path)
  assert by_label == {
    'teacher checkpoint x': ['0', '1'],
    'teacher checkpoint y': ['2'],
  }


def test_a_sum_of_many_differences_is_shortened_but_all_are_kept(tmp_path):
  made_runs.make(tmp_path / 'a')
  gpd = {
    'method': {'name': 'gpd', 'weight': 3.0},
    'student.branches': 6,
    'optimizer.clip_norm': 5.0,
    'optimizer.ema': 0.9,
  }
  made_runs.make(tmp_path / 'b', gpd)
  groups, _ = recipes.group(records.find([tmp_path])[0])
  (group,) = groups
  assert [x.label for x in group.recipes] == ['kd', 'gpd']
  assert group.differing == {
    'method.name': ['kd', 'gpd'],
    'student.branches': [1, 6],
    'optimizer.clip_norm': [0.0, 5.0],
    'optimizer.ema': [0.0, 0.9],
  }


def test_seeds_that_change_together_are_one(tmp_path):
  for n in range(3):
    own = {'seed': n, 'teacher.seed': n}
    made_runs.make(tmp_path / 'together' / str(n), own)
  ((one,),) = (list(x.values()) for x in labels(tmp_path / 'together'))
  assert one == ['0', '1', '2']
  for n in range(6):
    own = {'seed': n % 3, 'teacher.seed': n // 3}
    made_runs.make(tmp_path / 'apart' / str(n), own)
  assert labels(tmp_path / 'apart') == [
    {'teacher seed 0': ['0', '1', '2'], 'teacher seed 1': ['0', '1', '2']}
  ]


def test_teachers_have_the_seed_of_their_section(tmp_path):
  for n in range(3):
    own = {'method': {'name': 'teacher'}, 'teacher.seed': n}
    made_runs.make(tmp_path / str(n), own)
  ((one,),) = (list(x.values()) for x in labels(tmp_path))
  assert one == ['0', '1', '2']


def test_repeated_seeds_are_told_apart_by_their_commits(tmp_path):
  made_runs.over_seeds(tmp_path / 'old', [0.1, 0.2])
  made_runs.over_seeds(tmp_path / 'new', [0.3, 0.4], commit='b' * 40)
  assert labels(tmp_path / 'old', tmp_path / 'new') == [
    {'commit aaaaaaa': ['0', '1'], 'commit bbbbbbb': ['0', '1']}
  ]
  made_runs.over_seeds(tmp_path / 'again', [0.1])
  runs = records.find([tmp_path / 'old', tmp_path / 'again'])[0]
  (group,), left_out = recipes.group(runs)
  assert [sorted(x.runs) for x in group.recipes] == [['0', '1']]
  assert left_out == {
    tmp_path / 'again/seed0': (
      f'the same recipe and seed as {tmp_path / "old/seed0"}'
    )
  }


def test_seeds_of_one_recipe_may_come_from_several_commits(tmp_path):
  made_runs.over_seeds(tmp_path / 'old', {0: 0.1})
  made_runs.over_seeds(tmp_path / 'new', {1: 0.3}, commit='b' * 40)
  ((seeds,),) = (list(x.values()) for x in labels(tmp_path))
  assert seeds == ['0', '1']


@pytest.mark.parametrize(
  'others',
  [
    dict(settings={'data.name': 'digits'}),
    dict(settings={'data.hold_out': 0.2}),
    dict(settings={'data.settings': {'classes': 3}}),
    dict(test_images=50),
    dict(fingerprint='changed since'),
  ],
  ids=str,
)
def test_other_test_images_are_in_a_table_of_their_own(others, tmp_path):
  made_runs.over_seeds(tmp_path / 'a', [0.1, 0.2])
  settings = others.pop('settings', {})
  made_runs.over_seeds(tmp_path / 'b', [0.1], settings, **others)
  assert [list(x.values()) for x in labels(tmp_path)] == [[['0', '1']], [['0']]]


def test_other_training_images_are_in_the_same_table(tmp_path):
  made_runs.make(tmp_path / 'a')
  few = {'data.few_shot': 50, 'data.augment': 'none'}
  made_runs.make(tmp_path / 'b', few, fingerprint='fewer images')
  assert labels(tmp_path) == [
    {'augment default, few-shot 0': ['0'], 'augment none, few-shot 50': ['0']}
  ]


def test_twins_of_the_student_do_not_change_it(tmp_path):
  """So runs with and without them are of one recipe."""
  digests = set()
  for name, changes in {
    'alone': {},
    'twins': dict(baseline=True, kd_baseline=True),
    'saved': dict(save_every_steps=2),
  }.items():
    config = tiny.config(epochs=1, cache=str(tmp_path / 'cache'), **changes)
    summary = Run(build(config), tmp_path / name).finish()
    digests.add(summary['networks']['student']['params_sha256'])
  assert len(digests) == 1
  ((seeds,),) = (list(x.values()) for x in labels(tmp_path / 'twins'))
  assert seeds == ['0']
