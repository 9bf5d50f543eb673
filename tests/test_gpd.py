"""Gap preserving distillation: the graph, where it starts, and one step.

The step is in float64; what many steps do is in test_gpd_training.
"""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reparam_nets as nets
from gpd_programs import GUIDED, batch_of, initial_of, program_of, start
from reparam_nets import SHAPE, difference

from jaxkd import methods, reparam, tree
from jaxkd.training import phase as phases
from jaxkd.training import state as states
from jaxkd.training.step import make_step

# The graph


def transfers_of(**settings):
  (phase,) = methods.gpd(**settings)
  return phase.graph, {
    (str(t.guide), t.learner): (t.objective.name, t.weight)
    for t in phase.graph.transfers
  }


def test_the_graph_is_the_papers_first_figure():
  graph, transfers = transfers_of(static='dkd')
  assert transfers == {
    ('labels', 'student'): ('cross_entropy', 1.0),
    ('labels', 'dynamic_teacher'): ('cross_entropy', 1.0),
    ('teacher', 'student'): ('dkd', 1.0),
    ('teacher', 'dynamic_teacher'): ('dkd', 1.0),
    ('dynamic_teacher', 'student'): ('soft_cross_entropy', 3.0),
  }
  assert all(t.detach for t in graph.transfers)
  assert graph.learners == ('dynamic_teacher',)
  assert graph.frozen == ('teacher',)
  assert graph.networks['dynamic_teacher'].width == 2
  (transfer,) = [t for t in graph.transfers if t.guide == 'dynamic_teacher']
  assert transfer.objective.settings['smoothing'] == 0.1


@pytest.mark.parametrize('static', [None, ''])
def test_without_a_static_objective_there_is_no_teacher(static):
  graph, transfers = transfers_of(static=static)
  assert 'teacher' not in graph.networks
  assert not [guide for guide, _ in transfers if guide == 'teacher']
  assert len(transfers) == 3


def test_the_static_teacher_can_leave_the_dynamic_one_alone():
  _, transfers = transfers_of(
    guide_dynamic=False, static_weight=0.5, label_weight=0.1
  )
  assert ('teacher', 'dynamic_teacher') not in transfers
  assert transfers['teacher', 'student'] == ('kd', 0.5)
  assert transfers['labels', 'dynamic_teacher'][1] == 0.1


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    (dict(ratio=0.5), 'ratio of gpd must be at least 1, got 0.5'),
    (dict(noise=-1e-6), 'noise of gpd must be at least 0, got -1e-06'),
    (dict(static='kt'), "no objective 'kt'"),
    (dict(dynamic=dict(name='kd', temprature=2)), "'temprature'"),
    (dict(dynamic=dict(temperature=2)), 'an objective is a name'),
  ],
)
def test_invalid_settings_are_refused(settings, message):
  with pytest.raises((KeyError, ValueError), match=message):
    methods.gpd(**settings)


def test_an_unknown_scaling_is_refused_when_networks_are_bound():
  with pytest.raises(ValueError, match="got 'none'"):
    program_of(scaling='none')


@pytest.mark.parametrize('ratio', [2.5, 3])
def test_identical_copies_raise_a_warning(ratio):
  with pytest.warns(UserWarning, match=f'ratio={ratio}, sharing=True and noi'):
    methods.gpd(ratio=ratio, noise=0)
  with pytest.warns(UserWarning, match='ratio=2.0, sharing=False and noise=0'):
    methods.gpd(sharing=False, noise=0)
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    methods.gpd(ratio=ratio)
    methods.gpd(ratio=2, noise=0)


# Where it starts


def forwards(program, initial, batch):
  """Logits of student and dynamic teacher, in eval and in train mode."""

  def both(initial, image):
    state = start(program, optax.sgd(0.1), initial)
    variables = states.variables_of(program, state)
    trained, _ = program.forward(
      program.resolve(state.params), state.stats, image
    )
    return {
      name: (
        program.modules[name].apply(variables[name], image).logits,
        trained[name].logits,
      )
      for name in ('student', 'dynamic_teacher')
    }

  return nets.compiled(both)(initial, batch['image'])


