"""Objectives of features: taps as maps, sizes that meet, regressors, FitNet."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from jaxkd import losses, models, objectives, tree
from jaxkd.graph import Graph, Learner, Transfer
from jaxkd.graph.program import bind
from jaxkd.losses import sizes
from jaxkd.models import norms
from jaxkd.models.resnet import BASIC, ResNet
from jaxkd.models.vit import ViT
from jaxkd.objectives import regressors, taps
from jaxkd.train import mesh as meshes
from jaxkd.train import state as states
from jaxkd.train.step import make_step
from jaxkd.types import Outputs

KEY = jax.random.key(0, impl='rbg')  # quick to compile
# Arguments of a loss that uses none of them.
NOW = dict(batch={}, key=KEY, epoch=0.0, epochs=1)


def draw(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def outputs_with(**shapes) -> Outputs:
  """Returns outputs with taps of such shapes, each filled with its index."""
  maps = {
    name: jnp.full(shape, float(i))
    for i, (name, shape) in enumerate(shapes.items())
  }
  return Outputs(jnp.zeros((2, 3)), maps)


def image_of(**sides) -> Outputs:
  """Outputs with square maps [1, side, side, 4] as taps."""
  return outputs_with(
    **{name: (1, side, side, 4) for name, side in sides.items()}
  )


# Sizes of maps.


def windowed(x, size):
  """Adaptive average pooling, window by window."""
  (height, width), (h, w) = x.shape[1:3], size
  out = np.empty((len(x), h, w, x.shape[-1]))
  for i in range(h):
    for j in range(w):
      rows = slice(math.floor(i * height / h), math.ceil((i + 1) * height / h))
      columns = slice(math.floor(j * width / w), math.ceil((j + 1) * width / w))
      out[:, i, j] = x[:, rows, columns].mean(axis=(1, 2))
  return out


each_resizing = pytest.mark.parametrize(
  ('old', 'new'),
  [  # divisors, overlapping windows, enlarged, as it is, and of each something
    ((8, 6), (4, 2)),
    ((7, 5), (3, 4)),
    ((3, 4), (5, 8)),
    ((5, 1), (5, 1)),
    ((9, 2), (1, 7)),
  ],
)


@each_resizing
def test_pooling_averages_windows(old, new):
  x = draw(1, *old, 2)
  got = jax.jit(sizes.adaptive_average_pool, static_argnums=1)(x, new)
  want = windowed(x.astype(np.float64), new)
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@each_resizing
def test_nearest_takes_whole_pixels(old, new):
  (height, width), (h, w) = old, new
  x = draw(1, height, width, 2)
  rows = [math.floor(i * height / h) for i in range(h)]
  columns = [math.floor(j * width / w) for j in range(w)]
  got = jax.jit(sizes.nearest, static_argnums=1)(x, new)
  np.testing.assert_array_equal(got, x[:, rows][:, :, columns])


def test_maps_meet_in_the_smaller_size_of_each_axis():
  x, y = draw(2, 8, 3, 4), draw(2, 4, 7, 5, seed=1)
  first, second = sizes.match(jnp.asarray(x), jnp.asarray(y))
  np.testing.assert_allclose(first, windowed(x, (4, 3)), rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(second, windowed(y, (4, 3)), rtol=1e-5, atol=1e-6)
  same, _ = sizes.match(jnp.asarray(x), jnp.asarray(x))
  np.testing.assert_array_equal(same, x)


# Taps.


def sides(pairs):
  """The height of each map of each pair."""
  return [(x.shape[1], y.shape[1]) for x, y in pairs]


THREE = image_of(stem=32, stage1=32, stage2=16, stage3=8)
FOUR = image_of(stem=31, stage1=30, stage2=15, stage3=7, stage4=3)
PLAIN = image_of(stage10=2, stage9=4, stage9_pre=5)  # counted, not sorted


def test_stages_are_paired_from_the_first_or_from_the_deepest():
  assert sides(taps.pairs(THREE, FOUR)) == [(32, 30), (16, 15), (8, 7)]
  deepest = taps.pairs(FOUR, THREE, from_last=True)
  assert sides(deepest) == [(15, 32), (7, 16), (3, 8)]
  assert sides(taps.pairs(PLAIN, THREE)) == [(4, 32), (2, 16)]


def test_taps_can_be_named():
  assert sides([taps.pair(THREE, FOUR, 'stage2')]) == [(16, 15)]
  assert sides([taps.pair(THREE, FOUR, 'stem', 'stage4')]) == [(32, 3)]
  assert sides([taps.pair(THREE, PLAIN, 'last')]) == [(8, 2)]
  named = taps.pairs(THREE, FOUR, ('stem', 'last'), ('stage1', 'stage3'))
  assert sides(named) == [(32, 30), (8, 7)]
  assert sides(taps.pairs(THREE, FOUR, ('stem', 'last'))) == [(32, 31), (8, 3)]


def test_a_stage_without_an_activation_is_its_own_pre_activation():
  before = taps.pairs(PLAIN, THREE, suffix='_pre')
  assert sides(before) == [(5, 32), (2, 16)]
  assert sides([taps.pair(THREE, PLAIN, 'last_pre')]) == [(8, 2)]


def test_a_missing_tap_is_explained():
  with pytest.raises(KeyError) as error:
    taps.pair(FOUR, THREE, 'stage4')
  message = str(error.value)
  assert "the guide has no tap 'stage4'. Did you mean 'stage3'" in message
  assert "the learner's are stage1, stage2, stage3, stage4, stem" in message
  assert 'settings stage and guide_stage' in message
  with pytest.raises(KeyError, match="the learner has no tap 'stage_2_pre'"):
    taps.pair(FOUR, THREE, 'stage_2_pre', 'stage2')
  with pytest.raises(KeyError, match='the learner has no stages, only pooled'):
    taps.pairs(outputs_with(pooled=(1, 4)), THREE)


def test_a_single_name_is_one_tap():
  assert sides(taps.pairs(THREE, FOUR, 'stage2')) == [(16, 15)]
  assert sides(taps.pairs(THREE, FOUR, 'stem', 'stage4')) == [(32, 3)]


@pytest.mark.parametrize('stages', [3, (3, (1, 2)), {'stage1': 1.0}])
def test_taps_that_are_not_names_are_refused(stages):
  message = f'taps must be names, .* got {re.escape(repr(stages))}'
  for sides in ((stages, ()), ('stage1', stages)):
    with pytest.raises(ValueError, match=message):
      taps.pairs(THREE, FOUR, *sides)


def test_a_guide_without_features_is_refused():
  with pytest.raises(ValueError, match="the guide is 'labels': let a network"):
    taps.pair(THREE, None, 'stage1')


def test_different_numbers_of_taps_are_refused():
  with pytest.raises(
    ValueError, match="2 taps of the learner's, stage1, stage2"
  ):
    taps.pairs(THREE, FOUR, ('stage1', 'stage2'), ('stage1',))


def only(x) -> Outputs:
  return Outputs(jnp.zeros((1, 3)), {'stage1': jnp.asarray(x)})


def map_of(x, beside) -> np.ndarray:
  """Returns the map of a tap x of the learner, beside one of the guide."""
  return np.asarray(taps.pair(only(x), only(beside), 'stage1')[0])


def test_tokens_are_the_map_of_their_patches():
  patches = draw(2, 3, 3, 5)
  tokens = patches.reshape(2, 9, 5)
  after_class = np.concatenate([draw(2, 1, 5, seed=1), tokens], axis=1)
  for given_as in (patches, tokens, after_class):
    np.testing.assert_array_equal(map_of(given_as, tokens), patches)
  vector = draw(2, 5)
  np.testing.assert_array_equal(map_of(vector, tokens)[:, 0, 0], vector)
  one = draw(2, 1, 5)  # a single patch, or a class token alone
  np.testing.assert_array_equal(map_of(one, tokens)[:, 0], one)


@pytest.mark.parametrize('first', [0, 1])
def test_tokens_get_the_aspect_ratio_of_the_other_map(first):
  patches = draw(2, 2, 8, 5)  # sixteen of them, which could be a square
  class_token = draw(2, first, 5, seed=1)
  tokens = np.concatenate([class_token, patches.reshape(2, 16, 5)], axis=1)
  np.testing.assert_array_equal(map_of(tokens, draw(2, 4, 16, 1)), patches)


def test_tokens_without_a_grid_are_explained():
  with pytest.raises(ValueError, match='9 tokens, .* not a grid .* 4:16'):
    map_of(draw(2, 9, 5), draw(2, 4, 16, 1))
  with pytest.raises(ValueError, match='8 tokens, .* not a grid .* 1:1'):
    map_of(draw(2, 8, 5), draw(2, 8, 5))


def test_maps_are_float32():
  low = jnp.ones((2, 3, 3, 5), jnp.bfloat16)
  assert map_of(low, low).dtype == jnp.float32


# Regressors.


def convolved(x, kernel, stride, padding):
  """Convolution [B, H, W, C] by kernel [k, l, C, D], tap by tap."""
  k, l, _, d = kernel.shape
  x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
  h = (x.shape[1] - k) // stride + 1
  w = (x.shape[2] - l) // stride + 1
  out = np.zeros((len(x), h, w, d))
  for i in range(k):
    for j in range(l):
      part = x[:, i : i + stride * h : stride, j : j + stride * w : stride]
      out += part[:, :h, :w] @ kernel[i, j]
  return out


def transposed(x, kernel):
  """PyTorch's transposed 4 x 4 convolution, stride 2 and padding 1."""
  b, h, w, _ = x.shape
  out = np.zeros((b, 2 * h + 2, 2 * w + 2, kernel.shape[-1]))
  for i in range(4):
    for j in range(4):
      out[:, i : i + 2 * h : 2, j : j + 2 * w : 2] += x @ kernel[i, j]
  return out[:, 1:-1, 1:-1]


