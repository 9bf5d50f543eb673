"""Assistants, generations, peers, and a student that follows its teacher."""

import functools
import json
import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from test_graph import SHAPE, batch, build
from test_methods_guides import weights_of

from jaxkd import losses, methods
from jaxkd.graph import Frozen, Learner, Model
from jaxkd.graph.program import bind
from jaxkd.methods.dropout import GuideDropout
from jaxkd.runs.run import Run
from jaxkd.training import log
from jaxkd.training import state as states
from jaxkd.training.step import make_step
from jaxkd.types import Outputs

# Assistants


def test_each_assistant_is_taught_by_the_one_before_it():
  phases = methods.takd(('resnet56', 'resnet20'))
  assert [x.name for x in phases] == ['assistant0', 'assistant1', 'distil']
  for phase, guide, name in zip(
    phases,
    ('teacher', 'assistant0', 'assistant1'),
    ('assistant0', 'assistant1', 'student'),
    strict=True,
  ):
    assert set(phase.graph.networks) == {guide, name}
    assert weights_of(phase) == {
      f'labels->{name}:cross_entropy': 0.1,
      f'{guide}->{name}:kd': 0.9,
    }
  first, second, last = (x.graph.networks for x in phases)
  assert first['assistant0'] == Learner(model=Model('resnet56'))
  assert second['assistant0'] == Frozen(model=Model('resnet56'))
  assert last['student'] == Learner()


def test_each_assistant_is_taught_by_all_before_it():
  phases = methods.dgkd(('resnet56', 'resnet20'), dropped=1)
  first, second, last = (x.graph.transfers for x in phases)
  assert [t.dropout for t in first] == [None, None]
  assert [t.dropout for t in second] == [
    None,
    GuideDropout(0, 2, 1),
    GuideDropout(1, 2, 1),
  ]
  assert [t.dropout for t in last] == [None] + [
    GuideDropout(n, 3, 1) for n in range(3)
  ]
  assert [str(t.guide) for t in last[1:]] == [
    'teacher',
    'assistant0',
    'assistant1',
  ]
  assert {t.weight for t in last} == {0.0, 1.0}
  assert '(temperature=5.0)' in str(last[1].objective)
  (*_, none_dropped) = methods.dgkd(('resnet56',), dropped=0)
  assert {t.dropout for t in none_dropped.graph.transfers} == {None}
  (*_, most) = methods.dgkd(('resnet56', 'resnet20'), dropped=9)
  assert most.graph.transfers[1].dropout == GuideDropout(0, 3, 2)


def test_dropped_guides_add_nothing_to_the_loss():
  *_, phase = methods.dgkd(('resnet56', 'resnet20'))
  program = bind(phase.graph, build, SHAPE)
  rng = np.random.default_rng(0)
  outputs = {
    name: Outputs(jnp.asarray(rng.normal(size=(6, 3)), jnp.float32), {})
    for name in phase.graph.networks
  }

  @jax.jit
  def run(key):
    now = dict(key=key, epoch=jnp.zeros(()), epochs=1)
    total, _, metrics = program.losses({}, {}, outputs, batch(), **now)
    return total, metrics

  parts = {}
  for seed in range(40):
    total, metrics = run(jax.random.key(seed))
    guided = [x for name, x in metrics.items() if name.endswith(':kd')]
    # The one of the three that is not in the sum.
    (dropped,) = np.flatnonzero(
      np.isclose(total, sum(guided) - np.array(guided), rtol=1e-5)
    )
    parts[dropped] = parts.get(dropped, 0) + 1
  assert sorted(parts) == [0, 1, 2] and min(parts.values()) >= 5


def test_each_guide_is_dropped_equally_often():
  keys = jax.random.split(jax.random.key(0), 2000)
  factors = np.stack(
    [jax.vmap(GuideDropout(n, guides=3, dropped=1))(keys) for n in range(3)]
  )
  np.testing.assert_array_equal(factors.sum(axis=0), 2)
  # Four standard deviations of the mean of 2000 draws.
  assert np.all(np.abs(factors.mean(axis=1) - 2 / 3) < 0.042)


def test_an_assistant_with_a_checkpoint_is_not_trained_again():
  spec = {'name': 'resnet56', 'checkpoint': 'runs/56'}
  phases = methods.takd((spec, 'resnet20'))
  assert [x.name for x in phases] == ['assistant1', 'distil']
  assistant = phases[0].graph.networks['assistant0']
  assert assistant == Frozen(model=Model('resnet56', checkpoint='runs/56'))


