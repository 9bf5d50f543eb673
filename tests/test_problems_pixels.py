"""A problem that nothing in the package names is trained and evaluated."""

import dataclasses
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pixels import (
  PIXELS,
  SHAPE,
  SIZE,
  VIEW,
  K,
  PerPixel,
  dataset,
  make_task,
  right,
  split,
  summary,
  teacher,
  train_view,
)
from scipy.special import log_softmax

from jaxkd.graph import Graph, Learner, Transfer
from jaxkd.graph.program import bind
from jaxkd.objectives.base import pointwise
from jaxkd.problems import CLASSIFICATION
from jaxkd.training.evaluation import Evaluator
from jaxkd.training.loop import DivergedError
from jaxkd.training.phase import train_phase
from jaxkd.training.vmapped import train_together
from jaxkd.types import Batch, Outputs


@pytest.fixture(scope='module')
def task():
  return make_task()


@pytest.fixture(scope='module')
def trained(task, tmp_path_factory):
  folder = tmp_path_factory.mktemp('pixels')
  return folder, train_phase(task, folder, teacher(task))


def records(folder):
  lines = (folder / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


def test_a_phase_trains_on_labels_per_pixel(trained):
  folder, result = trained
  first, *_, last = records(folder)
  assert last['train/loss'] < first['train/loss']
  assert 'train/pixel_accuracy/student' in last
  student = result.results['student']
  assert student['pixel_accuracy'] == last['test/student/pixel_accuracy']
  assert 1 / K < student['pixel_accuracy'] <= 1
  accuracies = [r['test/student/pixel_accuracy'] for r in records(folder)]
  assert student['best_pixel_accuracy_on_test'] == max(accuracies)
  assert not any('top1' in name for name in last)


def test_its_metrics_are_numpys(trained, task):
  _, result = trained
  test = task.dataset.test
  image = np.float32((test.image / 255 - 0.5) / 0.25)
  variables = result.variables['student']
  logits = np.asarray(PerPixel().apply(variables, image).logits, np.float64)
  hits = logits.argmax(-1) == test.label
  log_p = log_softmax(logits, axis=-1)
  nll = -np.take_along_axis(log_p, test.label[..., None], -1)
  student = result.results['student']
  np.testing.assert_allclose(student['pixel_accuracy'], hits.mean(), rtol=1e-5)
  np.testing.assert_allclose(student['nll'], nll.mean(), rtol=1e-4)


def test_progress_is_shown_in_its_terms(task, tmp_path, capsys):
  made = dataclasses.replace(task, epochs=1)
  result = train_phase(made, tmp_path, teacher(made))
  shown = capsys.readouterr()
  student = 100 * result.results['student']['pixel_accuracy']
  teachers = 100 * result.results['teacher']['pixel_accuracy']
  assert f'frozen, {teachers:.2f} % pixel accuracy on 10 test' in shown.out
  assert f'student {student:.2f} %' in shown.out
  assert 'test pixel accuracy teacher' in shown.out


def test_a_split_on_the_host_trains_like_one_in_memory(trained, task, tmp_path):
  lazy = dataset(train=split(20, 0, load=True), test=split(10, 1, load=True))
  made = dataclasses.replace(task, dataset=lazy)
  result = train_phase(made, tmp_path, teacher(made))
  chex.assert_trees_all_close(
    result.variables, trained[1].variables, rtol=1e-5, atol=1e-6
  )


def test_seeds_train_together_and_choose_their_epochs(task):
  made = dataset(validation=split(6, 2))
  tasks = [
    dataclasses.replace(task, dataset=made, seed=seed) for seed in (0, 1)
  ]
  outcomes = train_together(tasks, [teacher(task)] * 2)
  kernels = [o.best['student']['params']['Dense_0']['kernel'] for o in outcomes]
  assert np.all(np.isfinite(kernels)) and np.any(kernels[0] != kernels[1])


def test_networks_are_compared_pixel_by_pixel(task):
  variables = teacher(task)['teacher']
  other = jax.tree.map(lambda x: -x, variables)
  made = task.dataset
  evaluator = Evaluator(made.test, made.view, PIXELS, task.mesh)
  same = evaluator.compare(PerPixel(), variables, PerPixel(), variables)
  assert same == {'agreement': 1}
  negated = evaluator.compare(PerPixel(), variables, PerPixel(), other)
  assert negated['agreement'] < 0.5


def test_labels_move_with_their_pixels():
  raw = {**split(20, 0).arrays, 'index': np.arange(20)}
  batch = jax.tree.map(np.asarray, train_view(raw, jnp.int32(0), 0, VIEW))
  image = np.round(255 * (0.25 * batch['image'] + 0.5))
  counted = batch['mask'] > 0
  np.testing.assert_array_equal(right(image)[counted], batch['label'][counted])
  assert 0 < np.sum(~counted) and np.any(batch['label'] != raw['label'])


@pytest.mark.parametrize('per_pixel', [True, False])
def test_losses_are_averaged_over_the_pixels_that_count(task, per_pixel):
  program = task.program
  shapes = jax.random.normal(jax.random.key(2), (2, 2, *SHAPE[:2], K))
  outputs = {
    name: Outputs(logits, {})
    for name, logits in zip(('teacher', 'student'), shapes, strict=True)
  }
  mask = np.array([1.0, 0.0], np.float32)
  if per_pixel:
    mask = np.random.default_rng(0).integers(0, 2, (2, SIZE, SIZE))
  batch = Batch(
    image=jnp.zeros((2, *SHAPE)),
    label=jnp.zeros((2, SIZE, SIZE), jnp.int32),
    index=jnp.arange(2),
    mask=jnp.asarray(mask, jnp.float32),
  )
  now = dict(key=jax.random.key(0), epoch=jnp.zeros(()), epochs=3)
  _, _, got = program.losses({}, {}, outputs, batch, **now)
  log_p = log_softmax(np.float64(shapes[1]), axis=-1)[..., 0]
  want = -np.mean(log_p[mask > 0])
  np.testing.assert_allclose(
    got['loss/labels->student:cross_entropy'], want, rtol=1e-5
  )


def test_an_objective_per_example_takes_a_mask_of_pixels():
  """A loss [B] counts the examples that have a pixel that counts."""
  values = jnp.array([1.0, 2.0, 4.0])
  each = pointwise('each', lambda *_: values, takes_labels=True)
  transfer = Transfer('labels', 'student', each)
  graph = Graph({'student': Learner()}, (transfer,))
  program = bind(graph, lambda *_: PerPixel(), SHAPE)
  batch = {'mask': jnp.zeros((3, SIZE, SIZE)).at[:2, 0, 0].set(1)}
  outputs = {'student': Outputs(jnp.zeros((3, SIZE, SIZE, K)), {})}
  now = dict(key=jax.random.key(0), epoch=jnp.zeros(()), epochs=3)
  loss, _, _ = program.losses({}, {}, outputs, batch, **now)
  assert loss == 1.5


def test_objectives_are_checked_on_its_batches(task):
  task.program.check_objectives(PIXELS.batch_spec(SHAPE, 2), 3)
  images = CLASSIFICATION.batch_spec(SHAPE, 2)  # one label for each image
  with pytest.raises(AssertionError):
    task.program.check_objectives(images, 3)


def test_a_metric_that_must_be_finite_ends_the_training(tmp_path):
  made = make_task(epochs=1)

  def broken(total):
    return {**summary(total), 'nll': np.inf}

  problem = dataclasses.replace(PIXELS, summary=broken)
  message = r'NLL \(nats\) of student on the test split is infinite at step 3 '
  with pytest.raises(DivergedError, match=message):
    train_phase(
      dataclasses.replace(made, problem=problem), tmp_path, teacher(made)
    )