@pytest.mark.parametrize(
  'settings',
  [
    dict(),
    dict(scaling='official'),
    dict(ratio=1.5, sharing=False),
    dict(noise=1e-6, student_branches=2),
  ],
  ids=str,
)
@pytest.mark.filterwarnings('ignore:gpd with ratio=1.5, sharing=False')
def test_the_student_and_its_dynamic_teacher_start_as_one(settings):
  program = program_of(**settings)
  initial = initial_of(program)
  student, teacher = forwards(program, initial, batch_of()).values()
  for got, want in zip(teacher, student, strict=True):
    if settings.get('noise'):
      assert 0 < difference(got, want) <= 2e-3
    else:
      assert difference(got, want) <= 1e-5
  narrow = nets.forward(program.modules['student'])
  want = nets.compiled(narrow)(initial['student'], batch_of()['image'])
  assert difference(student[0], want) <= 1e-5


def test_fine_tuning_starts_from_the_plain_student():
  """Its checkpoint has no branches, the networks that are trained have."""
  plain = nets.Branched()
  trained = nets.random_variables(plain)
  program = program_of(static=None, student_branches=4)
  initial = phases.module_variables(program, {'student': trained}, seed=0)
  assert {*initial} == {'student'}
  student, teacher = forwards(program, initial, batch_of()).values()
  want = nets.compiled(nets.forward(plain))(trained, batch_of()['image'])
  np.testing.assert_allclose(student[0], want, rtol=0, atol=1e-6)
  assert difference(teacher[0], want) <= 1e-5


# One step


def cross_entropy(logits, label):
  log_q = jax.nn.log_softmax(logits)
  return -jnp.mean(log_q[jnp.arange(len(label)), label])


def hinton(s, t, temperature=GUIDED['temperature']):
  log_q = jax.nn.log_softmax(s / temperature)
  log_p = jax.nn.log_softmax(t / temperature)
  each = jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)
  return temperature**2 * jnp.mean(each)


def smoothed(s, d):
  """As in the published code: two means, mixed nine to one."""
  log_q = jax.nn.log_softmax(s)
  soft = -jnp.mean(jnp.sum(jax.nn.softmax(d) * log_q, axis=-1))
  return 0.9 * soft - 0.1 * jnp.mean(log_q)


def references(program, state, batch, weight, guided=True):
  """Gradients by the wide parameters, each loss by itself, without Program.

  Of the dynamic teacher's loss; of the student's, with the dynamic teacher's
  logits a constant; of their transfer alone; and of it with the dynamic
  teacher not detached.
  """
  narrow, wide = (program.modules[n] for n in ('student', 'dynamic_teacher'))
  plan = reparam.make_plan(narrow, wide, SHAPE)
  theta, image = state.params['dynamic_teacher'], batch['image']

  def run(name, net, params):
    variables = {'params': params, 'batch_stats': state.stats[name]}
    return nets.forward(net, train=True)(variables, image)[0]

  teach = functools.partial(run, 'dynamic_teacher', wide)
  study = lambda theta: run('student', narrow, reparam.extract(theta, plan))
  static = 0.0
  if guided:
    frozen = {
      'params': state.params['teacher'],
      'batch_stats': state.stats['teacher'],
    }
    static = nets.forward(program.modules['teacher'])(frozen, image)

  def supervised(logits):
    loss = cross_entropy(logits, batch['label'])
    return loss + hinton(logits, static) if guided else loss

  constant = teach(theta)
  return [
    jax.grad(loss)(theta)
    for loss in (
      lambda p: supervised(teach(p)),
      lambda p: supervised(study(p)) + weight * smoothed(study(p), constant),
      lambda p: smoothed(study(p), constant),
      lambda p: smoothed(study(p), teach(p)),
    )[: 4 if weight else 2]
  ]


