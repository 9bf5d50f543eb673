"""Problems: classification's answers, and a second problem from end to end."""

import dataclasses
import functools
import json
import pathlib
import re
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from scipy.special import log_softmax

from jaxkd import objectives, problems
from jaxkd.data import augment
from jaxkd.data.base import Dataset, Split, View, digest_splits
from jaxkd.graph import Frozen, Graph, Learner, Transfer
from jaxkd.graph.program import bind
from jaxkd.objectives.base import pointwise
from jaxkd.problems import CLASSIFICATION, Figure, Problem
from jaxkd.train import mesh as meshes
from jaxkd.train.evaluation import Evaluator
from jaxkd.train.loop import DivergedError
from jaxkd.train.phase import Task, train_phase
from jaxkd.train.vmapped import train_together
from jaxkd.types import Batch, Outputs

ROOT = pathlib.Path(__file__).parents[1]
SIZE, K = 4, 3
SHAPE = (SIZE, SIZE, 2)
VIEW = View(mean=(0.5, 0.5), std=(0.25, 0.25), pad=1, flip=True)


# A second problem: a label for each pixel. Nothing else knows of it.


def batch_spec(image_shape, size):
  def spec(shape, dtype):
    return jax.ShapeDtypeStruct((size, *shape), dtype)

  pixels = image_shape[:2]
  return Batch(
    image=spec(image_shape, jnp.float32),
    label=spec(pixels, jnp.int32),
    index=spec((), jnp.int32),
    mask=spec(pixels, jnp.float32),
  )


def train_view(raw, epoch, seed, view):
  """Moves image and label alike; the border that comes in does not count."""
  drawn = augment.view_number(raw['index'], epoch, seed=seed, view=view)
  offsets = augment.view_offsets(drawn, view)

  def moved(x):
    return augment.crop(x[..., None], *offsets, view.pad)[..., 0]

  image = augment.crop(raw['image'], *offsets, view.pad)
  return Batch(
    image=augment.eval_view(image, view=view),
    label=moved(raw['label']),
    index=raw['index'],
    mask=moved(jnp.ones(raw['label'].shape)),
  )


def eval_view(raw, mask, view):
  image = augment.eval_view(raw['image'], view=view)
  mask = jnp.broadcast_to(mask[:, None, None], raw['label'].shape)
  return Batch(**{**raw, 'image': image, 'mask': mask})


def sums(logits, batch):
  log_p = jax.nn.log_softmax(logits)
  nll = -jnp.take_along_axis(log_p, batch['label'][..., None], -1)[..., 0]
  hits = jnp.argmax(logits, axis=-1) == batch['label']
  return {'pixel_accuracy': total(hits, batch), 'nll': total(nll, batch)} | {
    'pixels': jnp.sum(batch['mask']),
    'seen': jnp.sum(batch['mask'][:, 0, 0]),
  }


def total(values, batch):
  return jnp.sum(values * batch['mask'])


def metrics(logits, batch):
  hits = jnp.argmax(logits, axis=-1) == batch['label']
  return {'pixel_accuracy': total(hits, batch) / jnp.sum(batch['mask'])}


def agreement(student, teacher, batch, temperature):
  del temperature
  same = jnp.argmax(student, axis=-1) == jnp.argmax(teacher, axis=-1)
  mask = batch['mask']
  return {
    'agreement': total(same, batch),
    'pixels': jnp.sum(mask),
    'seen': jnp.sum(mask[:, 0, 0]),
  }


def summary(totals):
  names = totals.keys() - {'seen', 'pixels'}
  return {name: float(totals[name] / totals['pixels']) for name in names}


PIXELS = Problem(
  name='pixels',
  batch_spec=batch_spec,
  train_view=train_view,
  eval_view=eval_view,
  label_objective='cross_entropy',
  metrics=metrics,
  sums=sums,
  agreement=agreement,
  summary=summary,
  headline='pixel_accuracy',
  finite=('nll',),
  figures={
    'pixel_accuracy': Figure('pixel accuracy', percent=True, column='pixels'),
    'nll': Figure('NLL (nats)', column='NLL'),
  },
)


class PerPixel(nn.Module):
  """A linear classifier of every pixel."""

  @nn.compact
  def __call__(self, image, train=False):
    del train
    return Outputs(nn.Dense(K)(image), {'pixels': image})