LAYERS = {  # source and target, kernel, and what is done with it
  'halved': ((8, 6), (4, 3), (3, 3), lambda x, k: convolved(x, k, 2, 1)),
  'doubled': (
    (3, 2),
    (6, 4),
    (4, 4),
    lambda x, k: transposed(x, k[::-1, ::-1]),
  ),
  'equal': ((4, 3), (4, 3), (1, 1), lambda x, k: convolved(x, k, 1, 0)),
  'shrunk': ((7, 5), (5, 4), (3, 2), lambda x, k: convolved(x, k, 1, 0)),
  'shrunk by four': (
    (8, 4),
    (2, 1),
    (7, 4),
    lambda x, k: convolved(x, k, 1, 0),
  ),
  # Where the published method ends: first averaged to the smaller size.
  'other ratio': (
    (2, 3),
    (5, 3),
    (1, 1),
    lambda x, k: convolved(x, k, 1, 0),
  ),
  'mixed ratio': (
    (6, 2),
    (3, 4),
    (1, 1),
    lambda x, k: convolved(windowed(x, (3, 2)), k, 1, 0),
  ),
}
each_layer = pytest.mark.parametrize('layer', LAYERS)


@functools.cache
def hinted(layer):
  """Returns inputs, loss and parameters of FitNet, as NumPy arrays."""
  source, target, *_ = LAYERS[layer]
  learner, guide = draw(4, *source, 3), np.abs(draw(4, *target, 5, seed=1))
  objective = objectives.fitnet('stage1')

  @jax.jit
  def run(learner, guide):
    ends = dict(guide=only(guide), learner=only(learner))
    params, memory = objective.init(KEY, examples=9, **ends)
    params['bn']['scale'] += jnp.arange(5.0)  # away from the neutral start
    params['bn']['bias'] += 0.1 * jnp.arange(5.0)
    value, memory = objective.loss(params, memory, **ends, **NOW)
    return value, params, memory

  value, params, memory = run(learner, guide)
  assert memory == {}
  return learner, guide, np.asarray(value), jax.tree.map(np.asarray, params)