@functools.cache
def one_step(weight, guided):
  """The gradient that a step has used, the references, states around it."""
  static = GUIDED if guided else None
  with jax.enable_x64(True):
    program = program_of(jnp.float64, weight=weight, static=static)
    optimizer, batch = optax.sgd(0.5), batch_of(dtype=np.float64)
    step = make_step(program, optimizer, seed=0, steps_per_epoch=10, epochs=1)

    def all_of_it(initial, batch):
      before = start(program, optimizer, initial)
      after, metrics = step(before, batch)
      wanted = references(program, before, batch, weight, guided)
      return before, after, metrics, wanted

    initial = initial_of(program, np.float64)
    results = nets.compiled(all_of_it)(initial, batch)
  before, after, metrics, wanted = jax.tree.map(np.asarray, results)
  used = jax.tree.map(
    lambda old, new: (old - new) / 0.5,
    before.params['dynamic_teacher'],
    after.params['dynamic_teacher'],
  )
  return program, before, after, metrics, used, wanted


def largest(grads):
  return max(np.max(np.abs(leaf)) for leaf in jax.tree.leaves(grads))


def gap(a, b):
  """The largest difference of two trees, in units of the largest entry."""
  return largest(jax.tree.map(np.subtract, a, b)) / largest(b)


@pytest.mark.parametrize(('weight', 'guided'), [(3.0, True), (0.0, False)])
def test_a_step_follows_the_sum_of_the_two_gradients(weight, guided):
  """Without transfers of networks, of the two cross-entropies alone."""
  _, before, after, _, used, wanted = one_step(weight, guided)
  teacher, student, *_ = wanted
  assert gap(used, jax.tree.map(np.add, teacher, student)) <= 1e-6
  assert largest(teacher) > 1e-3 and largest(student) > 1e-3
  assert after.step == before.step + 1
  assert {*after.params} == {'dynamic_teacher'} | (
    {'teacher'} if guided else set()
  )


def test_the_dynamic_teacher_does_not_follow_its_student():
  *_, used, (teacher, _, detached, attached) = one_step(3.0, True)
  own = nets.shapes(nets.Branched())['params']
  outside = 0.0
  for path, leaf in tree.leaves(own).items():
    inside = tuple(slice(n) for n in leaf.shape)
    pulled, through = (
      np.array(tree.leaves(grads)[path]) for grads in (detached, attached)
    )
    rest, teachers = (
      np.array(tree.leaves(grads)[path]) for grads in (used, teacher)
    )
    for array in (pulled, through, rest, teachers):
      array[inside] = 0
    assert not np.any(pulled), path
    # Outside of the student, a step uses the teacher's own losses only.
    np.testing.assert_allclose(rest, teachers, atol=1e-6 * largest(teacher))
    outside = max(outside, np.max(np.abs(through)))
  # The test has power: an attached teacher would have a gradient.
  assert outside > 1e-3


def test_a_step_moves_the_student_by_its_factor_times_its_block():
  program, before, after, *_ = one_step(3.0, True)
  with jax.enable_x64(True):
    old, new = (
      tree.leaves(states.variables_of(program, s)['student']['params'])
      for s in (before, after)
    )
  twice = {'middle/kernel', 'head/kernel'}  # of what is read by all copies
  for path in old:
    theta = [
      tree.leaves(s.params['dynamic_teacher'])[path] for s in (before, after)
    ]
    inside = tuple(slice(n) for n in old[path].shape)
    moved = (2 if path in twice else 1) * (theta[1] - theta[0])[inside]
    change = np.asarray(new[path]) - np.asarray(old[path])
    np.testing.assert_allclose(change, moved, atol=1e-9, err_msg=path)


def test_losses_are_those_of_the_papers_figure():
  _, _, _, metrics, *_ = one_step(3.0, True)
  names = {
    'labels->dynamic_teacher:cross_entropy',
    'labels->student:cross_entropy',
    'teacher->dynamic_teacher:kd',
    'teacher->student:kd',
    'dynamic_teacher->student:soft_cross_entropy',
  }
  assert {k for k in metrics if k.startswith('loss/')} == {
    f'loss/{name}' for name in names
  }
  weights = [
    3.0 if name.endswith('soft_cross_entropy') else 1 for name in names
  ]
  total = sum(
    w * metrics[f'loss/{n}'] for w, n in zip(weights, names, strict=True)
  )
  np.testing.assert_allclose(metrics['loss'], total, rtol=1e-6)
