"""Gap preserving distillation: what many steps do, sizes, and a small run."""

import functools
import warnings

import jax
import jax.numpy as jnp
import model_counts
import numpy as np
import optax
import pytest
import reparam_nets as nets
from gpd_programs import (
  KEY,
  batch_of,
  initial_of,
  program_of,
  run,
)
from reparam_nets import SHAPE, difference

from jaxkd import data, methods, models, reparam, tree
from jaxkd.graph.program import bind
from jaxkd.training import state as states
from jaxkd.training.step import make_step


def blocks(params, ratio):
  """The blocks of a kernel that reads and makes copies, by replicas."""
  kernel = params['middle']['kernel']
  i, o = (n // ratio for n in kernel.shape[-2:])
  return {
    (a, b): kernel[..., a * i : (a + 1) * i, b * o : (b + 1) * o]
    for a, b in np.ndindex(ratio, ratio)
  }


# Copies


def test_without_its_student_a_dynamic_teacher_keeps_its_copies():
  """And without sharing, the student learns parameters of its own."""
  with jax.enable_x64(True):
    with pytest.warns(UserWarning, match='sharing=False and noise=0'):
      program = program_of(jnp.float64, static=None, sharing=False)
    first, last, _ = run(program, 10, dtype=np.float64)
  copies = blocks(last.params['dynamic_teacher'], 2)
  for block in copies.values():
    assert difference(block, copies[0, 0]) <= 1e-10
  start = blocks(first.params['dynamic_teacher'], 2)
  assert difference(copies[0, 0], start[0, 0]) > 1e-3
  assert {*last.params} == {'dynamic_teacher', 'student'}
  moved = last.params['student']['middle']['kernel']
  assert difference(moved, first.params['student']['middle']['kernel']) > 1e-3
  # They are not the same function any more.
  assert difference(moved, 2 * copies[0, 0]) > 1e-3


@functools.cache
def three_copies():
  """The blocks after ten steps at r = 3, without and with noise."""
  with jax.enable_x64(True), warnings.catch_warnings():
    warnings.simplefilter('ignore', UserWarning)  # of noise=0
    plain, noisy = (
      program_of(jnp.float64, static=None, ratio=3, noise=noise)
      for noise in (0.0, 1e-6)
    )
    optimizer = optax.sgd(0.1)
    step = make_step(plain, optimizer, seed=0, steps_per_epoch=10, epochs=1)

    def train(theta, initial, batch):
      state = states.init(plain, optimizer, KEY(0), initial, examples=8)
      state = state._replace(params={'dynamic_teacher': theta})
      return jax.lax.scan(lambda s, _: step(s, batch), state, length=10)[0]

    initial, batch = initial_of(plain, np.float64), batch_of(dtype=np.float64)
    train, copies = nets.compiled(train), []
    for program in (plain, noisy):
      start = functools.partial(
        program.initial_variables, 'dynamic_teacher', KEY(0)
      )
      theta = nets.compiled(start)(initial)['params']
      last = train(theta, initial, batch).params['dynamic_teacher']
      copies.append(blocks(jax.tree.map(np.asarray, last), 3))
  return copies


@pytest.mark.parametrize('noise', [False, True])
def test_only_noise_makes_unshared_copies_differ(noise):
  copies = three_copies()[noise]
  assert difference(copies[1, 1], copies[0, 0]) > 1e-3
  for a, b in (((1, 1), (2, 2)), ((1, 2), (2, 1)), ((0, 1), (0, 2))):
    gap = difference(copies[a], copies[b])
    assert gap > 1e-7 if noise else gap <= 1e-10


# A hundred steps, with a static teacher and a moving average


@pytest.fixture(scope='module')
def trained():
  """The program, states before and after, and metrics."""
  program = program_of(scaling='official')
  return program, *run(program, 100, rate=0.05, ema=0.9)


def test_sharing_makes_two_copies_differ(trained):
  copies = blocks(trained[2].params['dynamic_teacher'], 2)
  gap = np.linalg.norm(copies[0, 0] - copies[1, 1])
  assert gap / np.linalg.norm(copies[0, 0]) > 1e-2


def test_the_static_teacher_stays_as_it_is(trained):
  _, first, last, _ = trained
  for part in ('params', 'stats'):
    old, new = (getattr(state, part)['teacher'] for state in (first, last))
    jax.tree.map(np.testing.assert_array_equal, old, new)
  assert 'teacher' not in last.ema['params']
  assert 'teacher' not in tree.leaves(last.opt)


def cut(stats, own):
  """The first channels of the wide network's statistics."""
  return tree.from_leaves(
    {
      path: tree.leaves(stats)[path][: array.size]
      for path, array in tree.leaves(own).items()
    }
  )


@pytest.mark.parametrize('which', [states.variables_of, states.averages_of])
def test_the_student_has_statistics_of_its_own(trained, which):
  program, _, last, _ = trained
  variables = which(program, last)
  student, teacher = (variables[n] for n in ('student', 'dynamic_teacher'))
  own = student['batch_stats']
  wrong = {**student, 'batch_stats': cut(teacher['batch_stats'], own)}
  gaps = jax.tree.map(difference, wrong['batch_stats'], own)
  # But for the first BatchNorm, which sees the same in both.
  assert max(tree.leaves(gaps).values()) > 1e-2
  run = nets.compiled(nets.forward(program.modules['student']))
  image = batch_of()['image']
  assert difference(run(wrong, image), run(student, image)) > 1e-3


def test_the_average_of_the_student_is_cut_out_of_the_average(trained):
  program, _, last, _ = trained
  assert {*last.ema['params']} == {'dynamic_teacher'}
  plan = reparam.make_plan(
    *(program.modules[n] for n in ('student', 'dynamic_teacher')),
    SHAPE,
    scaling='official',
  )
  want = reparam.extract(last.ema['params']['dynamic_teacher'], plan)
  averages = states.averages_of(program, last)
  jax.tree.map(
    np.testing.assert_array_equal, averages['student']['params'], want
  )
  jax.tree.map(
    np.testing.assert_array_equal,
    averages['student']['batch_stats'],
    last.ema['stats']['student'],
  )
  now = states.variables_of(program, last)['student']
  for part, old in now.items():
    gaps = jax.tree.map(difference, averages['student'][part], old)
    assert max(tree.leaves(gaps).values()) > 1e-6, part


def test_each_average_follows_its_own_network():
  """After one step: two elevenths of what was, the rest of what is."""
  first, last, _ = run(program_of(static=None), 1, ema=0.9)
  for name in ('student', 'dynamic_teacher'):
    jax.tree.map(
      lambda average, old, new: np.testing.assert_allclose(
        average, (2 * old + 9 * new) / 11, rtol=1e-4, atol=1e-6
      ),
      last.ema['stats'][name],
      first.stats[name],
      last.stats[name],
    )


# Published sizes


@functools.cache
def count(name, width=1, branches=1):
  classes, image = model_counts.PROTOCOLS[name]
  net = models.build(name, classes, width=width, branches=branches)
  shape = jax.ShapeDtypeStruct((1, *image), jnp.float32)
  variables = jax.eval_shape(net.init, jax.random.key(0), shape)
  return tree.count(variables['params'])


@pytest.mark.parametrize(
  ('name', 'branches', 'millions'),
  [  # of the student, of the dynamic teacher, and of it with merged branches
    ('imagenet_resnet18', 6, (42.33, 167.79, 45.7)),
    ('imagenet_mobilenet_v1', 6, (4.66, 15.61, 14.7)),
    ('rvt_tiny', 1, (8.65, 33.41, 33.41)),
  ],
)
def test_networks_are_as_large_as_in_the_published_code(
  name, branches, millions
):
  counts = (
    count(name, 1, branches),
    count(name, 2, branches),
    count(name, 2, 1),
  )
  for got, want in zip(counts, millions, strict=True):
    digits = 2 if want * 100 % 10 else 1
    assert round(got / 1e6, digits) == want, counts


# A run


class Digits:
  """The embedded digits, whole, as one array."""

  def __init__(self):
    dataset = data.load('digits')
    split = {'train': dataset.train, 'test': dataset.test}
    self.shape, self.classes = dataset.image_shape, dataset.num_classes
    self.image, self.label = (
      {k: np.asarray(getattr(v, part)) for k, v in split.items()}
      for part in ('image', 'label')
    )
    scale = self.image['train'].std()
    self.image = {k: np.float32(v / scale) for k, v in self.image.items()}


@functools.cache
def digits():
  return Digits()


def train_on_digits(method, epochs, batch, examples=None, seed=0):
  """Returns the program, its last state, and each step's metrics."""
  dataset = digits()
  (phase,) = method()

  def build(like, width, branches):
    return nets.Branched(2 * width, classes=dataset.classes)

  program = bind(phase.graph, build, dataset.shape)
  examples = examples or len(dataset.label['train'])
  size = examples // batch * batch
  rng = np.random.default_rng(seed)
  order = np.stack(
    [rng.permutation(examples)[:size] for _ in range(epochs)]
  ).reshape(-1, batch)
  rate = optax.linear_schedule(0.1, 0.0, len(order))  # so that it settles
  optimizer = optax.chain(optax.clip_by_global_norm(5.0), optax.sgd(rate, 0.9))
  step = make_step(program, optimizer, seed=seed, steps_per_epoch=22, epochs=1)

  def train(image, label, order, key):
    def one(state, index):
      examples_of_step = {
        'image': image[index],
        'label': label[index],
        'index': index,
        'mask': jnp.ones(batch),
      }
      return step(state, examples_of_step)

    state = states.init(program, optimizer, key, {}, examples=size)
    return jax.lax.scan(one, state, order)

  state, metrics = jax.jit(train)(
    dataset.image['train'], dataset.label['train'], order, KEY(seed)
  )
  return program, state, jax.tree.map(np.asarray, metrics)


def losses_of(metrics):
  """Returns the losses against the labels, step by step."""
  return [x for name, x in metrics.items() if name.startswith('loss/labels->')]


def accuracies(program, state):
  """Returns the networks' accuracies on the test set."""
  dataset, accuracy = digits(), {}
  for name, variables in states.variables_of(program, state).items():
    logits = nets.compiled(nets.forward(program.modules[name]))(
      variables, dataset.image['test']
    )
    accuracy[name] = np.mean(np.argmax(logits, -1) == dataset.label['test'])
  return accuracy


def test_the_losses_fall_in_the_first_steps():
  method = functools.partial(methods.gpd, static=None)
  *_, metrics = train_on_digits(method, epochs=1, batch=16, examples=480)
  student, teacher = losses_of(metrics)
  for losses in (student, teacher):
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5]), losses


@pytest.mark.slow
def test_a_student_with_a_dynamic_teacher_learns_digits():
  """Quick and coarse; who is ahead of whom is for longer runs to tell, since
  the student takes longer steps at the start."""
  method = functools.partial(methods.gpd, static=None)
  *trained, metrics = train_on_digits(method, epochs=3, batch=64)
  accuracy = accuracies(*trained)
  *trained, _ = train_on_digits(methods.plain, epochs=3, batch=64)
  plain = accuracies(*trained)
  assert accuracy['student'] >= plain['student'] - 0.03  # 11 of 360 images
  assert min(accuracy.values()) > 0.75
  for losses in losses_of(metrics):  # half of what guessing costs
    assert np.mean(losses[-len(losses) // 3 :]) < np.log(10) / 2  # last epoch
