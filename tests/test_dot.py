"""DOT: its rule in NumPy, its two gradients in the step, where it is SGD."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from test_graph import SHAPE, batch, build, labels_to

from jaxkd import objectives, tree
from jaxkd.graph import Frozen, Graph, Learner, Transfer
from jaxkd.graph.program import bind
from jaxkd.runs.cache import settings_of
from jaxkd.training import optimizer
from jaxkd.training import state as states
from jaxkd.training.dot import Parts, TwoGradients
from jaxkd.training.phase import train_phase
from jaxkd.training.step import make_step

STEPS, M, DELTA, DECAY = 12, 0.9, 0.075, 0.3
RATES = [0.1 if step < 7 else 0.02 for step in range(STEPS)]


def rate(step):
  return jnp.where(step < 7, 0.1, 0.02)


def start():
  rng = np.random.default_rng(0)
  return {
    owner: {'kernel': rng.normal(size=(3, 2)), 'bias': rng.normal(size=2)}
    for owner in ('student', 'objectives')
  }


def slopes(owner, name, x, step):
  """Gradients of the two losses.

  Labels do not train the objective's parameters, and guides do not train the
  student's bias.
  """
  task, guide = np.sin(3 * x + step), np.cos(2 * x - step) + 0.1 * x
  return (
    task if owner == 'student' else np.zeros_like(x),
    guide if name == 'kernel' or owner == 'objectives' else np.zeros_like(x),
  )


def run(optimizer, gradients=slopes, join=Parts):
  """Returns the parameters after STEPS updates, in float64."""
  with jax.enable_x64(True):
    params = jax.tree.map(jnp.asarray, start())
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for step in range(STEPS):
      both = {
        owner: {
          n: gradients(owner, n, np.asarray(x), step) for n, x in own.items()
        }
        for owner, own in params.items()
      }
      task, guide = (
        {
          o: {n: jnp.asarray(g[i]) for n, g in own.items()}
          for o, own in both.items()
        }
        for i in range(2)
      )
      grads = {owner: join(task[owner], guide[owner]) for owner in params}
      change, state = update(grads, state, params)
      params = optax.apply_updates(params, change)
    return jax.tree.map(np.asarray, params)


def published(owner, name, x, delta, decay=DECAY):
  """The rule of the released code, with its mean momentum."""
  v_task = v_guide = 0.0
  both = owner == 'student' and name == 'kernel'
  low, high = (M - delta, M + delta) if both else (M, M)
  for step, lr in enumerate(RATES):
    task, guide = slopes(owner, name, x, step)
    v_task = low * v_task + task + decay * x
    v_guide = high * v_guide + guide
    x = x - lr * (v_task + v_guide)
  return x


def make(name='dot', **settings):
  settings = {'momentum': M, 'weight_decay': DECAY, **settings}
  return optimizer.make_optimizer(name, rate, **settings)


@pytest.mark.parametrize('delta', [0.0, DELTA])
@pytest.mark.parametrize('decay', ['all', 'kernels'])
def test_the_rule_is_the_published_one(delta, decay):
  got = run(make(delta=delta, decay=decay))
  for owner, own in start().items():
    for name, x in own.items():
      share = DECAY if decay == 'all' or name == 'kernel' else 0.0
      want = published(owner, name, x, delta, share)
      np.testing.assert_allclose(got[owner][name], want, rtol=1e-9)


def test_is_sgd_without_delta():
  def sums(task, guide):
    return jax.tree.map(jnp.add, task, guide)

  sgd = run(make('sgd'), join=sums)
  chex.assert_trees_all_close(run(make(delta=0.0)), sgd, rtol=1e-12)
  # With delta it is, too, for parameters that only one of the losses trains.
  dot = run(make(delta=DELTA))
  assert np.all(
    np.abs(dot['student']['kernel'] - sgd['student']['kernel']) > 1e-3
  )
  for owner, name in (
    ('student', 'bias'),
    ('objectives', 'kernel'),
    ('objectives', 'bias'),
  ):
    np.testing.assert_allclose(dot[owner][name], sgd[owner][name], rtol=1e-12)


def test_each_owner_has_its_own_rate():
  rates = {'student': rate, 'objectives': lambda step: 0.5 * rate(step)}
  one = run(make())
  two = run(
    optimizer.make_optimizer('dot', rates, momentum=M, weight_decay=DECAY)
  )
  chex.assert_trees_all_close(one['student'], two['student'], rtol=1e-12)
  gap = np.abs(one['objectives']['bias'] - two['objectives']['bias'])
  assert np.all(gap > 1e-3)


def test_clips_the_norm_of_the_sum():
  tx = optimizer.make_optimizer('dot', lambda step: 1.0, clip_norm=1.0)
  params = {'student': jnp.zeros(4)}
  ones = jnp.ones(4)
  grads = {'student': Parts(3 * ones, 2 * ones)}  # of norm 10
  change, _ = tx.update(grads, tx.init(params), params)
  np.testing.assert_allclose(change['student'], -5 / 10 * ones, rtol=1e-6)
  grads = {'student': Parts(3 * ones, -2.9 * ones)}  # of norm 0.2
  change, _ = tx.update(grads, tx.init(params), params)
  np.testing.assert_allclose(change['student'], -0.1 * ones, rtol=1e-5)


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    (dict(nesterov=True), 'no Nesterov momentum: set nesterov to False'),
    (dict(delta=0.1), 'the momenta are 0.8 and 1: both'),
    (dict(delta=-0.1), 'the momenta are 1 and 0.8: both'),
    (dict(momentum=0.05), 'the momenta are -0.025 and 0.125: both'),
  ],
)
def test_impossible_settings_are_refused(settings, message):
  with pytest.raises(ValueError, match=message):
    make(**settings)


# In the step


def program():
  transfers = (
    *labels_to('student', weight=0.1),
    Transfer('teacher', 'student', objectives.kd(), 0.9),
  )
  graph = Graph({'teacher': Frozen(), 'student': Learner()}, transfers)
  return bind(graph, build, SHAPE)


def trained(optimizer, steps=3):
  made = program()

  @jax.jit
  def init(key):
    initial = {'teacher': made.init_network('teacher', jax.random.key(5))}
    return states.init(made, optimizer, key, initial, examples=6)

  state = init(jax.random.key(0))
  step = jax.jit(
    make_step(made, optimizer, seed=0, steps_per_epoch=9, epochs=1)
  )
  seen = []
  for n in range(steps):
    state, metrics = step(state, batch(seed=n))
    seen.append(metrics)
  return state, seen


def store(updates, state, params=None):
  """An update that changes nothing and stores the gradients as its state."""
  del state
  return jax.tree.map(jnp.zeros_like, params), updates


def test_the_step_passes_the_gradients_of_both_losses():
  state, _ = trained(TwoGradients(lambda params: (), store), 1)
  (got,) = state.opt
  made, (update,) = program(), program().graph.updates()
  for part, transfers in zip(
    got['student'], (update.from_labels, update.from_networks), strict=True
  ):

    def loss(params, transfers=transfers):
      everything = {**state.params, 'student': params}
      outputs, _ = made.forward(everything, state.stats, batch()['image'])
      now = dict(key=jax.random.key(0), epoch=jnp.zeros(()), epochs=1)
      args = ({}, {}, outputs, batch())
      return made.losses(*args, **now, transfers=transfers)[0]

    want = jax.jit(jax.grad(loss))(state.params['student'])
    chex.assert_trees_all_close(part, want, rtol=1e-5, atol=1e-7)
    assert any(np.any(x) for x in jax.tree.leaves(want))


def test_the_step_is_that_of_sgd_without_delta():
  (dot, seen), (sgd, same) = (
    trained(optimizer.make_optimizer(name, rate, weight_decay=0.01, delta=0.0))
    for name in ('dot', 'sgd')
  )
  chex.assert_trees_all_close(dot.params, sgd.params, rtol=1e-5, atol=1e-7)
  chex.assert_trees_all_close(seen, same, rtol=1e-5)
  other, _ = trained(optimizer.make_optimizer('dot', rate, weight_decay=0.01))
  gaps = jax.tree.map(
    lambda a, b: np.max(np.abs(np.asarray(a) - np.asarray(b))),
    other.params['student'],
    sgd.params['student'],
  )
  assert max(jax.tree.leaves(gaps)) > 1e-4


# In a run


ANNEALED = dict(name='annealed', start=4.0, epochs=3)


def task_of(**changes):
  made = tiny.experiment(
    method=dict(name='distil', objective=ANNEALED),
    optimizer__name='dot',
    **changes,
  )
  return made.phases[-1].task(made.dataset)


def test_a_resumed_training_ends_as_an_uninterrupted_one(tmp_path):
  """Including the optimizer's state and that of a wrapped objective."""
  task = task_of()
  key = jax.random.key(3)
  initial = {'teacher': task.program.init_network('teacher', key)}
  train_phase(dataclasses.replace(task, epochs=1), tmp_path / 'a', initial, {})
  resumed = train_phase(task, tmp_path / 'a', initial, {})
  whole = train_phase(task, tmp_path / 'b', initial, {})
  digests = {tree.digest(x.variables['student']) for x in (resumed, whole)}
  assert len(digests) == 1


def test_is_sgd_where_only_labels_teach():
  """So a teacher in the cache is the same for both."""
  dot, sgd = (
    tiny.experiment(optimizer__name=name, optimizer__delta=delta)
    for name, delta in (('dot', 0.09), ('sgd', 0.075))
  )
  assert isinstance(dot.phases[1].make_optimizer(1), TwoGradients)
  for made in (dot, sgd):
    assert not isinstance(made.phases[0].make_optimizer(1), TwoGradients)
  settings = [settings_of(x, x.phases[0]) for x in (dot, sgd)]
  assert settings[0] == settings[1]
  assert 'delta' not in settings[0]['optimizer']
