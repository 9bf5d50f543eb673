"""Frozen networks on several batches at once train like one by one.

The networks have no convolutions, since these are slow in loops on CPUs.
"""

import dataclasses
import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from test_methods import start

from jaxkd import objectives, tree
from jaxkd.graph import Frozen, Graph, Learner, Transfer
from jaxkd.graph.program import bind, only
from jaxkd.models.norms import record_norm
from jaxkd.training import bulk, frozen
from jaxkd.training import mesh as meshes
from jaxkd.training import state as states
from jaxkd.training.evaluation import Evaluator
from jaxkd.training.guides import Live
from jaxkd.training.step import make_step
from jaxkd.types import Outputs

SHAPE, CLASSES, STEPS, SIZE = (4, 4, 2), 3, 7, 6


class Pixels(nn.Module):
  """Layers on each pixel, with BatchNorm, and taps."""

  features: int
  num_classes: int = CLASSES
  width: float = 1
  branches: int = 1

  @nn.compact
  def __call__(self, x, train=False):
    taps = {}
    for i in (1, 2):
      norm = nn.BatchNorm(use_running_average=not train, name=f'norm{i}')
      x = norm(nn.Dense(self.features, name=f'layer{i}')(x))
      taps[f'stage{i}_pre'] = x
      record_norm(self, f'stage{i}_pre', norm.variables['params'])
      x = taps[f'stage{i}'] = nn.relu(x)
    x = taps['pooled'] = jnp.mean(x, (1, 2))
    return Outputs(nn.Dense(self.num_classes, name='head')(x), taps)


def build(name, width, branches=None):
  del width, branches
  return Pixels({'teacher': 10, 'student': 6}[name])


@functools.cache
def program():
  transfers = [
    Transfer('labels', 'student', objectives.cross_entropy()),
    Transfer('teacher', 'student', objectives.kd()),
    Transfer('teacher', 'student', objectives.at(stages='stage1')),
    Transfer('teacher', 'student', objectives.ofd(stages='stage2_pre')),
  ]
  networks = {'teacher': Frozen('teacher'), 'student': Learner('student')}
  return bind(Graph(networks, tuple(transfers)), build, SHAPE)


def random_teacher(seed=3):
  rng = np.random.default_rng(seed)
  net = build('teacher', 1)
  return jax.tree_util.tree_map_with_path(
    lambda path, x: np.float32(
      rng.uniform(0.5, 2, x.shape)
      if path[-1].key in ('var', 'scale')
      else rng.normal(size=x.shape) / 2
    ),
    tree.shapes(net, SHAPE),
  )


OPTIMIZER = optax.sgd(0.01)


@functools.cache
def step_of():
  return make_step(
    program(), OPTIMIZER, seed=0, steps_per_epoch=STEPS, epochs=1
  )


@functools.cache
def first_state():
  initial = {'teacher': random_teacher()}
  return states.init(
    program(), OPTIMIZER, jax.random.key(0), initial, examples=9
  )


def batch_of(image):
  index = jnp.arange(len(image), dtype=jnp.int32)
  label = index % CLASSES
  mask = jnp.ones(len(image))
  return {'image': image, 'label': label, 'index': index, 'mask': mask}


def images(steps=STEPS, size=SIZE):
  return jax.random.normal(jax.random.key(4), (steps, size, *SHAPE))


@functools.cache
def trained(platform, batches):
  run = functools.partial(
    bulk.steps, step_of(), batch_of, platform=platform, batches=batches
  )
  return jax.jit(run)(first_state(), images())


