"""The Python API: the engine of the command line, with objects for names."""

import json
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxkd
from jaxkd import data, models
from jaxkd.api import settings
from jaxkd.api.training import experiment_of
from jaxkd.runs.experiment import build
from jaxkd.runs.run import Run

SHAPE = (8, 8, 1)
DATA = {
  'name': 'synthetic',
  'image_size': 8,
  'settings': dict(num_classes=3, channels=1, train_size=40, test_size=60),
}
QUICK = dict(epochs=1, batch_size=8)


class Linear(nn.Module):
  """A Linen module of a reader's own, which is in no module to be imported."""

  num_classes: int = 3

  @nn.compact
  def __call__(self, image, train=False):
    return nn.Dense(self.num_classes, name='head')(
      image.reshape(len(image), -1)
    )


class LinearNNX(nnx.Module):
  """The same for nnx."""

  def __init__(self, num_classes, rngs):
    self.head = nnx.Linear(64, num_classes, rngs=rngs)

  def __call__(self, image):
    return self.head(image.reshape(len(image), -1))


@pytest.fixture(scope='module')
def result(tmp_path_factory) -> jaxkd.Result:
  folder = tmp_path_factory.mktemp('api')
  return jaxkd.distill(
    'mlp',
    'mlp',
    DATA,
    workdir=folder / 'run',
    cache=str(folder / 'cache'),
    optimizer={'learning_rate': 0.02},
    **QUICK,
  )


def images():
  return experiment_of('mlp', 'mlp', DATA, **QUICK).dataset.test


def test_a_call_is_the_run_that_its_config_makes(result, tmp_path):
  config = result.config
  assert config.optimizer.learning_rate == 0.02
  run = Run(build(config), tmp_path / 'run')
  got = run.finish()['networks']['student']['params_sha256']
  assert got == result.summary['networks']['student']['params_sha256']


def test_the_same_call_finds_the_finished_run(result):
  again = jaxkd.distill(
    'mlp',
    'mlp',
    DATA,
    workdir=result.workdir,
    cache=result.config.cache,
    optimizer={'learning_rate': 0.02},
    **QUICK,
  )
  assert again.summary == result.summary
  assert jaxkd.load(result.workdir).summary == result.summary


def test_paths_from_python_are_expanded(result, monkeypatch):
  monkeypatch.setenv('HOME', str(result.workdir.parent))
  monkeypatch.setenv('RUN', result.workdir.name)
  assert jaxkd.load('~/$RUN').workdir == result.workdir
  network = jaxkd.load_network('~/$RUN/networks/student')
  assert network.top1 == result.student.top1
  section = settings.network('teacher', '~/$RUN', None)
  assert section['checkpoint'] == str(result.workdir)


def test_a_network_of_a_result_is_read_once(result):
  assert result.student is result['student'] is result.networks['student']


def test_a_result_shows_its_networks_and_epochs(result):
  assert result.networks.keys() == {'teacher', 'student'}
  assert result.network.card.name == 'student'
  assert result.table().splitlines()[0].startswith('network')
  assert 'student' in repr(result) and 'mlp' in repr(result.student)
  assert [row['phase'] for row in result.metrics] == ['teacher', 'distil']
  with pytest.raises(KeyError, match="no network 'studnt'. Did you mean"):
    result['studnt']


def test_a_network_is_a_function_of_images(result):
  test, student = images(), result.student
  logits = student(test.image)
  assert logits.shape == (60, 3) and logits.dtype == np.float32
  assert np.mean(logits.argmax(-1) == test.label) == pytest.approx(student.top1)
  np.testing.assert_allclose(
    student(test.image / np.float32(255)), logits, rtol=1e-4, atol=1e-5
  )
  np.testing.assert_allclose(student(test.image[0]), logits[0], rtol=1e-5)
  p = student.probabilities(test.image)
  np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-5)
  assert (
    student.classes(test.image)[0]
    == student.card.class_names[logits[0].argmax()]
  )
  outputs = student.module.apply(student.variables, jnp.zeros((1, *SHAPE)))
  assert outputs.logits.shape == (1, 3)


@pytest.mark.parametrize(
  ('image', 'message'),
  [
    (np.zeros((2, 9, 9, 1), np.uint8), r'\[B, 8, 8, 1\].*got \[2, 9, 9, 1\]'),
    (np.full((2, *SHAPE), 255.0), 'must be from 0 to 1, got 255'),
  ],
)
def test_images_that_a_network_cannot_take(result, image, message):
  with pytest.raises(ValueError, match=message):
    result.student(image)


@pytest.mark.parametrize('suffix', ['.npz', '.safetensors'])
def test_a_saved_network_is_the_same_function(result, tmp_path, suffix):
  path = tmp_path / f'student{suffix}'
  result.save(path)
  network = jaxkd.load_network(path)
  np.testing.assert_allclose(
    network(images().image), result.student(images().image), atol=1e-5
  )
  assert network.top1 == result.student.top1


