"""Self-learning teachers: the graph, the published losses, and the orders.

The golden values were computed in float64 with the published PyTorch code.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from test_graph import SHAPE, batch, build

from jaxkd import methods
from jaxkd.config import benchmark
from jaxkd.graph import Frozen, Graph, Learner
from jaxkd.graph.program import bind
from jaxkd.methods.weights import WarmUp
from jaxkd.training import state as states
from jaxkd.training.step import make_step
from jaxkd.types import Outputs

FUSED = '0.5 slt0 + 0.5 slt1'


def transfers_of(phase):
  return {
    (str(t.guide), t.learner): (t.objective.name, t.weight, t.detach)
    for t in phase.graph.transfers
  }


def test_the_graph_is_the_published_one():
  (phase,) = methods.slkd()
  assert transfers_of(phase) == {
    ('labels', 'slt0'): ('cross_entropy', 0.1, True),
    ('teacher', 'slt0'): ('kd', 0.9, True),
    ('labels', 'slt1'): ('cross_entropy', 0.1, True),
    ('teacher', 'slt1'): ('kd', 0.9, True),
    ('labels', 'student'): ('cross_entropy', 1.1, True),
    ('teacher', 'student'): ('kd', 0.9, True),
    (FUSED, 'student'): ('kd', 1.0, True),
  }
  graph = phase.graph
  assert graph.frozen == ('teacher',)
  assert graph.learners == ('slt0', 'slt1', 'student')
  for name in ('slt0', 'slt1'):
    assert graph.networks[name] == Learner(like='teacher')


def test_the_student_can_have_fewer_guides():
  (teacher_only,) = methods.slkd(members=0)
  (kd,) = methods.kd()
  assert transfers_of(teacher_only) == transfers_of(kd)
  (one,) = methods.slkd(members=1, fusion=(1.0,))
  assert ('1 slt0', 'student') in transfers_of(one)
  (no_teacher,) = methods.slkd(use_teacher=False, process_weight=2.0)
  transfers = transfers_of(no_teacher)
  assert ('teacher', 'student') not in transfers
  for guide in ('labels', FUSED):
    assert transfers[guide, 'student'][1] == 2.0
  assert transfers['teacher', 'slt1'] == ('kd', 0.9, True)
  (three,) = methods.slkd(members=3, fusion=(0.5, 0.3, 0.2))
  assert ('0.5 slt0 + 0.3 slt1 + 0.2 slt2', 'student') in transfers_of(three)


def test_any_objective_can_take_the_place_of_kd():
  dkd = dict(name='dkd', beta=2.0)
  (phase,) = methods.slkd(dkd, guide_weight=1.0, warmup_epochs=20)
  guided = [t for t in phase.graph.transfers if t.guide != 'labels']
  assert len(guided) == 4
  for transfer in guided:
    assert transfer.objective.name == 'dkd'
    assert transfer.objective.settings['beta'] == 2.0
    assert transfer.weight == WarmUp(1.0, 20)


SCHEDULE = dict(schedule='linear', start=1.0, end=0.0)


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    (dict(members=0, use_teacher=False), 'without a guide: set members'),
    (dict(members=-1), 'members must be .* got -1'),
    (dict(fusion=(1.0,)), r'members=2, but fusion=\(1.0,\) has 1 w'),
    (dict(order='paralel'), "no order 'paralel'. Did you mean 'parallel'"),
    (dict(order='batch', detach=False), "takes order='parallel' and members"),
    (dict(members=0, detach=False), "takes order='parallel' and members"),
    (dict(members=0, order='phase'), "order to 'parallel', not 'phase'"),
    (dict(objective='kt'), "no objective 'kt'"),
    (dict(warmup_epochs=-1), 'warm'),
    (dict(members=1.5), 'slkd: members must be a whole .* 0, got 1.5'),
    (dict(label_weight=SCHEDULE), "^label_weight of slkd .*'linear'"),
    (dict(process_weight=SCHEDULE), "^process_weight of slkd .*'linear'"),
    (dict(process_label_weight=SCHEDULE), '^process_label_weight of slkd'),
    (dict(process_guide_weight=-1.0), '^process_guide_weight of .* got -1.0'),
  ],
)
def test_invalid_settings_are_refused(settings, message):
  with pytest.raises((KeyError, ValueError), match=message):
    methods.slkd(**settings)


# The published losses


def waves(a, b, c):
  """The inputs of the golden values: c sin(a i + b)."""
  return c * np.sin(a * np.arange(40, dtype=np.float64) + b).reshape(4, 10)


LOGITS = {
  'student': waves(0.7, 0.3, 2.0),
  'teacher': waves(1.1, 0.5, 3.0),
  'slt0': waves(0.5, 0.1, 2.5),
  'slt1': waves(0.9, 0.4, 1.5),
}
LABELS = np.array([3, 1, 4, 1])


@functools.cache
def published(**settings):
  """The loss, its parts, and its gradient at each network's logits."""
  (phase,) = methods.slkd(**settings)
  with jax.enable_x64(True):
    program = bind(phase.graph, build, SHAPE)
    batch = {'label': jnp.asarray(LABELS), 'mask': jnp.ones(4)}

    def loss(logits):
      outputs = {name: Outputs(z, {}) for name, z in logits.items()}
      now = dict(key=jax.random.key(0), epoch=jnp.zeros(()), epochs=1)
      value, _, parts = program.losses({}, {}, outputs, batch, **now)
      return value, parts

    results = jax.jit(jax.value_and_grad(loss, has_aux=True))(LOGITS)
    return jax.tree.map(np.asarray, results)