def test_steps_are_those_of_single_calls():
  step, state, metrics = jax.jit(step_of()), first_state(), []
  for image in images():
    state, own = step(state, batch_of(image))
    metrics.append(own)
  want = state, jax.tree.map(lambda *x: jnp.stack(x), *metrics)
  chex.assert_trees_all_close(trained('cpu', 1), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('batches', [1, 2, 3, STEPS, 10])
def test_several_batches_at_once_give_the_same_steps(batches):
  """Also where the number of steps is not a multiple of that of batches."""
  got, want = trained('gpu', batches), trained('cpu', 1)
  chex.assert_trees_all_close(got, want, rtol=1e-4, atol=1e-5)
  teacher = (got[0].params['teacher'], got[0].stats['teacher'])
  before = first_state()
  chex.assert_trees_all_equal(
    teacher, (before.params['teacher'], before.stats['teacher'])
  )


def test_a_single_step_is_the_same_folded():
  """As for images that come from the host, one batch in a call."""
  run = functools.partial(bulk.steps, step_of(), batch_of)
  results = [
    jax.jit(functools.partial(run, platform=platform))(
      first_state(), images(steps=1)
    )
    for platform in ('cpu', 'tpu')
  ]
  chex.assert_trees_all_close(*results, rtol=1e-4, atol=1e-5)


def test_only_outputs_that_losses_read_are_kept():
  batch = batch_of(images()[0])
  needed = frozen.needed(program(), first_state(), batch, epochs=1)
  read = [name for name, is_read in tree.leaves(needed).items() if is_read]
  wanted = ['logits', 'taps/stage1', 'taps/stage2_pre']
  wanted += ['norms/stage2_pre/bias', 'norms/stage2_pre/scale']
  assert sorted(read) == sorted(f'teacher/{name}' for name in wanted)
  own = step_of().networks(first_state(), batch['image'], needed)
  outputs = own(batch['image'])['teacher']
  nan = [n for n, x in tree.leaves(outputs).items() if np.all(np.isnan(x))]
  assert sorted(nan) == sorted(
    name.removeprefix('teacher/') for name in {*tree.leaves(needed)} - {*read}
  )


@pytest.mark.parametrize(
  ('platform', 'limits', 'number'),
  [
    ('gpu', {}, 10),
    ('tpu', {}, 1),
    ('cpu', {}, 1),
    ('gpu', {'PIXELS': 4 * SIZE * 16 + 1}, 4),
    ('gpu', {'PIXELS': 1}, 1),
    # Of a batch, float32: logits, two maps, scale and bias.
    ('gpu', {'BYTES': 3 * 4 * (SIZE * (3 + 2 * 160) + 20)}, 3),
    ('gpu', {'BYTES': 1}, 1),
  ],
)
def test_how_many_batches(platform, limits, number, monkeypatch):
  for name, value in limits.items():
    monkeypatch.setattr(bulk, name, value)
  spec = batch_of(images()[0])
  assert bulk._at_once(step_of(), first_state(), spec, platform, None) == number


@pytest.mark.parametrize('batches', [1, 2])
def test_constants_are_computed_outside_of_the_loop(batches):
  """Its body has two scales of BatchNorms less: those of the teacher's."""
  run = functools.partial(bulk.steps, step_of(), batch_of, batches=batches)
  counts = []
  for platform in ('cpu', 'tpu'):
    one = functools.partial(run, platform=platform)
    jaxpr = jax.make_jaxpr(one)(first_state(), images())
    loop = next(e for e in jaxpr.eqns if e.primitive.name == 'scan')
    counts.append(str(loop.params['jaxpr']).count('rsqrt'))
  assert counts[0] == counts[1] + 2


@pytest.mark.parametrize('at_once', [2, 3])
def test_a_feed_over_devices(at_once):
  experiment = tiny.experiment(batch_size=8)
  task = experiment.phases[-1].task(experiment.dataset)
  results = []
  for chunk, number in ((1, 1), (5, at_once)):
    feed, state = start(task)
    changes = dict(chunk=chunk, at_once=number, mesh=meshes.make_mesh())
    feed = dataclasses.replace(feed, **changes)
    state = jax.device_put(state, meshes.whole(feed.mesh))
    for call in feed.calls(0, 0):
      state, _ = call.run(state)
    results.append(state.params)
  chex.assert_trees_all_close(*results, rtol=1e-5, atol=1e-6)


def test_evaluation_and_live_outputs_are_the_same_folded(monkeypatch):
  """As everywhere but on CPUs."""
  experiment = tiny.experiment()
  task = experiment.phases[-1].task(experiment.dataset)
  dataset, problem = task.dataset, task.problem
  net, shape = Pixels(8), dataset.image_shape
  rng = np.random.default_rng(0)
  variables = jax.tree.map(
    lambda x: np.float32(rng.uniform(0.5, 1.5, x.shape)),
    tree.shapes(net, shape),
  )
  mesh, results = meshes.make_mesh(), []
  for unfolded in (('cpu',), ()):
    monkeypatch.setattr(frozen, 'UNFOLDED', unfolded)
    test = Evaluator(dataset.test, dataset.view, problem, mesh)
    live = Live(
      Outputs(jax.ShapeDtypeStruct((CLASSES,), np.float32), {}),
      lambda variables, x: only(net.apply(variables, x), ()),
      variables,
      None,
      dataset=dataset,
      problem=problem,
      mesh=mesh,
      seed=0,
    )
    live.start((), 0, None)
    stored = meshes.put_split(dataset.train, mesh)
    results.append(
      (
        test(net, variables),
        test.outputs(net, variables, 9, ('stage1',)),
        test.compare(net, variables, net, variables),
        live(np.arange(16).reshape(2, 8), stored, None),
      )
    )
  chex.assert_trees_all_close(*results, rtol=1e-4, atol=1e-5)
  assert results[1][2]['agreement'] == 1
