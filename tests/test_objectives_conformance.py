"""Every objective in a training, on any devices, between any networks.

A new objective joins by its line in the catalogue; if its defaults do not fit
these networks, its module has an `EXAMPLE`.
"""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import quick

from jaxkd import models, objectives, tree
from jaxkd.graph import Graph, Learner, Transfer
from jaxkd.graph.program import bind
from jaxkd.losses.sizes import adaptive_average_pool
from jaxkd.models import norms
from jaxkd.train import mesh as meshes
from jaxkd.train import state as states
from jaxkd.train.checkpoint import Checkpoints
from jaxkd.train.step import make_step
from jaxkd.types import Outputs

each = pytest.mark.parametrize('name', sorted(objectives.CATALOG))
KEY = jax.random.key(0, impl='rbg')  # quick to compile
B, K, STEPS = 8, 5, 8
# For networks without BatchNorm.
ANYWHERE = {'ofd': {'margins': 'features'}}


def make(name: str, **settings) -> objectives.Objective:
  return objectives.make({**objectives.example(name, K), **settings})


# Training.


class Tiny(nn.Module):
  """Quick to compile: each tap is linear in the image, averaged to a size."""

  sides: tuple[int, ...]
  channels: tuple[int, ...]

  @nn.compact
  def __call__(self, image, train=False):
    del train
    taps = {}
    for i, (side, c) in enumerate(zip(self.sides, self.channels, strict=True)):
      name = f'stage{i}' if i else 'stem'
      norm = {
        'scale': self.param(f'{name}_scale', nn.initializers.ones, (c,)),
        'bias': self.param(f'{name}_bias', nn.initializers.normal(0.1), (c,)),
      }
      x = adaptive_average_pool(image, (side, side))
      x = nn.Dense(c, use_bias=False, name=name)(x)
      x = x * norm['scale'].reshape(1, 1, 1, -1)
      x = x + norm['bias'].reshape(1, 1, 1, -1)
      if i:
        taps[f'{name}_pre'] = x
        norms.record_norm(self, f'{name}_pre', norm)
      taps[name] = x = nn.relu(x)
    pooled = taps['pooled'] = jnp.mean(x, axis=(1, 2))
    return Outputs(nn.Dense(K, name='head')(pooled), taps)


NETWORKS = {  # of a stage one map is half and one twice as large
  'student': Tiny((8, 4, 2), (3, 6, 8)),
  'teacher': Tiny((8, 2, 4), (4, 5, 6)),
}
# Steps of one length, whatever the loss is measured in.
OPTIMIZER = optax.chain(optax.normalize_by_update_norm(), optax.sgd(0.1))


def batch(size=B):
  # Of few channels, maps would have singular values that are but rounding.
  rng = np.random.default_rng(0)
  return {
    'image': rng.normal(size=(size, 8, 8, 6)).astype(np.float32),
    'label': np.arange(size, dtype=np.int32) % K,
    'index': np.arange(size, dtype=np.int32),
    'mask': np.ones(size, np.float32),
  }


def program_of(*transfers):
  # So that the teacher is among what could learn.
  idle = Transfer('labels', 'teacher', objectives.cross_entropy(), 0.0)
  networks = {'teacher': Learner(), 'student': Learner()}
  graph = Graph(networks, (*transfers, idle))
  return bind(graph, lambda like, *_: NETWORKS[like], (8, 8, 6))


@functools.cache
def networks():
  """Returns where the networks start."""
  program = program_of(Transfer('teacher', 'student', make('kd')))

  def init():
    return {name: program.init_network(name, KEY) for name in NETWORKS}

  return jax.tree.map(np.array, quick.jit(init)())


@functools.cache
def start(name):
  """Returns the program of an objective, and its first state."""
  program = program_of(Transfer('teacher', 'student', make(name)))
  init = functools.partial(states.init, program, OPTIMIZER, examples=B)
  return program, jax.tree.map(np.array, quick.jit(init)(KEY, networks()))


class Training:
  """Of one objective, on one batch and some devices.

  traces: how often the step was traced.
  """

  def __init__(self, name, devices):
    program, state = start(name)
    mesh = meshes.make_mesh(jax.devices()[:devices])
    whole = meshes.whole(mesh)
    self.start = jax.device_put(state, whole)
    self._batch = jax.device_put(batch(), meshes.batch_split(mesh, B))
    self._one = make_step(
      program, OPTIMIZER, seed=0, steps_per_epoch=9, epochs=1
    )
    self._step = quick.jit(self._traced, out_shardings=(whole, whole))
    self.traces = 0

  def _traced(self, state, batch):
    self.traces += 1
    return self._one(state, batch)

  def run(self, state, steps):
    """Returns the state after some steps, and their losses."""
    losses = []
    for _ in range(steps):
      state, metrics = self._step(state, self._batch)
      losses.append(float(metrics['loss']))
    return state, losses


training = functools.cache(Training)


@functools.cache
def one_device(name, steps=STEPS):
  one = training(name, 1)
  return one.run(one.start, steps)


@functools.cache
def four_devices(name):
  four = training(name, 4)
  return four.run(four.start, 1)