@pytest.mark.parametrize(
  ('method', 'settings', 'message'),
  [
    (
      methods.takd,
      dict(assistants=()),
      r'assistants of takd must be one model or more, got \(\)',
    ),
    (methods.takd, dict(assistants='resnet20'), 'one model or more'),
    (methods.takd, dict(assistants=3), 'one model or more, got 3'),
    (methods.takd, dict(assistants={'name': 'a'}), 'one model or more'),
    (methods.takd, dict(assistants=(3,)), "a model's name, .*; got 3"),
    (
      methods.dgkd,
      dict(assistants=('a',), dropped=-1),
      'dropped must be .* got -1',
    ),
    (
      methods.dgkd,
      dict(assistants=('a',), dropped=0.5),
      'dropped must be a whole .* got 0.5',
    ),
    (
      methods.ban,
      dict(generations=0),
      'generations must be .* at least 1, got 0',
    ),
    (
      methods.ban,
      dict(generations=2.5),
      'generations must be a whole .* got 2.5',
    ),
    (
      methods.ban,
      dict(generations=True),
      'generations must be a whole .* got True',
    ),
    (methods.dml, dict(peers=()), 'peers of dml must be one model or more'),
    (methods.dml, dict(order='phase'), "no order 'phase'"),
    (
      methods.pro_kd,
      dict(objective='kd', tune_epochs=0),
      'must be .* got 0',
    ),
  ],
)
def test_invalid_settings_are_refused(method, settings, message):
  with pytest.raises((KeyError, ValueError), match=message):
    method(**settings)


# Generations


def test_each_generation_is_the_next_ones_teacher():
  phases = methods.ban(3, label_weight=1.0)
  assert [weights_of(x) for x in phases] == [
    {f'labels->{name}:cross_entropy': 1.0, f'{guide}->{name}:kd': 1.0}
    for guide, name in (
      ('teacher', 'generation1'),
      ('generation1', 'generation2'),
      ('generation2', 'student'),
    )
  ]
  assert all(
    'temperature=1.0' in str(x.graph.transfers[1].objective) for x in phases
  )
  starts = [
    bind(phase.graph, build, SHAPE).initial_variables(
      name, jax.random.key(0), {}
    )
    for phase, name in zip(
      phases, ('generation1', 'generation2', 'student'), strict=True
    )
  ]
  kernels = [x['params']['head']['kernel'] for x in starts]
  for n in range(3):
    assert np.all(kernels[n] != kernels[n - 1])
  (one,) = methods.ban(1)
  assert weights_of(one) == {
    'labels->student:cross_entropy': 0.0,
    'teacher->student:kd': 1.0,
  }


# Peers


RATE = 0.5


def trained(phase, initial=None, steps=1, optimizer=None):
  optimizer = optimizer or optax.sgd(RATE)
  program = bind(phase.graph, build, SHAPE)
  key = jax.random.key(0, impl='rbg')
  init = functools.partial(states.init, program, optimizer, examples=6)
  state = jax.jit(init)(key, initial or {})
  step = jax.jit(
    make_step(program, optimizer, seed=0, steps_per_epoch=9, epochs=1)
  )
  path = [state]
  for n in range(steps):
    path.append(step(path[-1], batch(seed=n))[0])
  return program, path


@functools.cache
def two_peers(order):
  (phase,) = methods.dml(order=order)
  return trained(phase)


@pytest.mark.parametrize('order', ['batch', 'parallel'])
def test_peers_learn_from_each_others_outputs(order):
  program, (state, after) = two_peers(order)
  module, seen = program.modules['student'], batch(seed=0)

  def logits_of(params):
    return module.apply({'params': params}, seen['image']).logits

  def learned(params, guide):
    def loss(params):
      by_labels = losses.cross_entropy(logits_of(params), seen['label'])
      return jnp.mean(
        by_labels + losses.kd(logits_of(params), logits_of(guide), 1.0)
      )

    slope = jax.grad(loss)(params)
    return jax.tree.map(lambda p, g: p - RATE * g, params, slope)

  peer, student = (state.params[name] for name in ('peer0', 'student'))
  new_peer = learned(peer, student)
  guide = new_peer if order == 'batch' else peer
  want = {'peer0': new_peer, 'student': learned(student, guide)}
  chex.assert_trees_all_close(after.params, want, rtol=1e-4, atol=1e-6)


def test_turns_are_not_one_step():
  (_, (_, turns)), (_, (_, once)) = map(two_peers, ('batch', 'parallel'))
  gap = jax.tree.map(
    lambda a, b: float(np.max(np.abs(a - b))),
    turns.params['student'],
    once.params['student'],
  )
  assert max(jax.tree.leaves(gap)) > 1e-4


def test_many_peers_of_any_model_share_the_weight():
  (phase,) = methods.dml(('teacher', 'resnet14', 'student'), guide_weight=0.6)
  networks = phase.graph.networks
  assert networks['peer0'] == Learner(like='teacher')
  assert networks['peer1'] == Learner(model=Model('resnet14'))
  assert phase.graph.turns == (('peer0',), ('peer1',), ('peer2',), ('student',))
  by_name = weights_of(phase)
  assert len(by_name) == 4 + 4 * 3
  assert {w for name, w in by_name.items() if name.endswith(':kd')} == {0.6 / 3}
  assert phase.graph.frozen == ()


# Footsteps


