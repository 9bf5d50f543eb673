"""The networks: their sizes and taps, and how training updates them."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import model_counts
import numpy as np
import pytest

from jaxkd import models
from jaxkd.models.convnext import ConvNeXt
from jaxkd.models.deit import DistilledViT
from jaxkd.models.efficientnet import EfficientNet
from jaxkd.models.mlp import MLP
from jaxkd.models.mobilenet import MobileNetV1, MobileNetV2
from jaxkd.models.resnet import BASIC, BOTTLENECK, ResNet
from jaxkd.models.resnet_cifar import ResNetCifar
from jaxkd.models.rvt import RVT
from jaxkd.models.shufflenet import ShuffleNetV1, ShuffleNetV2
from jaxkd.models.vgg import VGG, LargeVGG
from jaxkd.models.vit import ViT
from jaxkd.models.wide_resnet import WideResNet

SMALL = {  # one network of each family, a second to compile
  'resnet': ResNetCifar(8, (4, 8, 8, 12), num_classes=5),
  'wide_resnet': WideResNet(10, 2, num_classes=5, width=0.25),
  'vgg': VGG(8, num_classes=5, width=1 / 16),
  'large_vgg': LargeVGG(
    8, num_classes=5, width=1 / 16, hidden=512, dropout=0.0
  ),
  'bottleneck': ResNet(7, BOTTLENECK, (1, 1), (4, 4, 8), num_classes=5),
  'mobilenet_v1': MobileNetV1(4, (((8, 1, 1), (8, 2, 1)),), num_classes=5),
  'mobilenet_v2': MobileNetV2(
    4, (((1, 6, 1, 1), (2, 8, 2, 2)),), 12, num_classes=5
  ),
  'efficientnet': EfficientNet(
    4,
    (((1, 3, 6, 1, 1),), ((2, 5, 8, 2, 2),)),
    12,
    True,
    'silu',
    num_classes=5,
    dropout=0,
    drop_path=0,
  ),
  'convnext': ConvNeXt((1, 1), (4, 8), num_classes=5, stem=2, drop_path=0),
  'shufflenet_v1': ShuffleNetV1(3, 12, ((24, 2),), num_classes=5),
  'shufflenet_v2': ShuffleNetV2(4, ((12, 2),), 10, num_classes=5),
  'vit': ViT((1, 1), 2, 4, num_classes=5, patch=4),
  'deit_distilled': DistilledViT((1,), 2, 4, num_classes=5, patch=4),
  'rvt': RVT((1, 1), (2, 4), 4, num_classes=5, patch=4),
  'mlp': MLP(num_classes=5, features=(8, 12)),
  'linear': MLP(num_classes=5, features=()),
}
LAST = {  # the tap that is pooled
  'resnet': 'stage3',
  'wide_resnet': 'stage3',
  'vgg': 'stage4',
  'bottleneck': 'stage2',
  'mobilenet_v1': 'stage1',
  'shufflenet_v1': 'stage1',
  'mlp': 'stage2',
}
UNNORMALISED = {'convnext', 'deit_distilled', 'linear', 'mlp', 'vit'}
# One variant of each family, for properties that do not depend on the depth.
VARIANTS = [
  'resnet8',
  'wrn_16_2',
  'vgg8',
  'resnet18',
  'imagenet_resnet50',
  'mobilenet_v2',
  'imagenet_mobilenet_v1',
  'mlp',
]
every = pytest.mark.parametrize('name', sorted(models.CATALOG))
every_slowly = pytest.mark.parametrize(
  'name',
  [
    pytest.param(
      name,
      marks=() if name in model_counts.SHALLOW else pytest.mark.slow,
    )
    for name in sorted(models.CATALOG)
  ],
)
small = pytest.mark.parametrize('family', SMALL)
normalised = pytest.mark.parametrize(
  'family', sorted(set(SMALL) - UNNORMALISED)
)


def protocol(name):
  """Classes and image of the published sizes."""
  return model_counts.PROTOCOLS.get(name, model_counts.CIFAR)


@functools.cache
def shapes(name, image=None, **kwargs):
  """Outputs and variables of a catalogue network, without arithmetic."""
  num_classes, published = protocol(name)
  net = models.build(name, num_classes, **kwargs)
  x = jax.ShapeDtypeStruct((2, *(image or published)), jnp.float32)
  return jax.eval_shape(net.init_with_output, jax.random.key(0), x)


@functools.cache
def images(batch=4, side=8):
  return np.random.default_rng(0).normal(size=(batch, side, side, 1)) * 0.5


@functools.cache
def fresh(family):
  """Random variables of a small network: compiling `init` is slow."""
  rng = np.random.default_rng(1)

  def draw(path, leaf):
    if leaf.ndim > 1:
      fan_in = math.prod(leaf.shape[:-1])
      array = rng.normal(size=leaf.shape) * math.sqrt(2 / fan_in)
    else:
      array = np.ones(leaf.shape) * (path[-1].key in ('gamma', 'scale', 'var'))
      if path[-1].key == 'bias':  # else linear networks have mean zero
        array = rng.normal(size=leaf.shape) / 10
    return array.astype(np.float32)

  shape = jax.eval_shape(SMALL[family].init, jax.random.key(0), images())
  return jax.tree_util.tree_map_with_path(draw, shape)


@functools.cache
def evaluated_twice(family):
  """Results of one program in eval mode, called twice, and number of traces.

  Returns:
    outputs, the statistics afterwards, the gradient of a loss with respect to
    the parameters, and how often the program was traced.
  """
  net, traces = SMALL[family], []

  @jax.jit
  def run(variables, x):
    traces.append(x)

    def loss(params):
      outputs, moved = net.apply(
        {**variables, 'params': params}, x, mutable=['batch_stats']
      )
      return jnp.mean(jnp.square(outputs.logits - 1)), (outputs, moved)

    grad, aux = jax.grad(loss, has_aux=True)(variables['params'])
    return *aux, grad

  results = run(fresh(family), images())
  run(fresh(family), images() + 1)
  return *jax.tree.map(np.asarray, results), len(traces)


def evaluated(family):
  return evaluated_twice(family)[0]


@functools.cache
def trained(family):
  """Outputs and updated statistics of one pass in train mode."""
  apply = functools.partial(
    SMALL[family].apply, train=True, mutable=['batch_stats']
  )
  return jax.tree.map(np.asarray, jax.jit(apply)(fresh(family), images()))


def leaves(tree):
  pairs = jax.tree_util.tree_leaves_with_path(tree)
  name = functools.partial(jax.tree_util.keystr, simple=True, separator='/')
  return {name(path): leaf for path, leaf in pairs}


# Sizes


@pytest.mark.parametrize('table', ['COUNTS', 'MACS', 'TAPS'])
def test_every_model_is_in_the_table(table):
  assert set(getattr(model_counts, table)) == set(models.CATALOG)


@every
def test_parameters_are_as_many_as_published(name):
  _, variables = shapes(name)
  assert models.count(variables['params']) == model_counts.COUNTS[name]


@every_slowly
def test_macs_are_as_many_as_published(name):
  num_classes, image = protocol(name)
  net = models.build(name, num_classes)
  assert models.macs(net, image) == model_counts.MACS[name]


@every
def test_outputs_have_the_published_shapes(name):
  outputs, _ = shapes(name)
  assert outputs.logits.shape == (2, protocol(name)[0])
  want = model_counts.TAPS[name]
  stages = {k: v for k, v in want.items() if k.startswith('stage')}
  rectified = stages if name not in model_counts.LINEAR else {}
  before = {f'{k}_pre': v for k, v in rectified.items()}
  got = {k: v.shape[1:] for k, v in outputs.taps.items()}
  assert got == {**want, **before}


@every
def test_parameters_have_readable_names(name):
  _, variables = shapes(name)
  kernels = [k for k in leaves(variables['params']) if k.endswith('/kernel')]
  assert 'head/kernel' in kernels
  assert all(re.fullmatch(r'([a-z]+\d*[_/])+kernel', k) for k in kernels)


# Names and settings


def test_unknown_names_get_suggestions():
  with pytest.raises(KeyError, match="'resnet9'. Did you mean 'resnet8'"):
    models.build('resnet9', num_classes=10)
  with pytest.raises(ValueError, match="'widht'. Did you mean 'width'"):
    models.build('resnet8', num_classes=10, widht=2)
  with pytest.raises(ValueError, match="no setting 'depth'"):
    models.build('resnet8', num_classes=10, depth=20)


@pytest.mark.parametrize(
  'make, message',
  [
    (lambda: ResNetCifar(18, (1,) * 4, 10), r'6n \+ 2, n >= 1, got 18'),
    (lambda: ResNetCifar(2, (1,) * 4, 10), r'6n \+ 2, n >= 1, got 2'),
    (lambda: WideResNet(20, 1, 10), r'6n \+ 4, n >= 1, got 20'),
    (lambda: VGG(12, 10), '8, 11, 13, 16, 19, got 12'),
    (lambda: ResNet(5, BASIC, (1,), (4, 4), 10), 'size 3 or 7, got 5'),
    (lambda: ResNet(3, BASIC, (1,), (4,), 10), r'got \(4,\) for .* \(1,\)'),
    (
      lambda: models.build('linear', 10, width=2),
      'must be 1, got 2',
    ),
    (lambda: models.build('resnet8', 10, width=0.03), 'no channel of 16'),
    (lambda: models.build('wrn_16_2', 10, width=0.03), 'no channel of 16'),
    (
      lambda: models.build('vgg8', 10, width=0),
      'width must be above 0 and at most 10000, got 0',
    ),
    (lambda: models.build('mlp', 10, width=0.005), 'no channel of 64'),
    (lambda: ConvNeXt((1,), (4, 4), 10), r'got \(4, 4\) for .* \(1,\)'),
    (
      lambda: ConvNeXt((1,), (4,), 10, drop_path=1),
      'drop_path must be at least 0 and below 1, got 1',
    ),
    (lambda: ConvNeXt((1,), (4,), 10, stem=0), 'at least 1 pixel, got 0'),
    (
      lambda: models.build('efficientnet_b0', 10, width=0.01),
      'no channel of 16',
    ),
  ],
)
def test_impossible_sizes_are_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make()


@pytest.mark.parametrize('name', VARIANTS)
@pytest.mark.parametrize('width', [2, 0.5])
def test_width_multiplies_every_tap(name, width):
  wide, _ = shapes(name, width=width)
  assert wide.logits.shape == (2, protocol(name)[0])
  for tap, array in shapes(name)[0].taps.items():
    assert wide.taps[tap].shape[-1] == width * array.shape[-1]


@pytest.mark.parametrize('name', VARIANTS)
@pytest.mark.parametrize('image', [(8, 8, 1), (6, 6, 1), (64, 64, 3)])
def test_any_image_size_is_possible(name, image):
  outputs, _ = shapes(name, image)
  assert outputs.logits.shape == (2, protocol(name)[0])
  assert all(0 not in tap.shape for tap in outputs.taps.values())


def test_vgg_pools_a_fourth_time_for_large_images():
  taps = shapes('vgg8', (64, 64, 3))[0].taps
  assert taps['stage3'].shape == (2, 8, 8, 512)
  assert taps['stage4'].shape == (2, 4, 4, 512)


# Values of the outputs


@pytest.mark.parametrize('family', sorted(set(LAST) - {'wide_resnet'}))
def test_stage_taps_are_rectified(family):
  taps = evaluated(family).taps
  for tap in [k for k in taps if k.endswith('_pre')]:
    assert np.min(taps[tap]) < 0
    np.testing.assert_array_equal(np.maximum(taps[tap], 0), taps[tap[:-4]])


def test_wide_resnet_taps_are_sums_and_their_normalisation():
  taps = evaluated('wide_resnet').taps
  params = leaves(fresh('wide_resnet')['params'])
  readers = ['stage2_block0/bn1', 'stage3_block0/bn1', 'bn_last']
  for i, reader in enumerate(readers, start=1):
    raw, pre = taps[f'stage{i}'], taps[f'stage{i}_pre']
    assert np.min(raw) < 0
    bias = np.asarray(params[f'{reader}/bias'])
    want = np.asarray(raw) / np.sqrt(1 + 1e-5) + bias
    np.testing.assert_allclose(pre, want, rtol=1e-5, atol=1e-6)


def test_mobilenet_v2_taps_are_linear():
  taps = evaluated('mobilenet_v2').taps
  assert set(taps) == {'stem', 'stage1', 'pooled'}
  assert np.min(taps['stem']) == 0
  assert np.min(taps['stage1']) < 0


@pytest.mark.parametrize('family', sorted(set(SMALL) - {'deit_distilled'}))
def test_logits_are_linear_in_the_pooled_tap(family):
  taps = evaluated(family).taps
  head = fresh(family)['params']['head']
  want = np.asarray(taps['pooled']) @ head['kernel'] + head['bias'][None]
  np.testing.assert_allclose(evaluated(family).logits, want, atol=1e-5)


@pytest.mark.parametrize('family', LAST)
def test_the_pooled_tap_is_the_mean_of_the_last_stage(family):
  taps = evaluated(family).taps
  active = np.maximum(taps[f'{LAST[family]}_pre'], 0)
  mean = active.mean(axis=tuple(range(1, active.ndim - 1)))
  np.testing.assert_allclose(taps['pooled'], mean, atol=1e-6)


@small
def test_every_parameter_has_a_gradient(family):
  _, _, grad, _ = evaluated_twice(family)
  for path, g in leaves(grad).items():
    assert np.all(np.isfinite(g)), path
    assert np.any(g != 0), path


@small
def test_bfloat16_networks_have_float32_variables_and_logits(family):
  net = SMALL[family].clone(dtype=jnp.bfloat16)
  variables = jax.eval_shape(net.init, jax.random.key(0), images())
  assert {v.dtype.name for v in jax.tree.leaves(variables)} == {'float32'}
  outputs, moved = jax.jit(
    functools.partial(net.apply, train=True, mutable=['batch_stats'])
  )(fresh(family), images())
  assert outputs.logits.dtype == jnp.float32
  for name, tap in outputs.taps.items():
    is_map = name.startswith('st')  # not a pooled vector, or logits
    assert tap.dtype == (jnp.bfloat16 if is_map else jnp.float32), name
  assert all(v.dtype == jnp.float32 for v in jax.tree.leaves(moved))
  want = trained(family)[0].logits
  np.testing.assert_allclose(outputs.logits, want, atol=0.1)


@small
def test_traces_once(family):
  assert evaluated_twice(family)[-1] == 1


# BatchNorm


@normalised
def test_training_updates_all_statistics(family):
  before, after = (
    fresh(family)['batch_stats'],
    trained(family)[1]['batch_stats'],
  )
  assert jax.tree.structure(before) == jax.tree.structure(after)
  for path, old in leaves(before).items():
    assert np.all(leaves(after)[path] != old), path


@normalised
def test_evaluation_does_not_update_the_statistics(family):
  jax.tree.map(
    np.testing.assert_array_equal,
    evaluated_twice(family)[1]['batch_stats'],
    fresh(family)['batch_stats'],
  )


@pytest.mark.parametrize('i, name', [(1, 'stage2_block0/bn1'), (3, 'bn_last')])
def test_running_statistics_follow_one_update_of_the_biased_rule(i, name):
  outputs, moved = trained('wide_resnet')
  raw = np.asarray(outputs.taps[f'stage{i}'], np.float64)
  got = leaves(moved['batch_stats'])
  mean, var = raw.mean(axis=(0, 1, 2)), raw.var(axis=(0, 1, 2))
  np.testing.assert_allclose(got[f'{name}/mean'], 0.1 * mean, atol=1e-6)
  np.testing.assert_allclose(got[f'{name}/var'], 0.9 + 0.1 * var, rtol=1e-6)
