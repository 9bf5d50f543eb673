"""Graphs: invalid ones, bound ones, and how parameters are shared."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxkd import models, objectives
from jaxkd.graph import Frozen, Fusion, Graph, Learner, Shared, Transfer
from jaxkd.graph.program import bind
from jaxkd.objectives import Objective
from jaxkd.problems import CLASSIFICATION
from jaxkd.training import state as states
from jaxkd.training.step import make_step
from jaxkd.types import Outputs

SHAPE = (4, 4, 1)
KEY = jax.random.key(0, impl='rbg')  # quick to compile
# Arguments of a first step's losses.
NOW = dict(key=KEY, epoch=jnp.zeros(()), epochs=1)


def labels_to(*names, weight=1.0):
  return tuple(
    Transfer('labels', n, objectives.cross_entropy(), weight) for n in names
  )


def build(like, width, branches=None):
  del like, branches
  features = round(8 * width)
  return models.build('mlp', 3, features=(features, features))


def batch(size=6, seed=0):
  rng = np.random.default_rng(seed)
  return {
    'image': jnp.asarray(rng.normal(size=(size, *SHAPE)), jnp.float32),
    'label': jnp.asarray(rng.integers(0, 3, size), jnp.int32),
    'index': jnp.arange(size, dtype=jnp.int32),
    'mask': jnp.ones(size),
  }


@pytest.mark.parametrize(
  ('networks', 'transfers', 'message'),
  [
    ({'labels': Learner()}, (), "'labels' cannot be the name"),
    ({'a/b': Learner()}, (), "'a/b' cannot be the name of a network, which"),
    ({'a': Learner()}, labels_to('b'), "no network 'b'"),
    ({'a': Learner()}, (), "nothing teaches 'a'"),
    ({'a': Frozen()}, labels_to('a'), 'the learner is frozen'),
    ({'a': Learner()}, labels_to('a', 'a'), 'two transfers are called'),
    ({'a': Shared('b')}, labels_to('a'), "no network 'b'"),
    (
      {'a': Learner(), 'b': Shared('a'), 'c': Shared('b')},
      labels_to('a', 'b', 'c'),
      "shares the parameters of 'b', which shares those of 'a'",
    ),
  ],
)
def test_an_invalid_graph_is_refused(networks, transfers, message):
  with pytest.raises((KeyError, ValueError), match=message):
    Graph(networks, transfers)


def corner(module, owner, input_shape):
  """Shares the leading corner of every array of a wider network."""
  small, big = (
    jax.eval_shape(m.init, jax.random.key(0), jnp.zeros((1, *input_shape)))
    for m in (module, owner)
  )
  del big

  def take(params):
    return jax.tree.map(
      lambda s, p: p[tuple(slice(n) for n in s.shape)],
      small['params'],
      params,
    )

  return take


@pytest.fixture(scope='module')
def shared():
  graph = Graph(
    {'big': Learner(width=2), 'small': Shared('big', corner)},
    labels_to('big', 'small'),
  )
  return bind(graph, build, SHAPE)


def init(program):
  @jax.jit
  def variables_of(key):
    return {n: program.init_network(n, key) for n in program.modules}

  variables = variables_of(KEY)
  params = {
    n: v['params'] for n, v in variables.items() if program.graph.owner(n) == n
  }
  return params, {n: v['batch_stats'] for n, v in variables.items()}


def test_a_sharing_network_is_a_slice_of_its_owner(shared):
  params, _ = init(shared)
  assert set(params) == {'big'}
  resolved = shared.resolve(params)
  for small, big in zip(
    jax.tree.leaves(resolved['small']),
    jax.tree.leaves(resolved['big']),
    strict=True,
  ):
    corner_of_big = big[tuple(slice(n) for n in small.shape)]
    np.testing.assert_array_equal(small, corner_of_big)


def test_a_sharing_networks_gradient_is_in_its_slice(shared):
  params, stats = init(shared)

  def loss(params):
    outputs, _ = shared.forward(shared.resolve(params), stats, batch()['image'])
    return jnp.sum(outputs['small'].logits ** 2)

  grads = jax.jit(jax.grad(loss))(params)['big']
  small = shared.resolve(params)['small']
  for g, s in zip(jax.tree.leaves(grads), jax.tree.leaves(small), strict=True):
    inside = np.zeros(g.shape, bool)
    inside[tuple(slice(n) for n in s.shape)] = True
    assert not np.any(np.asarray(g)[~inside])
  assert any(np.any(g) for g in jax.tree.leaves(grads))


def test_networks_differ_unless_they_have_the_same_start():
  graph = Graph(
    {
      'student': Learner(),
      'other': Learner(like='student'),
      'twin': Learner(like='student', same_start=True),
    },
    labels_to('student', 'other', 'twin'),
  )
  params, _ = init(bind(graph, build, SHAPE))
  chex.assert_trees_all_equal(params['student'], params['twin'])
  kernels = [jax.tree.leaves(params[n])[-1] for n in ('student', 'other')]
  assert not np.allclose(*kernels)


def test_initial_variables_do_not_depend_on_other_networks():
  alone = Graph({'student': Learner()}, labels_to('student'))
  among = Graph(
    {'slt': Learner(like='student'), 'student': Learner()},
    labels_to('slt', 'student'),
  )
  first, second = (
    init(bind(g, build, SHAPE))[0]['student'] for g in (alone, among)
  )
  chex.assert_trees_all_equal(first, second)


def two_learners(detach):
  transfer = Transfer('a', 'b', objectives.kd(), detach=detach)
  graph = Graph(
    {'a': Learner(), 'b': Learner()}, (*labels_to('a', weight=0.0), transfer)
  )
  return bind(graph, build, SHAPE)


@pytest.mark.parametrize('detach', [True, False])
def test_only_an_attached_guide_has_a_gradient(detach):
  program = two_learners(detach)
  params, stats = init(program)

  def loss(params):
    outputs, _ = program.forward(params, stats, batch()['image'])
    value, _, _ = program.losses({}, {}, outputs, batch(), **NOW)
    return value

  grads = jax.jit(jax.grad(loss))(params)
  moved = any(np.any(g) for g in jax.tree.leaves(grads['a']))
  assert moved == (not detach)
  assert any(np.any(g) for g in jax.tree.leaves(grads['b']))


def outputs_of(seed, width=5):
  rng = np.random.default_rng(seed)
  return Outputs(
    jnp.asarray(rng.normal(size=(4, 3)), jnp.float32),
    {
      'same': jnp.asarray(rng.normal(size=(4, 2)), jnp.float32),
      'wide': jnp.asarray(rng.normal(size=(4, width)), jnp.float32),
    },
  )


def test_a_fusion_sums_logits_and_taps_of_one_shape():
  seen = {}

  def spy(learner, guide, batch):
    seen['guide'] = guide
    return jnp.zeros(())

  objective = objectives.pointwise('spy', spy)
  graph = Graph(
    {'a': Frozen(), 'b': Frozen(), 's': Learner()},
    (Transfer(Fusion({'a': 0.25, 'b': 0.75}), 's', objective),),
  )
  program = bind(graph, build, SHAPE)
  a, b, s = outputs_of(0), outputs_of(1, width=6), outputs_of(2)
  program.losses(
    {},
    {},
    {'a': a, 'b': b, 's': s},
    batch(4),
    **NOW,
  )
  np.testing.assert_allclose(
    seen['guide'].logits, 0.25 * a.logits + 0.75 * b.logits, rtol=1e-6
  )
  assert set(seen['guide'].taps) == {'same'}


def test_a_mask_takes_examples_out_of_the_loss():
  program = bind(Graph({'a': Learner()}, labels_to('a')), build, SHAPE)
  whole = batch(6)
  masked = {**whole, 'mask': jnp.array([1.0, 1, 0, 0, 1, 0])}
  outputs = {'a': outputs_of(0)}
  logits = jnp.asarray(np.random.default_rng(3).normal(size=(6, 3)))
  outputs = {'a': Outputs(logits.astype(jnp.float32), {})}
  got, _, _ = program.losses({}, {}, outputs, masked, **NOW)
  log_p = np.asarray(jax.nn.log_softmax(logits))
  each = -log_p[np.arange(6), np.asarray(whole['label'])]
  np.testing.assert_allclose(got, each[[0, 1, 4]].mean(), rtol=1e-5)


@pytest.mark.parametrize('mask_shape', [(6,), (6, 2), (6, 2, 3)])
@pytest.mark.parametrize('loss_shape', [(6,), (6, 2), (6, 2, 3)])
def test_a_mask_of_any_leading_shape_averages_a_loss(loss_shape, mask_shape):
  rng = np.random.default_rng(0)
  loss = rng.normal(size=loss_shape).astype(np.float32)
  mask = (rng.random(mask_shape) < 0.5).astype(np.float32)
  each = objectives.pointwise('each', lambda *_: jnp.asarray(loss), True)
  graph = Graph({'a': Learner()}, (Transfer('labels', 'a', each),))
  program = bind(graph, build, SHAPE)
  masked = {**batch(6), 'mask': jnp.asarray(mask)}
  got, _, _ = program.losses({}, {}, {'a': outputs_of(0)}, masked, **NOW)
  while mask.ndim > loss.ndim:
    mask = mask.max(axis=-1)
  while mask.ndim < loss.ndim:
    mask = mask[..., None]
  weights = np.broadcast_to(mask, loss.shape)
  np.testing.assert_allclose(got, np.average(loss, weights=weights), rtol=1e-5)


def test_a_mask_of_another_batch_is_refused():
  program = bind(Graph({'a': Learner()}, labels_to('a')), build, SHAPE)
  outputs = {'a': outputs_of(0)}
  masked = {**batch(4), 'mask': jnp.ones(3)}
  message = r'cross_entropy: the mask .* the loss \[4\], got \[3\]'
  with pytest.raises(ValueError, match=message):
    program.losses({}, {}, outputs, masked, **NOW)


def test_a_weight_can_follow_the_epoch():
  ramp = Transfer(
    'labels',
    'a',
    objectives.cross_entropy(),
    lambda epoch, epochs: jnp.minimum(epoch / epochs, 1.0),
  )
  program = bind(Graph({'a': Learner()}, (ramp,)), build, SHAPE)
  outputs, now = {'a': outputs_of(0)}, {**NOW, 'epochs': 4}
  loss = [
    program.losses(
      {}, {}, outputs, batch(4), **{**now, 'epoch': jnp.float32(epoch)}
    )[0]
    for epoch in (0, 1, 4, 9)
  ]
  np.testing.assert_allclose(np.array(loss) / loss[2], [0, 0.25, 1, 1])


class Scale(nn.Module):
  """One learned number."""

  @nn.compact
  def __call__(self, x):
    return x * self.param('scale', nn.initializers.ones, ())


def counting() -> Objective:
  """Owns a parameter and a memory: the calls so far and the last key."""

  def init(key, *, learner, examples, **_):
    params = Scale().init(key, learner.logits)['params']
    return params, {'calls': jnp.zeros(()), 'bank': jnp.zeros((examples, 2))}

  def loss(params, memory, *, learner, guide, batch, key, **_):
    scaled = Scale().apply({'params': params}, learner.logits)
    value = jnp.mean((scaled - guide.logits) ** 2)
    noise = jax.random.normal(key, (batch['index'].size, 2))
    bank = memory['bank'].at[batch['index']].set(noise)
    # The loss must not be able to learn through memory.
    return value + 0 * value * memory['calls'], {
      'calls': memory['calls'] + value / jax.lax.stop_gradient(value),
      'bank': bank,
    }

  return Objective('counting', {}, init, loss)


def test_objectives_own_parameters_and_memory():
  transfer = Transfer('teacher', 'student', counting())
  graph = Graph({'teacher': Frozen(), 'student': Learner()}, (transfer,))
  program = bind(graph, build, SHAPE)
  initial = {'teacher': program.init_network('teacher', jax.random.key(1))}
  optimizer = optax.sgd(0.1)
  state = states.init(
    program, optimizer, jax.random.key(0), initial, examples=9
  )
  name = 'teacher->student:counting'
  assert state.memory[name]['bank'].shape == (9, 2)
  assert state.objectives[name]['scale'] == 1
  step = jax.jit(
    make_step(program, optimizer, seed=0, steps_per_epoch=3, epochs=1)
  )
  after, _ = step(state, batch())
  last, _ = step(after, batch())
  assert after.objectives[name]['scale'] != 1
  assert last.memory[name]['calls'] == 2
  first_bank, last_bank = (s.memory[name]['bank'] for s in (after, last))
  assert np.all(first_bank[:6]) and not np.any(first_bank[6:])
  assert not np.any(first_bank[:6] == last_bank[:6])  # another key, each step


def test_in_turns_each_objective_learns_with_its_learner():
  names = ('a', 'b')
  transfers = tuple(Transfer('teacher', n, counting()) for n in names)
  networks = {'teacher': Frozen(), 'a': Learner(), 'b': Learner()}
  key, optimizer = jax.random.key(0), optax.sgd(0.1, momentum=0.9)
  states_of = {}
  for turns in ((), (('b',), ('a',))):
    program = bind(Graph(networks, transfers, turns), build, SHAPE)
    initial = {'teacher': program.init_network('teacher', jax.random.key(1))}
    state = states.init(program, optimizer, key, initial, examples=9)
    assert len(state.opt) == (2 if turns else 1)
    step = make_step(
      program,
      optimizer,
      seed=0,
      steps_per_epoch=3,
      epochs=1,
      measure=CLASSIFICATION.metrics,
    )
    step = jax.jit(step)
    state, _ = step(state, batch())
    states_of[turns], metrics = step(state, batch(seed=1))
    assert {f'top1/{n}' for n in names} < set(metrics)
  # Neither teaches the other, so turns change nothing.
  once, in_turns = (s._replace(opt=()) for s in states_of.values())
  chex.assert_trees_all_close(once, in_turns, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('turns', [(('a',),), (('a', 'b'), ('a',)), (('c',),)])
def test_every_learner_has_one_turn(turns):
  networks = {'a': Learner(), 'b': Learner()}
  with pytest.raises(ValueError, match=r"learners are \('a', 'b'\), the turns"):
    Graph(networks, labels_to('a', 'b'), turns)
