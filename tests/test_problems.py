"""Problems: the catalogue, and the answers of classification."""

import dataclasses
import functools
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxkd import objectives, problems
from jaxkd.problems import CLASSIFICATION

ROOT = pathlib.Path(__file__).parents[1]

each_problem = pytest.mark.parametrize('problem', problems.CATALOG.values())


def view_shapes(problem, size):
  """Returns the shapes of both views of images with a problem's labels."""
  data = tiny.experiment().dataset
  raw = {
    'image': jax.ShapeDtypeStruct((size, 8, 8, 1), jnp.uint8),
    'label': problem.batch_spec((8, 8, 1), size, 3)['label'],
    'index': jax.ShapeDtypeStruct((size,), jnp.int32),
  }
  train = functools.partial(problem.train_view, seed=0, view=data.view)
  test = functools.partial(problem.eval_view, view=data.view)
  mask = jax.ShapeDtypeStruct((size,), jnp.float32)
  epoch = jax.ShapeDtypeStruct((), jnp.int32)
  return jax.eval_shape(train, raw, epoch), jax.eval_shape(test, raw, mask)


@each_problem
def test_both_views_are_as_specified(problem):
  spec = problem.batch_spec((8, 8, 1), 5, 3)
  for shapes in view_shapes(problem, 5):
    assert {k: (x.shape, x.dtype) for k, x in shapes.items()} == {
      k: (x.shape, x.dtype) for k, x in spec.items()
    }


@each_problem
def test_names_are_consistent(problem):
  assert problems.CATALOG[problem.name] is problem
  assert {problem.headline, *problem.finite} <= problem.displays.keys()
  assert problem.label_objective in objectives.CATALOG
  assert problem.best in problem.reported
  labels = [display.label for display in problem.reported.values()]
  assert len(set(labels)) == len(labels)


@each_problem
def test_training_names_no_metric(problem):
  words = '|'.join(problem.reported)
  for path in (ROOT / 'jaxkd/training').glob('*.py'):
    named = re.findall(rf"'(?:{words})\b", path.read_text())
    assert not named, f'{path.name}: {named}'


def test_a_data_set_names_its_problem():
  data = tiny.experiment().dataset
  assert problems.of(data) is CLASSIFICATION
  wrong = dataclasses.replace(data, problem='clasification')
  with pytest.raises(KeyError, match="Did you mean 'classification'"):
    problems.of(wrong)


def test_metrics_of_a_batch_leave_padding_out():
  logits = jnp.array([[2.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
  batch = {'label': jnp.array([0, 0, 0]), 'mask': jnp.array([1.0, 1.0, 0.0])}
  assert CLASSIFICATION.metrics(logits, batch) == {'top1': 0.5}


def test_figures_are_shown_as_people_read_them():
  assert CLASSIFICATION.show_headline({'top1': 0.619}) == '61.90 %'
  assert problems.display('nll').show(0.5) == '0.500'
  assert problems.display('best_top1_on_test').show(None) == '-'
  assert problems.display('top1').percent
  assert not problems.display('train_frobenius').percent


def test_chance_is_the_accuracy_of_guesses():
  data = tiny.experiment().dataset
  mean, deviation = CLASSIFICATION.chance(data)
  assert mean == pytest.approx(1 / 3)
  assert deviation == pytest.approx(np.sqrt(2 / 9 / 21))