def test_the_teacher_follows_its_own_path():
  follow, tune = methods.pro_kd('kd', tune_epochs=5, tune_learning_rate=0.01)
  (alone,) = methods.teacher()
  _, followed = trained(follow, steps=3)
  _, path = trained(alone, steps=3)
  for state, own in zip(followed, path, strict=True):
    chex.assert_trees_all_close(
      state.params['teacher'], own.params['teacher'], rtol=1e-5, atol=1e-7
    )
  moved = followed[-1].params['student']['head']['kernel']
  assert np.all(moved != followed[0].params['student']['head']['kernel'])
  assert (tune.epochs, tune.learning_rate) == (5, 0.01)
  assert weights_of(tune) == {'labels->student:cross_entropy': 1.0}


def test_checkpoints_of_a_teacher_are_followed_one_after_another():
  checkpoints = (
    dict(name='linear', checkpoint='early', temperature=2.0),
    dict(name='linear', checkpoint='late'),
  )
  early, late, tune = methods.pro_kd(
    'kd', tune_epochs=5, checkpoints=checkpoints, checkpoint_epochs=3
  )
  for phase, name, temperature in ((early, 'early', 2.0), (late, 'late', 4.0)):
    (teacher,) = phase.graph.frozen
    assert phase.graph.networks[teacher].model.checkpoint == name
    assert (phase.epochs, phase.schedule) == (3, 'constant')
    assert phase.graph.transfers[1].objective.settings == {
      'temperature': temperature
    }
  assert tune.graph.frozen == ()
  with pytest.raises(
    ValueError, match="mappings with a checkpoint, got 'late'"
  ):
    methods.pro_kd('kd', tune_epochs=5, checkpoints=('late',))


# Runs


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
  return str(tmp_path_factory.mktemp('chains') / 'cache')


def finish(cache, folder, **changes):
  made = tiny.experiment(cache=cache, epochs=1, **changes)
  return Run(made, pathlib.Path(folder)).finish()


def test_a_chain_runs_to_its_end(cache, tmp_path):
  method = dict(name='dgkd', assistants=('linear',))
  summary = finish(cache, tmp_path, method=method)
  assert list(summary['phases']) == ['teacher', 'assistant0', 'distil']
  models = {n: x['model'] for n, x in summary['networks'].items()}
  assert models == {'teacher': 'mlp', 'assistant0': 'linear', 'student': 'mlp'}
  assert set(summary['phases']['distil']['frozen']) == {'teacher', 'assistant0'}


def test_the_second_phase_begins_where_the_first_has_ended(cache, tmp_path):
  objective = dict(name='annealed', start=4.0, epochs=1)
  summary = finish(
    cache,
    tmp_path,
    method=dict(
      name='pro_kd',
      objective=objective,
      tune_epochs=1,
      tune_learning_rate=1e-12,
    ),
    optimizer__weight_decay=0.0,
  )
  assert list(summary['phases']) == ['follow', 'tune']
  rows = log.read(tmp_path / 'metrics.jsonl')
  follow, tune = (row['test/student/nll'] for row in rows)
  np.testing.assert_allclose(tune, follow, rtol=1e-5)


@pytest.mark.parametrize(
  'settings', [dict(kd_baseline=True), dict(teacher__checkpoint='runs/t')]
)
def test_a_followed_teacher_is_not_pretrained(settings):
  method = dict(name='pro_kd', objective='kd', tune_epochs=1)
  with pytest.raises(ValueError, match='pro_kd trains the teacher itself'):
    tiny.experiment(method=method, **settings)


def test_a_run_follows_checkpoints(cache, tmp_path):
  teach = dict(method=dict(name='teacher'), teacher__epochs=8)
  finish(cache, tmp_path / 'early', **teach)
  checkpoint = str(tmp_path / 'early/networks/teacher')
  follow = dict(name='mlp', checkpoint=checkpoint, temperature=2.0)
  method = dict(
    name='pro_kd', objective='kd', tune_epochs=1, checkpoints=(follow,)
  )
  summary = finish(cache, tmp_path / 'run', method=method)
  assert list(summary['phases']) == ['follow1', 'tune']
  card = json.loads((pathlib.Path(checkpoint) / 'network.json').read_text())
  teacher = summary['networks']['teacher1']
  assert teacher['params_sha256'] == card['params_sha256']


def test_a_teacher_can_be_stopped_early_and_leave_early(cache):
  """ESKD: a short training of the teacher, and labels alone at the end."""
  ends = dict(schedule='step', start=0.9, end=0.0, epoch=0.5)
  made = tiny.experiment(
    cache=cache,
    epochs=4,
    teacher__epochs=1,
    method=dict(name='kd', guide_weight=ends),
  )
  teacher, distil = made.phases
  assert (teacher.epochs, distil.epochs) == (1, 4)
  _, guided = distil.program.graph.transfers
  weights = [guided.weight(jnp.float32(x), 4) for x in (0, 1.9, 2, 3.9)]
  np.testing.assert_allclose(weights, [0.9, 0.9, 0, 0])
