"""Properties of every method of the catalogue."""

import dataclasses
import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxkd import methods
from jaxkd.graph.program import bind
from jaxkd.models.mobilenet import MobileNetV1
from jaxkd.training import mesh as meshes
from jaxkd.training import phase as phases
from jaxkd.training.feed import Feed
from jaxkd.training.state import trainable
from jaxkd.training.step import make_step
from jaxkd.types import Outputs

# In the place of networks that are widened or have another's classifier, and
# where the loss has to fall although a weight rises.
NET = MobileNetV1(4, (((8, 1, 2),),), num_classes=3)
CONVOLVED = ('gpd', 'simkd', 'two teachers')


class OneStage(nn.Module):
  """In the place of the others: quick to compile.

  With BatchNorm, whose statistics must move or stay.
  """

  @nn.compact
  def __call__(self, image, train=False):
    b, h, w, c = image.shape
    patches = image.reshape(b, h // 4, 4, w // 4, 4, c).swapaxes(2, 3)
    patches = patches.reshape(b, h // 4, w // 4, 16 * c)
    x = nn.Dense(8, use_bias=False, name='patches')(patches)
    x = nn.BatchNorm(use_running_average=not train, name='bn')(x)
    x = nn.relu(x)
    pooled = jnp.mean(x, axis=(1, 2))
    logits = nn.Dense(3, name='head')(pooled)
    return Outputs(logits, {'stage1_pre': x, 'stage1': x, 'pooled': pooled})


# Settings that a method needs besides its name; and variants of methods.
NEEDED = {
  'dgkd': dict(assistants=('mlp',)),
  'pro_kd': dict(objective='kd', tune_epochs=1),
  'takd': dict(assistants=('mlp',)),
}
OTHER = {
  'distil by dot': dict(optimizer__name='dot', method=dict(name='distil')),
  'two teachers': dict(
    method=dict(
      name='distil',
      teachers={'teacher': 0.5, 'second': {'name': 'mlp'}},
      objective={
        'kd': 0.5,
        'fitnet': {'stage': 'last', 'weight': 0.1, 'warmup_epochs': 2},
      },
    )
  ),
}
CASES = {
  **{
    name: dict(method=dict(name=name, **NEEDED.get(name, {})))
    for name in methods.CATALOG
  },
  **OTHER,
}
PHASES = {'pro_kd': 0}  # the phase that is tested, if it is not the last
each = pytest.mark.parametrize('name', sorted(CASES))
# One case of each mechanism: BatchNorm of the whole batch, two gradients,
# parameters that are shared, a reused classifier, turns, a teacher that learns
# beside its student.
MECHANISMS = ('distil', 'distil by dot', 'gpd', 'simkd', 'dml', 'pro_kd')


@functools.cache
def task_of(name):
  experiment = tiny.experiment(**CASES[name])
  task = experiment.phases[PHASES.get(name, -1)].task(experiment.dataset)

  def build(_, width, branches):
    if name not in CONVOLVED:
      return OneStage()
    return NET.clone(width=width, branches=branches or 1)

  program = bind(task.program.graph, build, task.program.input_shape)
  return dataclasses.replace(task, program=program)


class NoCheckpoints:
  """No save to resume from."""

  def latest(self):
    return None


def start(task):
  """Returns the feed and the first state on one device."""
  mesh = meshes.make_mesh(jax.devices()[:1])
  program = task.program

  @jax.jit
  def frozen(key):
    names = program.graph.frozen
    return {name: program.init_network(name, key) for name in names}

  initial = frozen(jax.random.key(7, impl='rbg'))
  task = dataclasses.replace(task, mesh=mesh)
  state, _ = phases.start(task, initial, NoCheckpoints())
  return feed_of(task, mesh), state


def feed_of(task, mesh):
  step = make_step(
    task.program,
    task.optimizer,
    seed=0,
    steps_per_epoch=6,
    epochs=task.length,
    ema=task.ema,
    measure=task.problem.metrics,
  )
  return Feed(task.dataset, task.problem, mesh, 8, 0, step, chunk=1)


@functools.cache
def first_state(name):
  """Returns the first state as NumPy arrays, which steps do not donate."""
  _, state = start(task_of(name))
  return jax.tree.map(np.array, state)


@functools.cache
def started(name, devices=1):
  """Returns a feed, its first state, and the batches that were traced."""
  feed = feed_of(task_of(name), meshes.make_mesh(jax.devices()[:devices]))
  traces = []

  def counted(state, batch, step=feed.step):
    traces.append(batch['label'].shape)
    return step(state, batch)

  return dataclasses.replace(feed, step=counted), first_state(name), traces


def steps(name, devices, calls):
  """Returns the state after some calls of the feed, and their losses."""
  feed, state, _ = started(name, devices)
  state = jax.device_put(state, meshes.whole(feed.mesh))
  losses = []
  for call in calls(feed):
    state, metrics = call.run(state)
    losses.append(float(metrics['loss'][0]))
  return jax.tree.map(np.array, state), losses


def first_steps(feed):
  return list(feed.calls(0, 0))[:4]


@functools.cache
def run_of(name, devices=1):
  """Returns the states before and after four steps, and their losses."""
  after, losses = steps(name, devices, first_steps)
  return started(name, devices)[1], after, losses


@each
def test_only_the_learners_move(name):
  before, after, _ = run_of(name)
  graph = task_of(name).program.graph
  for frozen in graph.frozen:
    chex.assert_trees_all_equal(before.params[frozen], after.params[frozen])
    chex.assert_trees_all_equal(before.stats[frozen], after.stats[frozen])
  for update in graph.updates():
    for old, new in zip(
      jax.tree.leaves(trainable(before, update)),
      jax.tree.leaves(trainable(after, update)),
      strict=True,
    ):
      assert np.any(old != new)
  for trained in graph.trained:
    old, new = before.stats[trained], after.stats[trained]
    assert all(
      np.any(a != b)
      for a, b in zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True)
    )


@pytest.mark.parametrize(
  'name',
  [
    name if name in MECHANISMS else pytest.param(name, marks=pytest.mark.slow)
    for name in sorted(CASES)
  ],
)
def test_four_devices_agree_with_one(name):
  _, one, losses = run_of(name)
  _, four, other = run_of(name, devices=4)
  np.testing.assert_allclose(losses, other, rtol=2e-4)
  chex.assert_trees_all_close(one.params, four.params, rtol=2e-3, atol=2e-4)
  chex.assert_trees_all_close(one.stats, four.stats, rtol=2e-3, atol=2e-4)


@each
def test_loss_falls_on_one_batch(name):
  _, losses = steps(name, 1, lambda feed: first_steps(feed)[:1] * 10)
  assert losses[-1] < 0.9 * losses[0], losses


@each
def test_traces_once(name):
  run_of(name)
  _, _, traces = started(name, 1)
  assert traces == [(8,)]


@pytest.mark.parametrize('name', sorted(methods.CATALOG))
def test_the_result_is_the_last_network_that_is_trained(name):
  settings = NEEDED.get(name, {})
  phases = methods.phases(name, settings, teacher_settings={})
  want = 'teacher' if name == 'teacher' else 'student'
  assert phases[-1].graph.result == want
  assert {p.name for p in phases if p.reusable} <= {'teacher'}


def test_every_method_is_documented():
  for name, method in methods.CATALOG.items():
    assert method.__doc__, name
