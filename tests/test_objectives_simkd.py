"""SimKD: a student that ends in the teacher's classifier."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from objective_inputs import FAMILIES, KEY, draw, outputs_of
from test_objectives_ofd import NETWORKS

from jaxkd import checkpoints, models, objectives, tree
from jaxkd.commands.evaluate import evaluate
from jaxkd.commands.export import export
from jaxkd.graph import Frozen, Graph, Learner, ReusedHead, Transfer
from jaxkd.graph.program import bind, fold_in
from jaxkd.models.mlp import MLP
from jaxkd.models.resnet_cifar import ResNetCifar
from jaxkd.models.reusing import (
  classifier_maps,
  classifier_taps,
  reusing_settings,
)
from jaxkd.models.vit import ViT
from jaxkd.runs.artifacts import load_network
from jaxkd.runs.run import Run
from jaxkd.training import state as states
from jaxkd.training.step import make_step
from jaxkd.types import Outputs

SMALL = {
  **NETWORKS,
  'mlp': MLP(3, features=(6, 5)),
  'vit': ViT((0, 1), 2, 4, num_classes=3, patch=4),
}


QUICK = ('resnet_cifar', 'vit', 'mlp')  # a map, tokens, a vector


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name in SMALL
  ],
)
def test_the_classifier_reads_the_mean_of_the_compared_map(name):
  net, image = SMALL[name], jnp.asarray(draw(2, 8, 8, 1))

  @jax.jit
  def run(image):
    outputs, variables = net.init_with_output(KEY, image)
    _, features = classifier_maps(outputs, outputs)
    head = variables['params']['head']
    pooled = jnp.mean(features, axis=(1, 2))
    logits = pooled @ head['kernel'] + head['bias'].reshape(1, -1)
    return logits, outputs.logits

  np.testing.assert_allclose(*run(image), rtol=1e-4, atol=1e-6)


# What their classifiers read: a map, or a vector if what they pool is no stage.
READ = {
  'resnet50': ('stage4_pre', 2048),
  'wrn_16_2': ('stage3_pre', 128),
  'mobilenet_v2': ('pooled', 1280),
  'shufflenet_v2': ('pooled', 1024),
  'vit_tiny': ('pooled', 192),
}


@pytest.mark.parametrize(
  ('guide', 'learners'),
  [
    *((guide, [x]) for guide, x in zip(READ, FAMILIES[::2], strict=True)),
    *(pytest.param(x, FAMILIES, marks=pytest.mark.slow) for x in READ),
  ],
)
def test_any_network_can_have_the_classifier_of_any_other(guide, learners):
  for learner in learners:
    ends = outputs_of(learner), outputs_of(guide)
    assert classifier_taps(*ends)[1] == READ[guide][0]
    settings = reusing_settings(*ends)
    net = models.reusing(models.build(learner, 100), **settings)
    shapes = tree.shapes(net, (32, 32, 3))
    kernel = shapes['params']['head']['kernel']
    assert kernel.shape == (READ[guide][1], 100), learner


def test_a_projector_has_three_convolutions():
  ends = outputs_of('resnet8x4'), outputs_of('resnet32x4')
  net = models.reusing(
    models.build('resnet8x4', 100), **reusing_settings(*ends)
  )
  inner, outer = 128, 256
  convolutions = 256 * inner + 9 * inner * inner + inner * outer
  norms = 2 * (inner + inner + outer)
  projector = tree.shapes(net, (32, 32, 3))['params']['projector']
  assert models.count(projector) == convolutions + norms
  plain = models.build('resnet8x4', 100)
  macs = models.macs(net, (32, 32, 3)) - models.macs(plain, (32, 32, 3))
  assert macs == 64 * convolutions


# In a graph.

NETS = {
  'student': ResNetCifar(8, (2, 2, 3, 4), num_classes=3),
  'teacher': ResNetCifar(8, (3, 3, 4, 5), num_classes=3),
}
SHAPE = (8, 8, 1)


LAYERS = {name: MLP(3, features=(6, 5)) for name in NETS}  # quick to compile


class Odd(nn.Module):
  """A network whose classifier has a name of its own."""

  @nn.compact
  def __call__(self, image, train=False):
    del train
    x = nn.relu(nn.Dense(6)(image.reshape(len(image), -1)))
    return Outputs(nn.Dense(3, name='last')(x), {'stage1': x, 'pooled': x})


def program_of(networks, *transfers, nets=NETS):
  graph = Graph(networks, transfers)
  return bind(graph, lambda like, *_: nets[like], SHAPE)


def simkd(weight=1.0):
  return Transfer('teacher', 'student', objectives.simkd(), weight)


def labels(name, weight=1.0):
  return Transfer('labels', name, objectives.cross_entropy(), weight)


def batch():
  return {
    'image': jnp.asarray(draw(4, *SHAPE)),
    'label': jnp.arange(4) % 3,
    'index': jnp.arange(4),
    'mask': jnp.ones(4),
  }


HEADED = Learner(head=ReusedHead('teacher'))


def test_the_body_is_initialised_as_without_a_reused_classifier():
  program = program_of({'teacher': Frozen(), 'student': HEADED}, simkd())
  key = jax.random.key(3, impl='rbg')
  start = jax.jit(lambda: program.initial_variables('student', key, {}))()
  image = jnp.zeros((1, *SHAPE))
  plain = jax.jit(NETS['student'].init)(fold_in(key, 'init student'), image)
  own = {k: v for k, v in plain['params'].items() if k != 'head'}
  assert set(start['params']) == {*own, 'projector'}
  for name, want in own.items():
    jax.tree.map(np.testing.assert_array_equal, start['params'][name], want)


def test_no_gradient_flows_through_a_reused_classifier():
  """Two learners: the labels pull the student, and not the teacher's head."""
  program = program_of(
    {'teacher': Learner(), 'student': HEADED},
    labels('teacher', 0.0),
    labels('student'),
    simkd(),
    nets=LAYERS,
  )
  optimizer = optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1))
  init = functools.partial(states.init, program, optimizer, examples=4)
  state = jax.jit(init)(KEY, {})
  assert 'head' not in state.params['student']
  step = jax.jit(
    make_step(program, optimizer, seed=0, steps_per_epoch=3, epochs=1)
  )
  after, metrics = step(state, batch())
  assert metrics['loss/labels->student:cross_entropy'] > 0
  before, now = (x.params['teacher']['head'] for x in (state, after))
  # What is left is the decay of the teacher itself.
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-5),
    jax.tree.map(lambda x: 0.99 * x, before),
    now,
  )
  both = states.variables_of(program, after)
  jax.tree.map(
    np.testing.assert_array_equal, both['student']['params']['head'], now
  )


