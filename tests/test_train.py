"""The feed, the step and the moving average, on small networks."""

import dataclasses

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from test_methods import start

from jaxkd.data.base import Split
from jaxkd.training import evaluation
from jaxkd.training import mesh as meshes
from jaxkd.training.evaluation import Evaluator
from jaxkd.training.feed import Feed, chunk_of
from jaxkd.training.step import ema_decay


def task_of(**changes):
  """Plain training on 44 examples: five batches of 8 and one of 4."""
  experiment = tiny.experiment(
    method=dict(name='plain'), data__settings__train_size=44, **changes
  )
  return experiment.phases[-1].task(experiment.dataset)


@pytest.fixture(scope='module')
def task():
  return task_of()


@pytest.fixture(scope='module')
def feed(task):
  """The feed of one device, with its compiled steps."""
  return start(task)[0]


@pytest.fixture(scope='module')
def first_state(task):
  """The state before the first step, as NumPy arrays."""
  return jax.tree.map(np.array, start(task)[1])


@pytest.fixture(scope='module')
def recorder(feed):
  return recording(feed)


def recording(feed, **changes):
  """The feed with a step that trains nothing and returns its batch."""

  def step(state, batch):
    return state, batch

  return dataclasses.replace(feed, step=step, **changes)


def epoch_of(feed, epoch, start=0, state=0):
  batches = []
  for call in feed.calls(epoch, start):
    state, shown = call.run(jnp.asarray(state))
    for n in range(call.steps):
      batches.append(jax.tree.map(lambda x, n=n: np.asarray(x[n]), shown))
  return batches


def test_an_epoch_shows_every_example_once(task, recorder):
  batches = epoch_of(recorder, 0)
  assert [len(b['index']) for b in batches] == [8, 8, 8, 8, 8, 4]
  seen = np.concatenate([b['index'] for b in batches])
  assert sorted(seen) == list(range(44))
  for batch in batches:
    np.testing.assert_array_equal(
      batch['label'], task.dataset.train.label[batch['index']]
    )


@pytest.mark.parametrize('chunk', [1, 2, 3])
def test_chunks_and_resumption_show_the_same_batches(recorder, chunk):
  whole = epoch_of(recorder, 1)
  chunked = dataclasses.replace(recorder, chunk=chunk)
  for done in (0, 1, 4, 5):
    part = epoch_of(chunked, 1, done)
    chex.assert_trees_all_equal(part, whole[done:])


