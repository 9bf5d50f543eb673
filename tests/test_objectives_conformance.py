"""Every objective in a training, on any devices, between any networks.

A new objective joins by its line in the catalogue; if its defaults do not fit
these networks, its module has an `EXAMPLE`.

All of them train in one graph, each a student of its own, so that there is one
step to compile for each number of devices. The students are copies in one
network: its arrays, and those of its outputs, have a leading axis.
"""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxkd import models, objectives, tree
from jaxkd.graph import OBJECTIVES, Graph, Learner, Transfer
from jaxkd.graph.program import bind
from jaxkd.losses.sizes import adaptive_average_pool
from jaxkd.models import norms
from jaxkd.training import mesh as meshes
from jaxkd.training import state as states
from jaxkd.training.checkpoint import Checkpoints
from jaxkd.training.step import make_step
from jaxkd.types import Outputs

NAMES = sorted(objectives.CATALOG)
each = pytest.mark.parametrize('name', NAMES)
KEY = jax.random.key(0, impl='rbg')  # quick to compile
B, K, STEPS = 8, 5, 8
# For networks without BatchNorm.
ANYWHERE = {'ofd': {'margins': 'features'}}


def make(name: str, **settings) -> objectives.Objective:
  return objectives.make({**objectives.example(name, K), **settings})


# Training.


KERNEL = nn.initializers.lecun_normal()


def alike(init):
  """Returns an initializer of copies that start as one."""
  return lambda key, shape: jnp.broadcast_to(init(key, shape[1:]), shape)


class Tiny(nn.Module):
  """Copies whose taps are linear in the image, averaged to a size."""

  copies: int
  sides: tuple[int, ...]
  channels: tuple[int, ...]

  @nn.compact
  def __call__(self, image, train=False):
    del train
    taps = {}
    for i, (side, c) in enumerate(zip(self.sides, self.channels, strict=True)):
      name = f'stage{i}' if i else 'stem'
      x = adaptive_average_pool(image, (side, side))
      kernel = self.copied(f'{name}_kernel', (x.shape[-1], c))
      norm = {
        'scale': self.copied(f'{name}_scale', (c,), nn.initializers.ones),
        'bias': self.copied(f'{name}_bias', (c,), nn.initializers.normal(0.1)),
      }
      scale, bias = (
        norm[part][:, None, None, None] for part in ('scale', 'bias')
      )
      x = jnp.einsum('bhwi,nic->nbhwc', x, kernel) * scale + bias
      if i:
        taps[f'{name}_pre'] = x
        norms.record_norm(self, f'{name}_pre', norm)
      taps[name] = x = nn.relu(x)
    pooled = taps['pooled'] = jnp.mean(x, axis=(2, 3))
    kernel = self.copied('head_kernel', (pooled.shape[-1], K))
    bias = self.copied('head_bias', (K,), nn.initializers.zeros)
    return Outputs(pooled @ kernel + bias[:, None], taps)

  def copied(self, name, shape, init=KERNEL):
    return self.param(name, alike(init), (self.copies, *shape))


def copy_of(outputs, index):
  return jax.tree.map(lambda x: x[index], outputs)


def of_copy(objective, index):
  """Returns an objective of one copy of the learner and the guide's first."""

  def init(key, *, learner, guide, examples):
    ends = dict(learner=copy_of(learner, index), guide=copy_of(guide, 0))
    return objective.init(key, **ends, examples=examples)

  def loss(params, memory, *, learner, guide, **others):
    ends = dict(learner=copy_of(learner, index), guide=copy_of(guide, 0))
    return objective.loss(params, memory, **ends, **others)

  return objective._replace(init=init, loss=loss)


NETWORKS = {  # of a stage one map is half and one twice as large
  'student': Tiny(len(NAMES), (8, 4, 2), (3, 6, 8)),
  'teacher': Tiny(1, (8, 2, 4), (4, 5, 6)),
}


def transfer_name(name):
  return f'teacher->student:{name}'