def split(size, seed, load=False):
  """Returns images whose label at a pixel is a function of that pixel."""
  image = np.random.default_rng(seed).integers(
    0, 256, (size, *SHAPE), dtype=np.uint8
  )
  label = right(image)
  if load:
    return Split(label, load=lambda index, _: image[index])
  return Split(label, image)


def right(image):
  first, second = np.moveaxis(image.astype(np.int32), -1, 0)
  return np.where(first > 128, 2, second > 128).astype(np.int32)


def dataset(**changes):
  train, test = split(20, 0), split(10, 1)
  made = Dataset(
    name='shapes',
    train=train,
    test=test,
    class_names=('a', 'b', 'c'),
    view=VIEW,
    fingerprint=digest_splits(train, test),
    problem='pixels',
  )
  return dataclasses.replace(made, **changes)


def make_task(**changes):
  """Returns a training by labels and by a frozen teacher."""
  labels = objectives.CATALOG[PIXELS.label_objective]()
  transfers = (
    Transfer('labels', 'student', labels),
    Transfer('teacher', 'student', objectives.CATALOG['kd'](), 0.1),
  )
  graph = Graph({'teacher': Frozen(), 'student': Learner()}, transfers)
  made: dict[str, Any] = dict(
    name='train',
    program=bind(graph, lambda *_: PerPixel(), SHAPE),
    dataset=dataset(),
    problem=PIXELS,
    mesh=meshes.make_mesh(),
    optimizer=optax.sgd(0.5),
    epochs=3,
    batch_size=8,
    seed=0,
  )
  return Task(**{**made, **changes})


def teacher(made):
  return {'teacher': made.program.init_network('teacher', jax.random.key(1))}


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
  apart = evaluator.compare(PerPixel(), variables, PerPixel(), other)
  assert apart['agreement'] < 0.5


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
  key, epoch = jax.random.key(0), jnp.zeros(())
  _, _, got = program.losses({}, {}, outputs, batch, epoch, key)
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
  key, epoch = jax.random.key(0), jnp.zeros(())
  loss, _, _ = program.losses({}, {}, outputs, batch, epoch, key)
  assert loss == 1.5


def test_objectives_are_rehearsed_on_its_batches(task):
  task.program.rehearse(PIXELS.batch_spec(SHAPE, 2))
  images = CLASSIFICATION.batch_spec(SHAPE, 2)  # one label for each image
  with pytest.raises(AssertionError):
    task.program.rehearse(images)


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


# Classification, and the catalogue.

each_problem = pytest.mark.parametrize('problem', problems.CATALOG.values())


def view_shapes(problem, size):
  """Returns the shapes of both views of the tiny data set."""
  data = tiny.experiment().dataset
  raw = {
    name: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype)
    for name, x in data.train.arrays.items()
  }
  raw['index'] = jax.ShapeDtypeStruct((size,), jnp.int32)
  train = functools.partial(problem.train_view, seed=0, view=data.view)
  test = functools.partial(problem.eval_view, view=data.view)
  mask = jax.ShapeDtypeStruct((size,), jnp.float32)
  epoch = jax.ShapeDtypeStruct((), jnp.int32)
  return jax.eval_shape(train, raw, epoch), jax.eval_shape(test, raw, mask)


@each_problem
def test_both_views_are_as_specified(problem):
  spec = problem.batch_spec((8, 8, 1), 5)
  for shapes in view_shapes(problem, 5):
    assert {k: (x.shape, x.dtype) for k, x in shapes.items()} == {
      k: (x.shape, x.dtype) for k, x in spec.items()
    }


@each_problem
def test_names_are_consistent(problem):
  assert problems.CATALOG[problem.name] is problem
  assert {problem.headline, *problem.finite} <= problem.figures.keys()
  assert problem.label_objective in objectives.CATALOG
  assert problem.best in problem.reported
  labels = [figure.label for figure in problem.reported.values()]
  assert len(set(labels)) == len(labels)


@each_problem
def test_training_names_no_metric(problem):
  words = '|'.join(problem.reported)
  for path in (ROOT / 'jaxkd/train').glob('*.py'):
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
  assert problems.figure('nll').show(0.5) == '0.500'
  assert problems.figure('best_top1_on_test').show(None) == '-'
  assert problems.figure('top1').percent
  assert not problems.figure('train_frobenius').percent


def test_chance_is_the_accuracy_of_guesses():
  data = tiny.experiment().dataset
  mean, deviation = CLASSIFICATION.chance(data)
  assert mean == pytest.approx(1 / 3)
  assert deviation == pytest.approx(np.sqrt(2 / 9 / 21))