def close(got, want):
  np.testing.assert_allclose(got, want, rtol=1e-10)


def test_the_losses_are_the_published_ones():
  (total, parts), _ = published(detach=False)
  close(total, 13.0653969368)
  part = {k.removeprefix('loss/'): v for k, v in parts.items()}
  close(0.1 * part['labels->student:cross_entropy'], 0.288296662648)
  close(0.9 * part['teacher->student:kd'], 2.75567346621)
  close(
    part['labels->student:cross_entropy'] + part[f'{FUSED}->student:kd'],
    4.08896900115,
  )
  members = sum(
    0.1 * part[f'labels->{name}:cross_entropy']
    + 0.9 * part[f'teacher->{name}:kd']
    for name in ('slt0', 'slt1')
  )
  close(members, 5.93245780678)


def test_the_gradients_are_the_published_ones():
  (total, _), leaking = published(detach=False)
  (same, _), stopped = published(detach=True)
  close(total, same)
  close(np.linalg.norm(leaking['slt0']), 0.454740535968)
  close(np.linalg.norm(stopped['slt0']), 0.406869288167)
  close(np.linalg.norm(leaking['slt0'] - stopped['slt0']), 0.121291355027)
  for grads in (leaking, stopped):
    close(np.linalg.norm(grads['student']), 0.799726110327)


def test_an_attached_guide_gets_the_gradient_of_the_divergence():
  _, leaking = published(detach=False)
  _, stopped = published(detach=True)
  fused = (LOGITS['slt0'] + LOGITS['slt1']) / 2
  log_p, log_q = (
    np.array(jax.nn.log_softmax(jnp.asarray(z) / 4.0))
    for z in (fused, LOGITS['student'])
  )
  p = np.exp(log_p)
  kl = np.sum(p * (log_p - log_q), axis=-1, keepdims=True)
  want = 0.5 * 4.0 * p * (log_p - log_q - kl) / 4
  np.testing.assert_allclose(
    leaking['slt1'] - stopped['slt1'], want, rtol=1e-4, atol=1e-6
  )


# Training


def test_members_are_initialised_independently():
  (phase,) = methods.slkd()
  program = bind(phase.graph, build, SHAPE)
  names = ('teacher', 'slt0', 'slt1')

  @jax.jit
  def init(key):
    return [program.initial_variables(name, key, {}) for name in names]

  kernels = [np.asarray(x['params']['hidden1']['kernel']) for x in init(KEY(0))]
  for i in range(3):
    assert np.all(kernels[i] != kernels[i - 1])


KEY = functools.partial(jax.random.key, impl='rbg')
OPTIMIZER = optax.chain(
  optax.add_decayed_weights(1e-2), optax.sgd(0.1, momentum=0.9)
)


def training(program):
  """Functions that start a training and do one step of it."""
  start = functools.partial(states.init, program, OPTIMIZER, examples=6)
  step = make_step(program, OPTIMIZER, seed=0, steps_per_epoch=9, epochs=1)
  return jax.jit(start), jax.jit(step)