def test_evaluation_gives_the_metrics_of_the_run(result, tmp_path):
  want = result.student.metrics
  result.save(tmp_path / 'student.npz')
  for network in (result, result.student, tmp_path / 'student.npz'):
    got = jaxkd.evaluate(network)
    assert got['top1'] == want['top1']
    assert got['nll'] == pytest.approx(want['nll'], rel=1e-5)
  other = jaxkd.evaluate(result.student, {**DATA, 'validation': 5})
  assert 0 <= other['top1'] <= 1


@pytest.mark.parametrize('student', [Linear(), Linear, LinearNNX])
def test_modules_are_students(student, tmp_path):
  test = images()
  result = jaxkd.train(
    student, (test.image, test.label), workdir=tmp_path / 'run', **QUICK
  )
  assert result.summary['data'] == 'arrays'
  assert result.student(test.image).shape == (60, 3)
  assert jaxkd.evaluate(result.student)['top1'] == result.student.top1


def test_a_module_with_its_variables_is_a_teacher(tmp_path):
  test = images()
  kernel = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
  pixels = (test.image / 255 - 0.5).reshape(60, -1)
  labels = (pixels @ kernel).argmax(-1)  # the teacher knows the rule
  variables = {'params': {'head': {'kernel': kernel, 'bias': np.zeros(3)}}}
  result = jaxkd.distill(
    (Linear(), variables),
    'mlp',
    (test.image, labels),
    workdir=tmp_path / 'run',
    **QUICK,
  )
  assert result.summary['networks']['teacher']['top1'] > 0.8
  with pytest.raises(KeyError, match="trained no network 'teacher'"):
    result.teacher  # noqa: B018
  again = jaxkd.distill(  # a network of an earlier result is one, too
    result.student,
    'mlp',
    (test.image, labels),
    workdir=tmp_path / 'next',
    **{'teacher.allow_guessing': True, **QUICK},
  )
  want = result.summary['networks']['student']['params_sha256']
  assert again.summary['networks']['teacher']['params_sha256'] == want


def test_callbacks_see_every_epoch_and_end_a_phase(tmp_path):
  seen = []

  def stop(epoch: jaxkd.Epoch) -> bool:
    seen.append((epoch.phase, epoch.epoch, epoch.epochs))
    assert 'test/student/top1' in epoch.metrics
    return epoch.epoch == 2

  result = jaxkd.train(
    'mlp', DATA, epochs=5, batch_size=8, workdir=tmp_path, callbacks=[stop]
  )
  assert seen == [('train', 1, 5), ('train', 2, 5)]
  (phase,) = result.summary['phases'].values()
  assert phase['epochs'] == 2 and phase['stopped_by_callback']
  assert len(result.metrics) == 2


@pytest.mark.parametrize(
  ('arguments', 'changes', 'error', 'message'),
  [
    (('resnt20', 'mlp', DATA), {}, KeyError, "Did you mean 'resnet20'"),
    (('mlp', 'mlp', 'digts'), {}, KeyError, "no data set 'digts'"),
    (
      ('mlp', 'mlp', DATA),
      {'epoch': 3},
      KeyError,
      "no setting 'epoch'.*epochs",
    ),
    (('mlp', 'mlp', DATA, 'kdd'), {}, KeyError, "no method 'kdd'"),
    (
      ('mlp', 'mlp', DATA, {'name': 'kd', 'temprature': 2.0}),
      {},
      ValueError,
      "no setting 'temprature'. Did you mean 'temperature'",
    ),
    (
      ('mlp', 'mlp', DATA, {'temperature': 2.0}),
      {},
      ValueError,
      'must be a name',
    ),
    (('mlp', 3, DATA), {}, ValueError, 'student must be an architecture'),
    (('mlp', 'mlp', 3), {}, ValueError, 'data must be the name .* got int'),
    (
      ('mlp', 'mlp', DATA),
      {'optimizer': {'rate': 0.1}},
      KeyError,
      "no setting 'rate'",
    ),
  ],
)
def test_mistakes_get_the_suggestions_of_the_command(
  arguments, changes, error, message
):
  with pytest.raises(error, match=message):
    experiment_of(*arguments, **changes)


def test_a_file_without_a_card_is_taken_by_its_name(tmp_path):
  path = tmp_path / 'resnet20-abc.npz'
  np.savez(
    path, allow_pickle=False, **{'conv1.weight': np.zeros((16, 3, 3, 3))}
  )
  section = settings.network('teacher', path, None)
  assert section == {'name': 'resnet20', 'checkpoint': str(path)}
  nameless = path.rename(tmp_path / 'weights.npz')
  with pytest.raises(ValueError, match='does not name its architecture'):
    settings.network('teacher', nameless, None)


