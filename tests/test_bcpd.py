"""The bench that knows the posterior: what the paper's toy is known to show.

One seed and fewer recipes than configs/bcpd_gaussian.py, and a quarter of its
epochs at four times its rate.
"""

import importlib.util
import pathlib

import numpy as np
import pytest

from jaxkd.runs import comparison
from jaxkd.runs.study import Study

FILE = pathlib.Path(__file__).parents[1] / 'configs/bcpd_gaussian.py'

RECIPES = (
  'K=3/CE',
  'K=3/MSE mean',
  'K=10/logits, clip',
  'K=10/logits, softmax',
  *(f'noisy targets/eta {n:3d} %' for n in (0, 25, 50, 75, 100)),
)


slow = pytest.mark.slow


def config_of(recipes):
  """The config with some of its recipes and one seed."""
  spec = importlib.util.spec_from_file_location('bcpd_gaussian', FILE)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config()
  config.study.only = recipes
  config.study.seeds = (0,)
  return config


@pytest.fixture(scope='module')
def bench(tmp_path_factory):
  """Runs some of the config's recipes and returns the figures by group."""
  config = config_of(RECIPES)
  config.epochs //= 4
  config.optimizer.learning_rate *= 4
  config.data.settings.test_size = 20000
  study = Study(config, tmp_path_factory.mktemp('bench'))
  return comparison.grouped(study.finish()['recipes'])


def of(recipe, key):
  return np.array(comparison.values_of(recipe, key))


def test_the_bench_measures_distances_to_the_posterior(tmp_path):
  config = config_of(('K=10/logits, clip',))
  config.epochs = 1
  for split in ('train', 'validation', 'test'):
    config.data.settings[f'{split}_size'] = 256
  recipes = Study(config, tmp_path / 'bench').finish()['recipes']
  recipe = comparison.grouped(recipes)['K=10']['logits, clip']
  (distance,) = of(recipe, 'teacher/train_posterior_square')
  (norm,) = of(recipe, 'teacher/train_frobenius')
  np.testing.assert_allclose(norm**2, 256 * distance, rtol=1e-5)
  for key in ('teacher/posterior_square', 'student/top1', 'teacher/top1'):
    assert 0 < of(recipe, key) < 2, key


@slow
def test_students_follow_the_squared_distance_of_their_targets(bench):
  correlations = comparison.rank_correlations(
    bench['noisy targets'], 'target/train_frobenius', 'student/top1'
  )
  assert max(correlations) <= -0.9


@slow
def test_squared_error_comes_nearer_to_the_posterior(bench):
  ce, mse = bench['K=3']['CE'], bench['K=3']['MSE mean']
  ratio = of(mse, 'teacher/train_frobenius') / of(ce, 'teacher/train_frobenius')
  assert np.all(ratio < 0.7), ratio
  assert np.all(of(mse, 'student/top1') > of(ce, 'student/top1'))


@slow
def test_raw_outputs_need_their_own_read_out(bench):
  clip, softmax = (
    bench['K=10'][f'logits, {how}'] for how in ('clip', 'softmax')
  )
  for key in ('teacher/posterior_square', 'teacher/train_posterior_square'):
    assert np.all(of(softmax, key) > 2 * of(clip, key))
  # The same network, read out in two ways.
  np.testing.assert_array_equal(
    of(clip, 'teacher/top1'), of(softmax, 'teacher/top1')
  )
  assert np.all(of(clip, 'student/top1') > of(softmax, 'student/top1') + 0.01)