@functools.cache
def teacher():
  (phase,) = methods.slkd()
  program = bind(phase.graph, build, SHAPE)
  init = jax.jit(functools.partial(program.init_network, 'teacher'))
  return {'teacher': init(KEY(5))}


@functools.cache
def steps(**settings):
  """The state and the metrics after each of two steps, on other batches."""
  (phase,) = methods.slkd(**settings)
  start, step = training(bind(phase.graph, build, SHAPE))
  first = step(start(KEY(0), teacher()), batch(seed=0))
  return phase.graph, (first, step(first[0], batch(seed=1)))


def test_each_turn_is_taught_by_the_updated_networks():
  graph, results = steps(order='batch')
  assert graph.turns == (('slt0',), ('slt1',), ('student',))
  # Independently: each network alone, guided by what is frozen at its turn.
  members = ('slt0', 'slt1')
  trainings, now = {}, {}
  for name in graph.learners:
    guides = ('teacher', *members) if name == 'student' else ('teacher',)
    networks = {guide: Frozen(like='teacher') for guide in guides}
    networks[name] = graph.networks[name]
    own = tuple(t for t in graph.transfers if t.learner == name)
    trainings[name] = training(bind(Graph(networks, own), build, SHAPE))
  for n, (state, metrics) in enumerate(results):
    losses, variables = 0.0, dict(teacher())
    for name, (start, step) in trainings.items():
      mine = now[name] if n else start(KEY(0), variables)
      guides = {
        g: variables[g]['params'] for g in mine.params if g in variables
      }
      mine = mine._replace(params={**mine.params, **guides})
      now[name], own = step(mine, batch(seed=n))
      variables[name] = {'params': now[name].params[name], 'batch_stats': {}}
      losses += own['loss']
      chex.assert_trees_all_close(
        state.params[name], now[name].params[name], rtol=1e-5, atol=1e-7
      )
    np.testing.assert_allclose(metrics['loss'], losses, rtol=1e-5)


def gap(one, other, name):
  """The largest difference of two trainings after the first step."""
  pair = (results[0][0].params[name] for _, results in (one, other))
  gaps = jax.tree.map(lambda a, b: np.max(np.abs(a - b)), *pair)
  return max(jax.tree.leaves(gaps))


def test_turns_are_not_one_step():
  parallel, turns = steps(), steps(order='batch')
  assert gap(parallel, turns, 'slt1') < 1e-6
  assert gap(parallel, turns, 'student') > 1e-4


def test_the_student_trains_the_members_only_if_attached():
  detached, leaking = steps(), steps(detach=False)
  for name in ('slt0', 'slt1'):
    assert gap(detached, leaking, name) > 1e-4
    assert gap(detached, steps(order='batch'), name) < 1e-6
  assert gap(detached, leaking, 'student') < 1e-6


def test_by_phase_the_members_are_trained_first():
  first, second = methods.slkd(order='phase')
  assert first.graph.learners == ('slt0', 'slt1')
  assert second.graph.learners == ('student',)
  assert second.graph.networks['slt1'] == Frozen(like='teacher')
  (parallel,) = methods.slkd()
  both = (*first.graph.transfers, *second.graph.transfers)
  assert [t.name for t in both] == [t.name for t in parallel.graph.transfers]


def test_turns_are_described():
  method = dict(name='slkd', order='batch')
  text = tiny.experiment(method=method).describe()
  assert 'each batch: slt0, then slt1, then student' in text
  assert (
    'each batch' not in tiny.experiment(method=dict(name='slkd')).describe()
  )


@pytest.mark.parametrize(
  ('pair', 'student', 'teacher'),
  [
    ('wrn_40_2,wrn_16_2', 0.05, 0.05),
    ('resnet32x4,shufflenet_v1', 0.01, 0.05),
    ('mobilenet_v2,resnet8', 0.05, 0.01),
  ],
)
def test_rates_are_those_of_each_family(pair, student, teacher):
  config = benchmark(pair)
  assert f'{config.teacher.name},{config.student.name}' == pair
  rate = config.optimizer.learning_rate
  assert rate == student
  assert (config.teacher.learning_rate or rate) == teacher


@pytest.mark.parametrize('pair', ['resnet56', 'resnet56,', ',resnet8'])
def test_a_pair_has_two_names(pair):
  with pytest.raises(ValueError, match='is not a pair TEACHER,STUDENT'):
    benchmark(pair)
