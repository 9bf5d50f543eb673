"""Objectives of features between networks: parameters, and FitNet's updates."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from objective_inputs import KEY, NOW, draw, outputs_of, pairs, parameters

from jaxkd import objectives, tree
from jaxkd.graph import Graph, Learner, Transfer
from jaxkd.graph.program import bind
from jaxkd.models.resnet import BASIC, ResNet
from jaxkd.models.vit import ViT
from jaxkd.objectives.vkd import Orthogonal
from jaxkd.training import state as states
from jaxkd.training.step import make_step
from jaxkd.types import Outputs

# Measured in mdistiller (https://github.com/megvii-research/mdistiller), whose
# counts have the scale and bias of BatchNorm in them.
FITNET = {
  ('resnet32x4', 'resnet8x4'): 16_768,
  ('resnet56', 'resnet20'): 1_120,
  ('resnet56', 'resnet8'): 1_120,
  ('resnet110', 'resnet32'): 1_120,
  ('wrn_40_2', 'wrn_16_2'): 4_288,
  ('wrn_40_2', 'wrn_40_1'): 2_240,
  ('vgg13', 'vgg8'): 66_304,
  ('vgg13', 'vgg11'): 66_304,
  ('resnet32x4', 'shufflenet_v1'): 983_424,
  ('resnet32x4', 'shufflenet_v2'): 475_520,
  ('wrn_40_2', 'shufflenet_v1'): 491_712,
  ('vgg13', 'mobilenet_v2'): 4_864,
  ('resnet50', 'mobilenet_v2'): 132_608,
  ('resnet50', 'vgg8'): 2_098_688,
}


@pytest.mark.parametrize(('guide', 'learner'), pairs(FITNET))
def test_fitnet_adds_the_published_number_of_parameters(guide, learner):
  fitnet = objectives.fitnet()
  assert parameters(fitnet, learner, guide) == FITNET[guide, learner]


def test_each_network_has_a_tap_of_its_own():
  named = objectives.fitnet(stage='last', guide_stage='stage2')
  doubled = 4 * 4 * 64 * 128 + 128 + 2 * 128  # from 8 x 8 x 64 to 16 x 16 x 128
  assert parameters(named, 'resnet20', 'resnet32x4') == doubled


# Likewise, without the variances of VID.
VID = {
  ('resnet32x4', 'resnet8x4'): 258_048,
  ('resnet56', 'resnet20'): 16_128,
  ('resnet110', 'resnet32'): 16_128,
  ('wrn_40_2', 'wrn_16_2'): 64_512,
  ('wrn_40_2', 'wrn_40_1'): 53_760,
  ('vgg13', 'vgg8'): 1_818_624,
  ('vgg13', 'vgg11'): 1_818_624,
  ('resnet32x4', 'shufflenet_v1'): 494_592,
  ('resnet32x4', 'shufflenet_v2'): 327_936,
  ('wrn_40_2', 'shufflenet_v1'): 204_288,
  ('vgg13', 'mobilenet_v2'): 1_324_544,
  ('resnet50', 'mobilenet_v2'): 11_529_216,
  ('resnet50', 'vgg8'): 12_877_824,
}


@pytest.mark.parametrize(('guide', 'learner'), pairs(VID))
def test_vid_adds_the_published_number_of_parameters(guide, learner):
  ends = dict(guide=outputs_of(guide), learner=outputs_of(learner))
  start = functools.partial(objectives.vid().init, KEY, examples=1)
  shapes, _ = jax.eval_shape(lambda ends: start(**ends), ends)
  kernels = {n: x for n, x in tree.leaves(shapes).items() if 'log_' not in n}
  assert tree.count(kernels) == VID[guide, learner]


# The two embeddings are those of CRD.
CC = {
  ('resnet32x4', 'resnet8x4'): 65_792,
  ('resnet56', 'resnet20'): 16_640,
  ('wrn_40_2', 'wrn_40_1'): 24_832,
  ('resnet32x4', 'shufflenet_v1'): 155_904,
  ('resnet32x4', 'shufflenet_v2'): 164_096,
  ('resnet50', 'mobilenet_v2'): 426_240,
}


@pytest.mark.parametrize(('guide', 'learner'), pairs(CC))
def test_cc_adds_the_published_number_of_parameters(guide, learner):
  assert parameters(objectives.cc(), learner, guide) == CC[guide, learner]


@pytest.mark.parametrize(
  'name', ['ab', 'at', 'kdsvd', 'fsp', 'nst', 'pkt', 'rkd', 'sp']
)
def test_equal_networks_need_no_layers(name):
  assert parameters(objectives.make(name), 'resnet20', 'resnet56') == 0


# Training.

SMALL = {
  'cnn': ResNet(3, BASIC, (1, 1), (4, 4, 6), num_classes=3),
  'vit': ViT((0, 1), 2, 4, num_classes=3, patch=4),
}
FITS = 'teacher->student:fitnet'


def batch_of(size=8):
  return {
    'image': jnp.asarray(draw(size, 8, 8, 1)),
    'label': jnp.arange(size) % 3,
    'index': jnp.arange(size),
    'mask': jnp.ones(size),
  }


def program_of(teacher, student, transfers):
  networks = {'teacher': Learner(), 'student': Learner()}
  nets = {'teacher': SMALL[teacher], 'student': SMALL[student]}
  graph = Graph(networks, transfers)
  return bind(graph, lambda like, *_: nets[like], (8, 8, 1))


def test_fitnet_updates_the_learner_and_its_regressor_alone():
  hint = Transfer('teacher', 'student', objectives.fitnet())
  labels = Transfer('labels', 'teacher', objectives.cross_entropy(), 0.0)
  program = program_of('vit', 'cnn', (hint, labels))
  optimizer = optax.sgd(0.05)
  init = functools.partial(states.init, program, optimizer, examples=8)
  step = jax.jit(
    make_step(program, optimizer, seed=0, steps_per_epoch=3, epochs=1)
  )
  first = jax.jit(init)(KEY, {})
  state, metrics = step(first, batch_of())
  assert metrics[f'loss/{FITS}'] > 0
  before, after = (
    tree.leaves({**x.params, 'objectives': x.objectives})
    for x in (jax.tree.map(np.asarray, y) for y in (first, state))
  )
  moved = {name for name in before if np.any(before[name] != after[name])}
  owners = {name.split('/')[0] for name in moved}
  assert owners == {'student', 'objectives'}
  # BatchNorm takes away any bias before it, which has no gradient then.
  regressor = {'conv/kernel', 'bn/scale', 'bn/bias'}
  assert {f'objectives/{FITS}/{name}' for name in regressor} <= moved


def test_fitnet_is_described():
  objective = dict(name='fitnet', stage='stage1', guide_stage='last')
  method = dict(
    name='distil', objective=objective, guide_weight=100.0, warmup_epochs=2
  )
  experiment = tiny.experiment(method=method)
  (row,) = (x for x in experiment.describe().splitlines() if 'fitnet' in x)
  weight, described = '100 after 2 epochs', str(objectives.make(objective))
  assert described == 'fitnet(stage=stage1, guide_stage=last)'
  assert row.endswith(f'{weight}  {described}')


def test_the_method_kd_is_distillation_by_the_objective_kd():
  method = dict(name='kd', temperature=2.0)
  *_, kd = tiny.experiment(method=method).phases
  transfers = [
    (t.guide, t.weight, str(t.objective)) for t in kd.graph.transfers
  ]
  assert transfers == [
    ('labels', 0.1, 'cross_entropy()'),
    ('teacher', 0.9, 'kd(temperature=2.0)'),
  ]


@pytest.mark.parametrize(('width', 'features'), [(3, 5), (5, 3), (4, 4)])
def test_the_projection_of_vkd_is_orthogonal(width, features):
  module = Orthogonal(features)
  x = jax.random.normal(KEY, (7, width))
  params = module.init(jax.random.key(1), x)
  # After a step of any size, too.
  params = jax.tree.map(lambda a: 3 * a + draw(*a.shape), params)
  kernel = np.asarray(module.apply(params, jnp.eye(width)), np.float64)
  gram = kernel @ kernel.T if width <= features else kernel.T @ kernel
  np.testing.assert_allclose(gram, np.eye(min(width, features)), atol=1e-6)
  slope = jax.grad(lambda p: jnp.sum(module.apply(p, x) ** 3))(params)
  assert np.all(np.isfinite(slope['params']['matrix']))
  assert np.any(slope['params']['matrix'] != 0)


def test_vkd_is_the_smooth_difference_of_projected_and_normalised_features():
  learner, guide = (
    Outputs(jnp.zeros((6, 2)), {'pooled': draw(6, width, seed=width)})
    for width in (3, 5)
  )
  objective = objectives.vkd()
  params, memory = objective.init(KEY, learner=learner, guide=guide, examples=9)
  got, _ = objective.loss(params, memory, learner=learner, guide=guide, **NOW)
  source, target = (np.float64(x.taps['pooled']) for x in (learner, guide))
  q, r = np.linalg.qr(np.float64(params['matrix']))
  q = q * np.sign(np.diagonal(r))
  target = target - target.mean(-1, keepdims=True)
  target /= np.sqrt(target.var(-1, keepdims=True) + 1e-5)
  gap = np.abs(source @ q.T - target)
  want = np.where(gap < 1, gap**2 / 2, gap - 0.5).mean(-1)
  np.testing.assert_allclose(got, want, rtol=2e-5)
