"""What holds of every objective in a training, on any devices, on any pair.

A new objective joins by its line in the catalogue, and by one of `NEEDED`,
`CONNECTED` or `ANYWHERE` if its defaults do not do for these networks.
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
from test_objectives import NEEDED

from jaxkd import models, objectives, tree
from jaxkd.graph import Graph, Learner, Transfer
from jaxkd.graph.program import bind
from jaxkd.losses.sizes import adaptive_average_pool
from jaxkd.models.norms import note, run
from jaxkd.train import mesh as meshes
from jaxkd.train import state as states
from jaxkd.train.checkpoint import Checkpoints
from jaxkd.train.step import make_step
from jaxkd.types import Outputs

each = pytest.mark.parametrize('name', sorted(objectives.CATALOG))
KEY = jax.random.key(0, impl='rbg')  # quick to compile
B, K, STEPS = 8, 5, 8
# Where the default is not defined between networks of any channels.
CONNECTED = {'fsp': {'connect': True}, 'kdsvd': {'connect': True}}
# And of any kind.
ANYWHERE = {**CONNECTED, 'ofd': {'margins': 'features'}}


def make(name: str, settings=CONNECTED) -> objectives.Objective:
  given = {**NEEDED.get(name, {}), **settings.get(name, {})}
  return objectives.make({'name': name, **given})


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
        note(self, f'{name}_pre', norm)
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
    self._one = make_step(program, OPTIMIZER, seed=0, steps_per_epoch=9)
    self._step = quick.jit(self._traced, out_shardings=(whole, whole))
    self.traces = 0

  def _traced(self, state, batch):
    self.traces += 1
    return self._one(state, batch)

  def run(self, state, steps):
    """Returns the state after some steps, and their losses."""
    found = []
    for _ in range(steps):
      state, metrics = self._step(state, self._batch)
      found.append(float(metrics['loss']))
    return state, found


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
def test_its_loss_falls_on_one_batch(name):
  _, found = one_device(name)
  assert np.all(np.isfinite(found))
  assert found[-1] < found[0], found
  assert training(name, 1).traces == 1


@each
def test_the_learner_and_its_own_modules_learn_and_not_the_guide(name):
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
def test_its_memory_is_the_same_on_all_devices(name):
  state, _ = four_devices(name)
  for path, x in tree.leaves(state.memory).items():
    copies = [np.asarray(shard.data) for shard in x.addressable_shards]
    assert len(copies) == 4 and x.is_fully_replicated, path
    for copy in copies:
      np.testing.assert_array_equal(copy, np.asarray(x), err_msg=path)


def test_memory_is_saved_and_gone_on_with_to_the_bit(tmp_path):
  kept = [name for name in objectives.CATALOG if start(name)[1].memory]
  assert {'annealed', 'crd', 'ctkd'} <= set(kept)
  told = 0
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
    told += lost != loss[:1]
  assert told  # by what is kept: this test would see it if it were lost


def test_a_guide_learns_only_if_it_is_asked_to():
  objective = make('kd'), make('at'), make('crd')
  names = [f'teacher->student:{each.name}' for each in objective]
  found = {}
  for detach in (True, False):
    program = program_of(
      *(Transfer('teacher', 'student', x, detach=detach) for x in objective)
    )
    _, state = start('kd')

    def slopes(params, program=program, stats=state.stats):
      own, memory = program.init_objectives(KEY, B)
      outputs, _ = program.forward(params, stats, batch()['image'])

      def losses(outputs):
        seen = own, memory, outputs, batch(), jnp.zeros(()), KEY
        metrics = program.losses(*seen)[2]
        return {name: metrics[f'loss/{name}'] for name in names}

      return jax.jacrev(losses)(outputs)

    found[detach] = quick.jit(slopes)(state.params)
  for detach, slopes in found.items():
    for name in names:
      student, teacher = (
        any(np.any(x != 0) for x in jax.tree.leaves(slopes[name][network]))
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
def says(name):
  """The shapes of what a network says of two CIFAR images."""
  net, image = models.build(name, K), jnp.zeros((2, 32, 32, 3))
  return jax.eval_shape(lambda: run(net, net.init(KEY, image), image)[0])


def of_features(name):
  return any('stage' in setting for setting in make(name).settings)


@pytest.mark.parametrize(
  'name', sorted(filter(of_features, objectives.CATALOG))
)
@pytest.mark.parametrize('guide', FAMILIES)
def test_it_leads_from_any_network_to_any_other(name, guide):
  objective = make(name, ANYWHERE)

  def run(guide, learner):
    params, memory = objective.init(KEY, guide, learner, 9)
    given = guide, learner, batch(2), KEY
    return objective.loss(params, memory, *given)[0]

  for learner in FAMILIES:
    shape = jax.eval_shape(run, says(guide), says(learner)).shape
    assert shape in ((2,), ())
