"""Several seeds in one training are what each of them is alone."""

import dataclasses

import chex
import jax
import numpy as np
import pytest
import tiny
from test_methods import start

from jaxkd.training import mesh as meshes
from jaxkd.training.evaluation import Evaluator
from jaxkd.training.loop import DivergedError
from jaxkd.training.state import variables_of
from jaxkd.training.vmapped import train_together

SEEDS = (0, 3)


def task_of(seed, **changes):
  """Plain training on 44 examples of three Gaussian classes."""
  settings = dict(
    num_classes=3,
    dimensions=4,
    variance=2.0,
    train_size=44,
    validation_size=30,
    test_size=21,
    seed=seed,
  )
  experiment = tiny.experiment(
    data__name='gaussian_mixture',
    data__image_size=0,
    data__settings=settings,
    method=dict(name='plain'),
    seed=seed,
    epochs=4,
    **changes,
  )
  return experiment.phases[-1].task(experiment.dataset)


@pytest.fixture(scope='module')
def tasks():
  return [task_of(seed) for seed in SEEDS]


@pytest.fixture(scope='module')
def outcomes(tasks):
  return train_together(tasks, [{}, {}])


@pytest.fixture(scope='module')
def histories(tasks):
  """For each seed, the student alone after each epoch."""
  by_seed = []
  for task in tasks:
    feed, state = start(task)
    feed, students = dataclasses.replace(feed, seed=task.seed), []
    for epoch in range(task.epochs):
      for call in feed.calls(epoch, 0):
        state, _ = call.run(state)
      now = variables_of(task.program, jax.tree.map(np.array, state))
      students.append(now['student'])
    by_seed.append(students)
  return by_seed


def test_each_seed_is_trained_as_it_would_be_alone(outcomes, histories):
  for outcome, students in zip(outcomes, histories, strict=True):
    chex.assert_trees_all_close(
      outcome.last['student'], students[-1], rtol=1e-4, atol=1e-6
    )
  kernels = [o.last['student']['params']['head']['kernel'] for o in outcomes]
  assert np.any(np.abs(kernels[0] - kernels[1]) > 1e-3)


def test_the_validation_split_chooses_the_epoch(tasks, outcomes, histories):
  for task, outcome, students in zip(tasks, outcomes, histories, strict=True):
    mesh, view = meshes.make_mesh(jax.devices()[:1]), task.dataset.view
    evaluator = Evaluator(task.dataset.validation, view, task.problem, mesh)
    module = task.program.modules['student']
    top1 = [evaluator(module, student)['top1'] for student in students]
    chex.assert_trees_all_close(
      outcome.best['student'],
      students[int(np.argmax(top1))],
      rtol=1e-4,
      atol=1e-6,
    )


def test_without_a_validation_split_the_last_epoch_is_best(tasks):
  tasks = [
    dataclasses.replace(
      task, epochs=1, dataset=dataclasses.replace(task.dataset, validation=None)
    )
    for task in tasks
  ]
  for outcome in train_together(tasks, [{}, {}]):
    chex.assert_trees_all_equal(
      outcome.best['student'], outcome.last['student']
    )


def test_averages_are_carried(tasks):
  tasks = [dataclasses.replace(task, epochs=1, ema=0.5) for task in tasks]
  for outcome in train_together(tasks, [{}, {}]):
    average, last = (outcome.last[n] for n in ('student_ema', 'student'))
    chex.assert_trees_all_equal_shapes(average, last)
    gap = average['params']['head']['kernel'] - last['params']['head']['kernel']
    assert 0 < np.max(np.abs(gap)) < 1


def test_a_diverged_loss_names_the_seed():
  tasks = [
    task_of(seed, optimizer__learning_rate=rate, optimizer__weight_decay=rate)
    for seed, rate in ((5, 1e9),)
  ]
  with pytest.raises(DivergedError, match='loss of seed 5 is (NaN|infinite)'):
    train_together(tasks, [{}])