class TestArrays:
  def test_a_fifth_of_each_class_is_held_out(self):
    label = np.repeat(np.arange(3), 20)
    image = np.arange(60, dtype=np.uint8)[:, None, None] * np.ones((8, 8), 'u1')
    dataset = data.arrays((image, label), class_names=['a', 'b', 'c'])
    assert dataset.image_shape == SHAPE and dataset.class_names == (
      'a',
      'b',
      'c',
    )
    np.testing.assert_array_equal(np.bincount(dataset.test.label), [4, 4, 4])
    shown = [*dataset.train.image[:, 0, 0, 0], *dataset.test.image[:, 0, 0, 0]]
    assert sorted(shown) == list(range(60))

  @pytest.mark.parametrize(
    ('train', 'message'),
    [
      ((np.zeros((4, 8, 8, 1)), np.zeros(4, int)), 'uint8 .* got float64'),
      ((np.zeros((4, 8), 'u1'), np.zeros(4, int)), r'got uint8 \[4, 8\]'),
      ((np.zeros((4, 8, 8), 'u1'), np.zeros(3, int)), r'integers \[4\]'),
      ((np.zeros((4, 8, 8), 'u1'), -np.ones(4, int)), 'at least 0'),
      ((np.zeros((4, 8, 8), 'u1'), np.arange(4)), 'has 1 training images'),
      (np.zeros(3), 'must be a pair'),
    ],
  )
  def test_other_arrays_are_refused(self, train, message):
    with pytest.raises(ValueError, match=message):
      data.arrays(train)

  def test_test_images_must_fit(self):
    train = np.zeros((4, 8, 8), 'u1'), np.arange(4) % 2
    with pytest.raises(
      ValueError, match='below the number of classes, 2, got 5'
    ):
      data.arrays(train, (train[0], np.full(4, 5)))
    with pytest.raises(ValueError, match=r'got \[9, 9, 1\]'):
      data.arrays(train, (np.zeros((4, 9, 9), 'u1'), train[1]))


class TestFunctional:
  """The pure pieces, in a loop of the reader's own."""

  def batches(self):
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(64, 3))
    for _ in range(30):
      image = rng.normal(size=(16, *SHAPE)).astype(np.float32)
      label = (image.reshape(16, -1) @ kernel).argmax(-1).astype(np.int32)
      yield dict(
        image=image,
        label=label,
        index=np.arange(16, dtype=np.int32),
        mask=np.ones(16, np.float32),
      )

  def test_it_trains_with_an_optimizer_of_the_readers_own(self):
    program, state, step = jaxkd.functional(
      'linear',
      method='plain',
      num_classes=3,
      image_shape=SHAPE,
      optimizer=optax.adam(1e-2),
    )
    step, losses = jax.jit(step), []
    for batch in self.batches():
      state, metrics = step(state, batch)
      losses.append(float(metrics['loss']))
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    assert program.graph.result == 'student'

  def test_two_seeds_are_vmapped(self):
    teacher = models.build('mlp', 3)
    initial = {
      'teacher': teacher.init(jax.random.key(1), jnp.zeros((1, *SHAPE)))
    }
    batch = next(self.batches())

    def after_a_step(seed, initial):
      pieces = jaxkd.functional(
        'linear',
        'mlp',
        num_classes=3,
        image_shape=SHAPE,
        initial=initial,
        optimizer=optax.sgd(0.1),
        seed=seed,
      )
      state, metrics = pieces.step(pieces.state, batch)
      return pieces.variables(state)['student']['params'], metrics['loss']

    params, loss = jax.jit(jax.vmap(after_a_step, in_axes=(0, None)))(
      jnp.arange(2), initial
    )
    kernels = params['head']['kernel']
    assert loss.shape == (2,) and not np.allclose(kernels[0], kernels[1])
    alone, _ = after_a_step(1, initial)
    np.testing.assert_allclose(kernels[1], alone['head']['kernel'], rtol=1e-5)

  def test_a_donated_state_leaves_the_callers_arrays(self):
    variables = models.build('linear', 3).init(
      jax.random.key(1), jnp.zeros((1, *SHAPE))
    )
    _, state, step = jaxkd.functional(
      'linear',
      'linear',
      num_classes=3,
      image_shape=SHAPE,
      initial={'teacher': variables},
      optimizer=optax.sgd(0.1),
    )
    jax.jit(step, donate_argnums=0)(state, next(self.batches()))
    assert np.all(np.isfinite(jax.tree.leaves(variables)[0]))

  def test_a_frozen_teacher_needs_variables(self):
    with pytest.raises(
      KeyError, match="'teacher' is frozen and has no variables"
    ):
      jaxkd.functional('mlp', 'mlp', num_classes=3, image_shape=SHAPE)


def test_importing_jaxkd_imports_nothing_else():
  code = (
    'import json, sys, jaxkd; before = sorted(sys.modules);'
    " jaxkd.__version__; print(json.dumps([x in before for x in ('jax', 'flax',"
    " 'numpy')]))"
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert json.loads(done.stdout) == [False, False, False]


def test_unknown_names_of_the_package():
  with pytest.raises(AttributeError, match="no attribute 'distil'"):
    jaxkd.distil  # noqa: B018
