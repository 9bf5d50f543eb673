"""The cost of a training, counted by hand; and what a run says before it."""

import pathlib

import numpy as np
import pytest
import tiny

from jaxkd import data
from jaxkd.commands import train
from jaxkd.commands.config_files import load
from jaxkd.config import default
from jaxkd.data import select
from jaxkd.data.base import Dataset, Split, View
from jaxkd.runs.experiment import build
from jaxkd.runs.run import Run
from jaxkd.runs.study import Study, describe

INPUT, HIDDEN, CLASSES = 8 * 8, 64, 3
MLP = INPUT * HIDDEN + HIDDEN * HIDDEN + HIDDEN * CLASSES  # MACs of an image
FORWARD, BOTH = 2 * MLP, 6 * MLP  # FLOPs


def flops(**changes):
  return [phase.flops for phase in tiny.experiment(**changes).phases]


def test_a_teacher_and_its_student():
  teacher, distil = flops()
  assert teacher == (BOTH, FORWARD)
  assert distil == (FORWARD + BOTH, FORWARD)  # a student is tested alone


def test_networks_that_learn_together():
  (mutual,) = flops(method=dict(name='dml', order='parallel'))
  assert mutual == (2 * BOTH, 2 * FORWARD)


@pytest.mark.parametrize(
  ('method', 'guides'),
  [(dict(name='dml'), 2), (dict(name='slkd', members=1), 1)],
)
def test_turns_run_guides_again_without_their_gradient(method, guides):
  together, in_turns = (
    flops(method={**method, 'order': order})[-1]
    for order in ('parallel', 'batch')
  )
  assert in_turns.training - together.training == guides * FORWARD
  assert in_turns.testing == together.testing


def test_two_gradients_have_two_passes_back():
  _, one = flops()
  _, two = flops(optimizer__name='dot')
  assert two.training - one.training == 4 * MLP


def test_a_network_that_no_step_runs_costs_nothing():
  _, cached = flops(teacher__cache='disk')
  assert cached.training == BOTH


@pytest.mark.parametrize(
  'settings',
  [
    {},
    dict(few_shot=7),
    dict(validation=50),
    dict(validation=50, few_shot=20),
    dict(hold_out=0.1),
    dict(hold_out=0.999),
    dict(hold_out=12.0),
  ],
  ids=str,
)
def test_training_images_are_counted_without_reading_them(settings):
  spec = data.spec('cifar100', {})
  label = np.repeat(np.arange(100, dtype=np.int32), 500)
  split = Split(label, np.zeros((50_000, 1, 1, 1), np.uint8))
  names = tuple(map(str, range(100)))
  whole = Dataset('x', split, split, names, View((0.0,), (1.0,)), '')
  if 'hold_out' in settings:
    whole = select.hold_out(whole, settings['hold_out'], 0)
  if 'validation' in settings:
    whole = select.validation(whole, settings['validation'])
  if 'few_shot' in settings:
    whole = select.few_shot(whole, settings['few_shot'])
  none = dict(few_shot=0, validation=0, hold_out=0.0)
  assert data.train_size(spec, **{**none, **settings}) == len(whole.train)


def test_the_description_has_steps_and_cost():
  config = default()
  config.student.name = config.teacher.name = 'mlp'
  config.epochs, config.data.few_shot = 3, 2  # 200 images, 4 batches
  made = build(config)
  text = made.describe()
  assert '200 images 32x32x3' in text
  assert 'Phase 2: distil (3 epochs x 4 steps,' in text
  # 207,104 MACs; 6 FLOPs for each of them to learn, 2 for the frozen teacher.
  assert text.endswith(
    'Cost of training: 24 steps, about 1.74 GFLOPs'
    ' (teacher 746 MFLOPs, distil 994 MFLOPs)'
  )


@pytest.mark.slow
def test_the_readme_shows_a_description():
  (page,) = pathlib.Path(__file__).parents[1].glob('README.md')
  _, after = page.read_text().split('$ jaxkd describe gpd_cifar\n')
  assert after.split('```')[0] == f'{build(load("gpd_cifar")).describe()}\n'


def test_a_run_says_what_is_left_to_do(tmp_path, capsys):
  cache, said = str(tmp_path / 'cache'), []
  Run(tiny.experiment(cache=cache), tmp_path / 'a').finish(said.append)
  Run(tiny.experiment(cache=cache, seed=1), tmp_path / 'b').finish(said.append)
  (first, second) = said
  assert first == tiny.experiment(cache=cache).describe()
  head, rest = second.split('Phase 1: teacher ')[1].split('Phase 2')
  assert head.strip().endswith('): trained before, from the cache')
  assert 'labels   ->  student' in rest
  assert second.endswith('Cost of training: 10 steps, about 5.37 MFLOPs')
  Run(tiny.experiment(cache=cache), tmp_path / 'a').finish(said.append)
  assert len(said) == 2  # it is finished
  (tmp_path / 'a' / 'report.html').touch()
  capsys.readouterr()
  train.run(tiny.config(cache=cache), tmp_path / 'a')
  last = capsys.readouterr().out.splitlines()[-1]
  assert last == f'Report: {tmp_path}/a/report.html'


def test_a_study_is_announced_as_a_table(tmp_path):
  recipes = {'KD': {}, 'plain': dict(method=dict(name='plain'))}
  config = tiny.config(
    epochs=1,
    study__seeds=(0, 1),
    study__recipes=recipes,
    study__only=('plain',),
    cache=str(tmp_path / 'cache'),
  )
  said = []
  Study(config, tmp_path / 'study').finish(said.append)
  config.study.only = ()
  for text in (*said, describe(config)):
    assert 'plain' in text
  assert said[0].startswith('1 recipe x 2 seeds: 2 runs, at most')
  whole = describe(config)
  assert whole.startswith('2 recipes x 2 seeds: 4 runs, at most')
  assert 'KD      teacher (1), distil (1)' in whole
  assert whole.count('Cost of training: ') == 2