@each
def test_the_loss_falls_on_one_batch(name):
  _, losses = one_device(name)
  assert np.all(np.isfinite(losses))
  assert losses[-1] < losses[0], losses
  assert training(name, 1).traces == 1


@each
def test_only_the_learner_and_the_objective_are_updated(name):
  _, before = start(name)
  after, _ = one_device(name)
  old, new = tree.leaves(before.params), tree.leaves(after.params)
  moved = {leaf for leaf in old if np.any(old[leaf] != new[leaf])}
  owners = {leaf.split('/')[0] for leaf in old}
  assert {leaf.split('/')[0] for leaf in moved} == owners - {'teacher'}
  # A bias in front of a BatchNorm has no gradient.
  kernels = {n for n, x in old.items() if n.startswith('obj') and x.ndim > 1}
  assert kernels <= moved


@each
def test_four_devices_agree_with_one(name):
  """Also where the loss is a relation of the batch, which is the whole one."""
  (one, loss), (four, other) = one_device(name, 1), four_devices(name)
  np.testing.assert_allclose(loss, other, rtol=1e-5, atol=1e-5)
  close = functools.partial(chex.assert_trees_all_close, rtol=1e-5, atol=1e-5)
  close(one.params, four.params)
  close(one.memory, four.memory)


@each
def test_memory_is_the_same_on_all_devices(name):
  state, _ = four_devices(name)
  for path, x in tree.leaves(state.memory).items():
    copies = [np.asarray(shard.data) for shard in x.addressable_shards]
    assert len(copies) == 4 and x.is_fully_replicated, path
    for copy in copies:
      np.testing.assert_array_equal(copy, np.asarray(x), err_msg=path)


def test_resume_with_memory_is_bit_identical(tmp_path):
  kept = [name for name in objectives.CATALOG if start(name)[1].memory]
  assert 'crd' in kept
  differs = 0
  for name in kept:
    four, (state, _) = training(name, 4), four_devices(name)
    checkpoints = Checkpoints(tmp_path / name)
    checkpoints.save(state, {})
    restored, _ = checkpoints.restore(four.start)
    checkpoints.close()
    chex.assert_trees_all_equal(restored, state)
    (again, loss), (whole, want) = (four.run(x, 2) for x in (restored, state))
    assert loss == want
    chex.assert_trees_all_equal(again, whole)
    assert four.traces == 1
    _, lost = four.run(restored._replace(memory=four.start.memory), 1)
    differs += lost != loss[:1]
  assert differs  # so this test notices memory that is lost


def test_a_guide_gets_a_gradient_only_without_detach():
  several = make('kd'), make('at'), make('crd')
  names = [f'teacher->student:{x.name}' for x in several]
  gradients = {}
  for detach in (True, False):
    program = program_of(
      *(Transfer('teacher', 'student', x, detach=detach) for x in several)
    )
    _, state = start('kd')

    def jacobian(params, program=program, stats=state.stats):
      own, memory = program.init_objectives(KEY, B)
      outputs, _ = program.forward(params, stats, batch()['image'])

      def losses(outputs):
        now = dict(key=KEY, epoch=jnp.zeros(()), epochs=1)
        metrics = program.losses(own, memory, outputs, batch(), **now)[2]
        return {name: metrics[f'loss/{name}'] for name in names}

      return jax.jacrev(losses)(outputs)

    gradients[detach] = quick.jit(jacobian)(state.params)
  for detach, by_loss in gradients.items():
    for name in names:
      student, teacher = (
        any(np.any(x != 0) for x in jax.tree.leaves(by_loss[name][network]))
        for network in ('student', 'teacher')
      )
      assert student and teacher != detach, name


# Networks.

# With and without a stem, of three and of four stages, of tokens, of maps whose
# stages end without an activation, of vectors.
FAMILIES = (
  'resnet8',
  'imagenet_mobilenet_v1',
  'vit_tiny',
  'rvt_tiny',
  'mobilenet_v2',
  'mlp',
)


@functools.cache
def outputs_of(name):
  """The shapes of a network's outputs on two CIFAR images."""
  net, image = models.build(name, K), jnp.zeros((2, 32, 32, 3))
  return jax.eval_shape(
    lambda: norms.apply(net, net.init(KEY, image), image)[0]
  )


def of_features(name):
  return any('stage' in setting for setting in make(name).settings)


@pytest.mark.parametrize(
  'name', sorted(filter(of_features, objectives.CATALOG))
)
@pytest.mark.parametrize('guide', FAMILIES)
def test_it_is_defined_between_any_two_networks(name, guide):
  objective = make(name, **ANYWHERE.get(name, {}))

  def run(learner, guide):
    ends = dict(learner=learner, guide=guide)
    params, memory = objective.init(KEY, **ends, examples=9)
    now = dict(batch=batch(2), key=KEY, epoch=jnp.zeros(()), epochs=1)
    return objective.loss(params, memory, **ends, **now)[0]

  for learner in FAMILIES:
    shape = jax.eval_shape(run, outputs_of(learner), outputs_of(guide)).shape
    assert shape in ((2,), ())