@each_layer
def test_fitnet_is_its_formula(layer):
  learner, guide, value, params = hinted(layer)
  _, _, size, layer_of = LAYERS[layer]
  kernel, bias = params['conv']['kernel'], params['conv']['bias']
  assert kernel.shape == (*size, 3, 5)
  x = layer_of(learner.astype(np.float64), kernel.astype(np.float64)) + bias
  mean, var = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
  x = (x - mean) / np.sqrt(var + 1e-5)
  x = np.maximum(params['bn']['scale'] * x + params['bn']['bias'], 0)
  want = np.square(x - windowed(guide, x.shape[1:3]))
  np.testing.assert_allclose(value, want.mean(axis=(1, 2, 3)), rtol=2e-5)
  np.testing.assert_allclose(value.mean(), want.mean(), rtol=2e-5)


@pytest.mark.parametrize('layer', ['halved', 'doubled', 'equal', 'shrunk'])
def test_layers_start_as_in_pytorch(layer):
  """Uniform; the fan-in of a transposed convolution is k k C_out there."""
  source, target, size, _ = LAYERS[layer]
  module = regressors.ConvReg((*target, 64))
  init = jax.jit(functools.partial(regressors.init, module))
  params = init(KEY, jnp.zeros((1, *source, 32)))
  channels = 64 if layer == 'doubled' else 32
  bound = 1 / math.sqrt(math.prod(size) * channels)
  for name, sample in params['conv'].items():
    assert 0.85 * bound < np.max(sample) < bound, name
    assert -bound < np.min(sample) < -0.85 * bound, name
    deviation = bound / math.sqrt(3) / math.sqrt(sample.size)
    assert abs(np.mean(sample)) < 4 * deviation, name