def test_the_objective_owns_no_projector_if_the_student_has_one():
  program = program_of({'teacher': Frozen(), 'student': HEADED}, simkd())
  params, memory = program.init_objectives(KEY, 4)
  assert params == memory == {}
  assert program.modules['student'].size == (2, 2)
  plain = program_of({'teacher': Frozen(), 'student': Learner()}, simkd())
  (params,) = plain.init_objectives(KEY, 4)[0].values()
  assert params['conv_restore']['kernel'].shape == (1, 1, 2, 5)


def test_impossible_classifiers_are_refused():
  with pytest.raises(KeyError, match="no network 'techer'.*'teacher'"):
    program_of(
      {'teacher': Frozen(), 'student': Learner(head=ReusedHead('techer'))},
      simkd(),
    )
  with pytest.raises(
    ValueError, match="'student', which has that of 'teacher'"
  ):
    program_of(
      {
        'teacher': Frozen(),
        'student': HEADED,
        'other': Learner(head=ReusedHead('student')),
      },
      simkd(),
      labels('other'),
    )
  odd = {**NETS, 'teacher': Odd()}
  graph = Graph({'teacher': Frozen(), 'student': HEADED}, (simkd(),))
  with pytest.raises(ValueError, match=r"'head'.* \[6, K\],.* got \[0\]"):
    bind(graph, lambda like, *_: odd[like], SHAPE)


@pytest.mark.parametrize('factor', [0, 1.5])
def test_a_factor_is_a_whole_number(factor):
  message = f'factor must be a whole number of at least 1, got {factor}'
  with pytest.raises(ValueError, match=message):
    objectives.simkd(factor)
  head = Learner(head=ReusedHead('teacher', factor))
  with pytest.raises(ValueError, match=message):
    program_of({'teacher': Frozen(), 'student': head}, simkd())


def test_a_network_whose_classifier_has_another_name_keeps_it():
  odd = models.adapt(Odd(), num_classes=3)
  net = models.reusing(odd, stage='stage1', features=3, size=(1, 1))
  with pytest.raises(ValueError, match="Adapted has no layer 'head'"):
    jax.eval_shape(net.init, KEY, jnp.zeros((1, *SHAPE)))


# Runs.


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('simkd')


def experiment(folder, **changes):
  settings = dict(
    cache=str(folder / 'cache'), epochs=1, method=dict(name='simkd')
  )
  return tiny.experiment(**{**settings, **changes})


def test_the_whole_student_is_tested_saved_and_exported(folder):
  made = experiment(folder, optimizer__ema=0.5, optimizer__weight_decay=0.1)
  assert 'learns before the head of teacher' in made.describe()
  summary = Run(made, folder / 'run').finish()
  student = summary['networks']['student']
  assert student['reused'] == {
    'stage': 'stage2',
    'features': 64,
    'size': [1, 1],
    'factor': 2,
  }
  (teacher, _), (own, _), (average, _) = (
    load_network(folder / 'run', name)
    for name in ('teacher', 'student', 'student_ema')
  )
  for variables in (own, average):
    jax.tree.map(
      np.testing.assert_array_equal,
      variables['params']['head'],
      teacher['params']['head'],
    )
  assert models.count(own['params']) == student['params']
  for place in (folder / 'run', folder / 'student.npz'):
    if not place.exists():
      exported = export(folder / 'run', place)
      assert exported.difference < 1e-6
      assert checkpoints.load_card(place).reused == student['reused']
    assert evaluate(place).results['top1'] == student['top1']
  with pytest.raises(ValueError, match='has no counterpart in PyTorch'):
    export(folder / 'run', folder / 'student.safetensors')


def test_the_student_has_its_teachers_read_out(folder):
  made = experiment(folder, teacher__loss='square_logits')
  *_, phase = made.phases
  modules = phase.program.modules
  assert {models.read_out_of(x) for x in modules.values()} == {'clip'}
  assert models.reuses(modules['student'])['features'] == 64