def normalised(updates, params):
  """Each copy's update, with its objective's, in proportion to its norm."""
  del params
  student, own = updates['student'], updates[OBJECTIVES]
  squares = sum(
    jnp.sum(jnp.square(x.reshape(len(x), -1)), axis=1)
    for x in jax.tree.leaves(student)
  )
  squares += jnp.stack(
    [
      optax.tree.norm(own.get(transfer_name(name), {}), squared=True)
      for name in NAMES
    ]
  )
  factors = 1 / (jnp.sqrt(squares) + 1e-6)
  scaled = {
    transfer_name(name): jax.tree.map(
      lambda x, factor=factors[i]: factor * x, own[transfer_name(name)]
    )
    for i, name in enumerate(NAMES)
    if transfer_name(name) in own
  }
  student = jax.tree.map(
    lambda x: factors.reshape(-1, *(1,) * (x.ndim - 1)) * x, student
  )
  return {**updates, 'student': student, OBJECTIVES: scaled}


# Steps of one length, whatever the loss is measured in.
OPTIMIZER = optax.chain(optax.stateless(normalised), optax.sgd(0.1))


def batch(size=B):
  # Of few channels, maps would have singular values that are but rounding.
  rng = np.random.default_rng(0)
  return {
    'image': rng.normal(size=(size, 8, 8, 6)).astype(np.float32),
    'label': np.arange(size, dtype=np.int32) % K,
    'index': np.arange(size, dtype=np.int32),
    'mask': np.ones(size, np.float32),
  }


def program_of(names, detach=True):
  transfers = [
    Transfer('teacher', 'student', of_copy(make(name), i), detach=detach)
    for i, name in enumerate(names)
  ]
  # So that the teacher is among what could learn.
  cross_entropy = of_copy(objectives.cross_entropy(), 0)
  transfers.append(Transfer('labels', 'teacher', cross_entropy, 0.0))
  networks = {'teacher': Learner(), 'student': Learner()}
  graph = Graph(networks, tuple(transfers))
  return bind(graph, lambda like, *_: NETWORKS[like], (8, 8, 6))


@functools.cache
def start():
  """Returns the program of all objectives, and its first state."""
  program = program_of(NAMES)
  init = functools.partial(states.init, program, OPTIMIZER, examples=B)
  return program, jax.tree.map(np.array, jax.jit(init)(KEY, {}))


class Training:
  """Of all objectives, on one batch and some devices.

  traces: how often the step was traced.
  """

  def __init__(self, devices):
    program, state = start()
    mesh = meshes.make_mesh(jax.devices()[:devices])
    whole = meshes.whole(mesh)
    self.start = jax.device_put(state, whole)
    self._batch = jax.device_put(batch(), meshes.batch_split(mesh, B))
    self._one = make_step(
      program, OPTIMIZER, seed=0, steps_per_epoch=9, epochs=1
    )
    self._step = jax.jit(self._traced, out_shardings=(whole, whole))
    self.traces = 0

  def _traced(self, state, batch):
    self.traces += 1
    return self._one(state, batch)

  def run(self, state, steps):
    """Returns the state after some steps, and the losses by objective."""
    losses = {name: [] for name in NAMES}
    for _ in range(steps):
      state, metrics = self._step(state, self._batch)
      for name, values in losses.items():
        values.append(float(metrics[f'loss/{transfer_name(name)}']))
    return state, losses


training = functools.cache(Training)


@functools.cache
def one_device(steps=STEPS):
  one = training(1)
  state, losses = one.run(one.start, steps)
  return jax.tree.map(np.asarray, state), losses


@functools.cache
def four_devices():
  four = training(4)
  return four.run(four.start, 1)


def own(name, state):
  """Returns the parameters and the memory of one objective."""
  transfer = transfer_name(name)
  return state.objectives.get(transfer, {}), state.memory.get(transfer, {})


@each
def test_the_loss_falls_on_one_batch(name):
  _, losses = one_device()
  assert np.all(np.isfinite(losses[name]))
  assert losses[name][-1] < losses[name][0], losses[name]


def test_the_step_is_traced_once():
  one_device()
  assert training(1).traces == 1


@each
def test_the_learner_and_the_objective_are_updated(name):
  _, before = start()
  after, _ = one_device()
  index = NAMES.index(name)
  student, moved = (
    tree.leaves(copy_of(state.params['student'], index))
    for state in (before, after)
  )
  assert any(np.any(student[leaf] != moved[leaf]) for leaf in student)
  old, new = (tree.leaves(own(name, state)[0]) for state in (before, after))
  # A bias in front of a BatchNorm has no gradient.
  for leaf in old:
    if old[leaf].ndim > 1:
      assert np.any(old[leaf] != new[leaf]), leaf