def test_the_last_relu_can_be_left_out():
  x = jnp.asarray(draw(4, 3, 3, 2))
  params = regressors.init(regressors.ConvReg((3, 3, 5)), KEY, x)
  bent, straight = (
    regressors.apply(regressors.ConvReg((3, 3, 5), relu), params, x)
    for relu in (True, False)
  )
  assert np.min(straight) < 0
  np.testing.assert_array_equal(bent, np.maximum(straight, 0))


def test_on_four_devices_the_statistics_are_of_the_whole_batch():
  sharding = meshes.batch_split(meshes.make_mesh(jax.devices()[:4]), 8)
  module = regressors.ConvReg((4, 4, 3), relu=False)
  x = draw(8, 4, 4, 2) * np.arange(1, 9).reshape(8, 1, 1, 1)
  params = jax.jit(functools.partial(regressors.init, module))(KEY, x)
  run = jax.jit(functools.partial(regressors.apply, module))
  y = np.asarray(run(params, jax.device_put(x, sharding)))
  np.testing.assert_allclose(np.mean(y, axis=(0, 1, 2)), 0, atol=1e-5)
  np.testing.assert_allclose(np.var(y, axis=(0, 1, 2)), 1, rtol=1e-3)
  assert np.var(y[:2]) < 0.1  # a device's part by itself


# Networks.


@functools.cache
def outputs_of(name):
  """The shapes of a network's outputs on a CIFAR image."""
  net, image = models.build(name, 100), jnp.zeros((1, 32, 32, 3))
  return jax.eval_shape(
    lambda: norms.apply(net, net.init(KEY, image), image)[0]
  )


def parameters(objective, learner, guide):
  """The number of parameters that an objective adds to a pair, from shapes."""
  ends = dict(guide=outputs_of(guide), learner=outputs_of(learner))
  shapes, _ = jax.eval_shape(
    lambda ends: objective.init(KEY, examples=1, **ends), ends
  )
  return models.count(shapes)


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


@pytest.mark.parametrize(('guide', 'learner'), FITNET)
def test_fitnet_adds_the_published_number_of_parameters(guide, learner):
  fitnet = objectives.fitnet()
  assert parameters(fitnet, learner, guide) == FITNET[guide, learner]


def test_each_network_has_a_tap_of_its_own():
  named = objectives.fitnet(stage='last', guide_stage='stage2')
  doubled = 4 * 4 * 64 * 128 + 128 + 2 * 128  # from 8 x 8 x 64 to 16 x 16 x 128
  assert parameters(named, 'resnet20', 'resnet32x4') == doubled


# One network of each family, with a fourth stage, without a stem, of tokens, of
# vectors.
FAMILIES = (
  'resnet8',
  'wrn_16_2',
  'vgg8',
  'resnet50',
  'mobilenet_v2',
  'imagenet_mobilenet_v1',
  'shufflenet_v2',
  'vit_tiny',
  'rvt_tiny',
  'mlp128',
)


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
  history, values = [jax.jit(init)(KEY, {})], []
  for _ in range(10):
    state, metrics = step(history[-1], batch_of())
    history.append(state)
    values.append(metrics[f'loss/{FITS}'])
  assert values[-1] < 0.9 * values[0]
  before, after = (
    jax.tree.map(np.asarray, tree.leaves(state.params)) for state in history[:2]
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


def test_hint_is_the_mean_of_each_example():
  x, y = draw(4, 2, 3, 5), draw(4, 2, 3, 5, seed=1)
  want = np.square(np.float64(x) - np.float64(y)).mean(axis=(1, 2, 3))
  np.testing.assert_allclose(losses.hint(x, y), want, rtol=1e-5)
