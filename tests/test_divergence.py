"""Numbers that are not finite: they are noticed early, and explained."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny

from jaxkd.checkpoints import native
from jaxkd.data.base import Dataset, Split, View
from jaxkd.runs import preflight
from jaxkd.runs.run import Run
from jaxkd.runs.vmapped import run_together
from jaxkd.training import divergence
from jaxkd.training.divergence import DivergedError
from jaxkd.training.evaluation import Evaluator


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
  monkeypatch.setenv('JAXKD_CACHE', str(tmp_path / 'cache'))


def saved(folder, change):
  """Writes a teacher for `tiny`, its head's kernel changed by a function."""
  experiment = tiny.experiment()
  (phase, *_) = experiment.phases
  program = phase.program
  variables = program.init_network('teacher', jax.random.key(0))
  variables = jax.tree.map(np.array, variables)
  change(variables['params']['head']['kernel'])
  native.save_pretrained(
    folder, 'mlp', variables, experiment.num_classes, experiment.image_shape
  )
  return str(folder)


def fill(value):
  def change(array):
    array[...] = value

  return change


@pytest.mark.parametrize('bad', [np.nan, np.inf])
@pytest.mark.parametrize('section', ['teacher', 'student'])
def test_a_checkpoint_that_is_not_finite_is_refused(tmp_path, section, bad):
  path = saved(tmp_path / 'network', fill(bad))
  changes = {f'{section}__checkpoint': path}
  run = Run(tiny.experiment(**changes), tmp_path / 'run')
  message = f'{section}.* has NaN or infinite values in params/head/kernel'
  with pytest.raises(ValueError, match=message):
    run.finish()
  assert not (tmp_path / 'run').exists()
  assert not (tmp_path / 'cache').exists()


def test_outputs_that_are_nan_are_not_called_guesses(tmp_path):
  """3e38 is finite, and the sum of two such numbers is not."""
  path = saved(tmp_path / 'network', fill(3e38))
  run = Run(tiny.experiment(teacher__checkpoint=path), tmp_path / 'run')
  with pytest.raises(ValueError, match='pretrained teacher .* are NaN, though'):
    run.finish()


def dataset(image, **changes):
  split = Split(np.arange(8, dtype=np.int32) % 2, image)
  view = View((0.0,), (1.0,), scale=1.0)
  made = Dataset('mine', split, split, ('a', 'b'), view, 'digest')
  return dataclasses.replace(made, **changes)


def test_data_that_are_not_finite_are_refused():
  image = np.zeros((8, 2, 2, 1), np.float32)
  preflight.check_data(dataset(image), 8)
  image[3, 0, 1], image[4] = np.nan, np.inf
  with pytest.raises(ValueError, match='the image of 2 of 8 examples'):
    preflight.check_data(dataset(image), 8)


@pytest.mark.parametrize('std', [0.0, -1.0, np.nan])
def test_a_deviation_that_is_not_positive_is_refused(std):
  image = np.zeros((8, 2, 2, 1), np.float32)
  with pytest.raises(ValueError, match='cannot be normalised by mean'):
    preflight.check_data(dataset(image, view=View((0.0,), (std,))), 8)


@pytest.mark.parametrize('together', [False, True])
def test_a_batch_larger_than_the_data_is_refused(tmp_path, together):
  experiment = tiny.experiment(batch_size=48)
  message = 'batch_size=48 must be at most the 40 training images of synthetic'
  with pytest.raises(ValueError, match=message):
    if together:
      run_together([experiment])
    else:
      Run(experiment, tmp_path / 'run').finish()


def test_a_loss_that_is_infinite_at_once_is_not_the_rates_fault(tmp_path):
  """The first loss comes before the first update."""
  experiment = tiny.experiment(method=dict(name='plain'))
  (phase,) = experiment.phases
  graph = phase.program.graph
  (transfer,) = graph.transfers
  heavy = dataclasses.replace(transfer, weight=float('inf'))
  graph = dataclasses.replace(graph, transfers=(heavy,))
  phase = dataclasses.replace(
    phase, program=dataclasses.replace(phase.program, graph=graph)
  )
  experiment = dataclasses.replace(experiment, phases=(phase,))
  with pytest.raises(DivergedError, match='is infinite at step 0') as error:
    Run(experiment, tmp_path / 'run').finish()
  assert 'does not help' in str(error.value)
  assert 'optimizer.learning_rate' not in str(error.value)


def test_a_guide_whose_outputs_are_nan_is_named():
  experiment = tiny.experiment()
  phase, dataset = experiment.phases[-1], experiment.dataset
  task = phase.task(dataset)
  test = Evaluator(dataset.train, dataset.view, task.problem, task.mesh)
  good = phase.program.init_network('teacher', jax.random.key(0))
  bad = jax.tree.map(lambda x: np.full_like(x, np.nan), good)
  for variables, want in ((bad, ['teacher']), (good, [])):
    got = divergence.undefined(phase.program, {'teacher': variables}, test)
    assert got == want
  text = divergence.advice(
    phase.program, first=False, transfers=[], guides=['teacher']
  )
  assert "frozen network 'teacher' has NaN" in text
  assert 'learning_rate' not in text


def test_advice_names_transfers_and_the_type_of_computation():
  low = tiny.experiment(compute_dtype='bfloat16').phases[-1].program
  high = tiny.experiment().phases[-1].program
  said = dict(first=True, transfers=['teacher->student'], guides=[])
  assert 'compute_dtype=float32' in divergence.advice(low, **said)
  text = divergence.advice(high, **said)
  assert 'teacher->student' in text and 'compute_dtype' not in text
  said['first'] = False
  assert 'lower --config.optimizer.learning_rate' in divergence.advice(
    high, **said
  )