def test_the_teacher_is_not_updated():
  _, before = start()
  after, _ = one_device()
  chex.assert_trees_all_equal(before.params['teacher'], after.params['teacher'])


@pytest.mark.slow  # `test_methods` has it, for each mechanism
@each
def test_four_devices_agree_with_one(name):
  """Also where the loss is a relation of the batch, which is the whole one."""
  (one, losses), (four, other) = one_device(1), four_devices()
  close = functools.partial(chex.assert_trees_all_close, rtol=1e-5, atol=1e-5)
  close(np.array(losses[name]), np.array(other[name]))
  close(*(jax.tree.map(np.asarray, own(name, x)) for x in (one, four)))
  student, same = (
    copy_of(jax.tree.map(np.asarray, x.params['student']), NAMES.index(name))
    for x in (one, four)
  )
  close(student, same)


def test_memory_is_the_same_on_all_devices():
  state, _ = four_devices()
  for path, x in tree.leaves(state.memory).items():
    copies = [np.asarray(shard.data) for shard in x.addressable_shards]
    assert len(copies) == 4 and x.is_fully_replicated, path
    for copy in copies:
      np.testing.assert_array_equal(copy, np.asarray(x), err_msg=path)


def test_resume_with_memory_is_bit_identical(tmp_path):
  four, (state, _) = training(4), four_devices()
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(state, {})
  restored, _ = checkpoints.restore(four.start)
  checkpoints.close()
  chex.assert_trees_all_equal(restored, state)
  (again, losses), (whole, want) = (four.run(x, 2) for x in (restored, state))
  assert losses == want
  chex.assert_trees_all_equal(again, whole)
  assert four.traces == 1
  # The losses depend on the memory, so that they notice if it is lost.
  _, lost = four.run(restored._replace(memory=four.start.memory), 1)
  assert lost['crd'] != losses['crd'][:1]
  assert lost['kd'] == losses['kd'][:1]


@pytest.mark.parametrize('detach', [True, False])
def test_a_guide_gets_a_gradient_only_without_detach(detach):
  names = ('kd', 'at', 'crd')
  program = program_of(names, detach)
  _, state = start()

  def jacobian(params):
    own, memory = program.init_objectives(KEY, B)
    outputs, _ = program.forward(params, state.stats, batch()['image'])

    def losses(outputs):
      now = dict(key=KEY, epoch=jnp.zeros(()), epochs=1)
      metrics = program.losses(own, memory, outputs, batch(), **now)[2]
      return {name: metrics[f'loss/{transfer_name(name)}'] for name in names}

    return jax.jacrev(losses)(outputs)

  for name, gradients in jax.jit(jacobian)(state.params).items():
    student, teacher = (
      any(np.any(x != 0) for x in jax.tree.leaves(gradients[network]))
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


each_of_features = pytest.mark.parametrize(
  'name', list(filter(of_features, NAMES))
)
each_guide = pytest.mark.parametrize('guide', FAMILIES)


def check_defined(name, guide, learners):
  objective = make(name, **ANYWHERE.get(name, {}))

  def run(learner, guide):
    ends = dict(learner=learner, guide=guide)
    params, memory = objective.init(KEY, **ends, examples=9)
    now = dict(batch=batch(2), key=KEY, epoch=jnp.zeros(()), epochs=1)
    return objective.loss(params, memory, **ends, **now)[0]

  for learner in learners:
    shape = jax.eval_shape(run, outputs_of(learner), outputs_of(guide)).shape
    assert shape in ((2,), ()), learner


@each_guide
@each_of_features
def test_it_is_defined_from_each_network_to_the_next(name, guide):
  """Each family is a guide once, and once a learner."""
  following = FAMILIES[(FAMILIES.index(guide) + 1) % len(FAMILIES)]
  check_defined(name, guide, (following,))


@pytest.mark.slow
@each_guide
@each_of_features
def test_it_is_defined_between_any_two_networks(name, guide):
  check_defined(name, guide, FAMILIES)