@hypothesis.given(st.integers(0, 2000), st.integers(1, 120))
def test_an_epoch_is_few_calls(full, most):
  chunk = chunk_of(full, most)
  assert 1 <= chunk <= max(most, 1)
  if full <= most:
    assert chunk == max(full, 1)
  else:
    calls = -(-full // chunk)
    assert calls <= 2 * -(-full // most)
    divides = [n for n in range(-(-most // 2), most + 1) if full % n == 0]
    assert full % chunk == 0 or not divides


def test_the_calls_of_cifar_are_one_program_and_the_rest():
  assert chunk_of(781, 100) == 71


def test_a_call_is_lowered_from_shapes_alone(feed, first_state, monkeypatch):
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), first_state
  )
  untouched = dataclasses.replace(feed, chunk=2)
  monkeypatch.setattr(meshes, 'put_split', None)  # nothing is on a device
  assert untouched.programs == [(2, 8), (1, 8), (1, 4)]
  for steps, size in untouched.programs:
    lowered = untouched.lower(feed.mesh, shapes, steps, size).as_text()
    assert lowered == feed.lower(feed.mesh, first_state, steps, size).as_text()


def test_a_call_is_lowered_for_other_devices(feed, first_state):
  mesh = meshes.make_mesh(jax.devices()[:2])
  lowered = feed.lower(mesh, first_state, 1, 8)
  assert 'mhlo.num_partitions = 2' in lowered.as_text()
  assert feed.mesh.size == 1


def test_accelerators_take_as_many_steps_in_a_call_as_fit(feed, monkeypatch):
  feed = dataclasses.replace(feed, chunk=None)
  assert feed.programs == [(1, 8), (1, 4)]
  monkeypatch.setattr(meshes, 'platform', lambda mesh: 'gpu')
  assert feed.programs == [(5, 8), (1, 4)]
  groups = [call.steps for call in feed.calls(0, 2)]
  assert groups == [3, 1]


def test_epochs_differ_in_order_and_views(recorder):
  first, second = (epoch_of(recorder, e) for e in (0, 1))
  a, b = (np.concatenate([x['index'] for x in e]) for e in (first, second))
  assert np.any(a != b)
  images = [
    dict(zip(i, np.concatenate([x['image'] for x in e]), strict=True))
    for i, e in ((a, first), (b, second))
  ]
  assert sum(np.any(images[0][i] != images[1][i]) for i in range(44)) > 20


def test_a_streamed_split_trains_like_one_in_memory(task, recorder):
  image = task.dataset.train.image
  streamed = dataclasses.replace(
    task.dataset,
    train=Split(task.dataset.train.label, load=lambda index, _: image[index]),
  )
  lazy = dataclasses.replace(recorder, dataset=streamed)
  chex.assert_trees_all_equal(epoch_of(lazy, 0), epoch_of(recorder, 0))


def run(feed, state, epochs=1):
  for epoch in range(epochs):
    for call in feed.calls(epoch, 0):
      state, metrics = call.run(state)
  return state, metrics


def test_chunks_train_like_single_steps(feed, first_state):
  states = []
  for steps in (feed, dataclasses.replace(feed, chunk=2)):
    state, _ = run(steps, jax.tree.map(jnp.array, first_state))
    states.append(state)
  assert states[0].step == 6
  chex.assert_trees_all_close(states[0].params, states[1].params, rtol=1e-5)


def test_the_moving_average_follows_its_recurrence():
  task = task_of(optimizer__ema=0.9)
  feed, state = start(task)
  want = jax.tree.map(np.array, state.params['student'])
  for step, call in enumerate(feed.calls(0, 0), start=1):
    state, _ = call.run(state)
    decay = min(0.9, (1 + step) / (10 + step))
    want = jax.tree.map(
      lambda w, p, d=decay: d * w + (1 - d) * np.asarray(p),
      want,
      state.params['student'],
    )
  chex.assert_trees_all_close(
    state.ema['params']['student'], want, rtol=1e-4, atol=1e-6
  )


def test_a_long_average_forgets_the_initial_values_in_a_short_training():
  decays = [float(ema_decay(step, 0.9999)) for step in range(1, 31)]
  assert np.prod(decays) < 1e-5  # the weight that the initial values keep
  assert decays == sorted(decays)
  assert ema_decay(10**6, 0.9999) == np.float32(0.9999)


def test_owners_can_have_their_own_rates():
  experiment = tiny.experiment(
    method=dict(name='plain'), optimizer__rates={'student': 0.0}
  )
  feed, state = start(experiment.phases[-1].task(experiment.dataset))
  before = jax.tree.map(np.array, state.params)
  state, _ = run(feed, state)
  chex.assert_trees_all_equal(before, jax.tree.map(np.array, state.params))


def test_bfloat16_keeps_parameters_and_losses_in_float32():
  feed, state = start(task_of(compute_dtype='bfloat16'))
  state, metrics = run(feed, state)
  chex.assert_tree_all_finite(metrics)
  for leaf in jax.tree.leaves((state.params, state.opt, metrics)):
    assert leaf.dtype in (np.float32, np.int32)


def test_the_gradient_norm_is_measured_before_it_is_clipped(
  task, feed, first_state
):
  call = next(iter(feed.calls(0, 0)))
  _, metrics = call.run(jax.tree.map(jnp.array, first_state))
  clipped = optax.chain(optax.clip_by_global_norm(1e-3), task.optimizer)
  feed, state = start(dataclasses.replace(task, optimizer=clipped))
  _, other = next(iter(feed.calls(0, 0))).run(state)
  np.testing.assert_allclose(metrics['grad_norm'], other['grad_norm'])
  assert metrics['grad_norm'] > 1e-3


@pytest.mark.parametrize('devices', [1, 4])
def test_evaluation_counts_every_example_once(task, devices):
  mesh = meshes.make_mesh(jax.devices()[:devices])
  module = task.program.modules['student']
  variables = task.program.init_network('student', jax.random.key(0))
  dataset = task.dataset
  evaluator = Evaluator(dataset.test, dataset.view, task.problem, mesh)
  got = evaluator(module, variables)
  image = (dataset.test.image / 255 - dataset.view.mean) / dataset.view.std
  logits = module.apply(variables, image.astype(np.float32)).logits
  hits = np.argmax(logits, -1) == dataset.test.label
  log_p = np.asarray(jax.nn.log_softmax(logits))
  nll = -log_p[np.arange(len(hits)), dataset.test.label]
  np.testing.assert_allclose(got['top1'], hits.mean(), rtol=1e-6)
  np.testing.assert_allclose(got['nll'], nll.mean(), rtol=1e-4)


@pytest.mark.parametrize('devices', [1, 4])
def test_evaluation_in_one_call_has_the_results_of_batches(
  task, devices, monkeypatch
):
  mesh = meshes.make_mesh(jax.devices()[:devices])
  module = task.program.modules['student']
  one, other = (
    task.program.init_network('student', jax.random.key(n)) for n in range(2)
  )
  dataset = task.dataset
  monkeypatch.setattr(evaluation, 'BATCH', 3)
  evaluator = Evaluator(dataset.test, dataset.view, task.problem, mesh)

  def results():
    return (
      evaluator(module, one),
      evaluator.compare(module, one, module, other, temperature=2.0),
      evaluator.outputs(module, one, 17)._asdict(),
    )

  by_batch = results()
  calls = []
  loop = evaluation._loop
  monkeypatch.setattr(
    evaluation, '_loop', lambda *x: (calls.append(x), loop(*x))[1]
  )
  monkeypatch.setattr(meshes, 'platform', lambda mesh: 'gpu')
  chex.assert_trees_all_close(results(), by_batch, rtol=1e-5, atol=1e-6)
  assert len(calls) == 3


def test_an_indivisible_batch_size_is_refused(task):
  mesh = meshes.make_mesh()
  with pytest.raises(ValueError, match=r'batch_size 6 .* 4 devices.*=8'):
    Feed(task.dataset, task.problem, mesh, 6, 0, step=None)


@pytest.mark.parametrize(
  ('cores', 'batch', 'devices'),
  [(1, 64, 1), (2, 64, 2), (2, 63, 1), (3, 64, 2), (3, 63, 3), (64, 64, 4)],
)
def test_cores_share_a_batch_evenly(monkeypatch, cores, batch, devices):
  set_options = {}
  monkeypatch.delenv('JAX_NUM_CPU_DEVICES', raising=False)
  monkeypatch.setattr(meshes.os, 'cpu_count', lambda: cores)
  monkeypatch.setattr(meshes.jax.config, 'update', set_options.__setitem__)
  meshes.use_cores(batch)
  assert set_options == {'jax_num_cpu_devices': devices}


def test_the_environment_sets_the_number_of_devices(monkeypatch):
  monkeypatch.setenv('JAX_NUM_CPU_DEVICES', '3')
  monkeypatch.setattr(meshes.jax.config, 'update', None)
  meshes.use_cores(64)
