"""Where training starts: the initial values of every array of every family.

The table of the distillation benchmark's networks, read off their PyTorch code:
kernels are normal in fan-out, as in He et al. 2015, or what PyTorch gives a
layer by itself, U(+-1 / sqrt(fan_in)).
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_models import SMALL, images

from jaxkd import tree
from jaxkd.models import layers
from jaxkd.models.mobilenet import MobileNetV1, MobileNetV2
from jaxkd.models.resnet import BASIC, BOTTLENECK, ResNet
from jaxkd.models.resnet_cifar import ResNetCifar
from jaxkd.models.shufflenet import ShuffleNetV1, ShuffleNetV2
from jaxkd.models.vgg import VGG
from jaxkd.models.wide_resnet import WideResNet

SIGMAS = 5  # tolerance of a statistic, in standard errors


# Rules: does an array come from this distribution? (array, its layer's kernel).


def errors(array, std, bound):
  """Mean and spread in units of their standard errors, and the largest."""
  n = array.size
  return (
    array.mean() / std * math.sqrt(n),
    (array.std() / std - 1) * math.sqrt(2 * n),
    np.abs(array).max() / bound,
  )


def normal(std):
  def rule(array, kernel):
    want = std(kernel)
    mean, spread, largest = errors(array, want, want)
    enough = largest > 2.5 or array.size < 2000  # uniform ends at 1.73
    return max(abs(mean), abs(spread)) < SIGMAS and enough

  return rule


def zero(array, kernel):
  return not np.any(array)


def pytorch(array, kernel):
  bound = 1 / math.sqrt(math.prod(kernel.shape[:-1]))
  mean, spread, largest = errors(array, bound / math.sqrt(3), bound)
  within = 1 - 2 * SIGMAS / array.size < largest <= 1
  return within and max(abs(mean), abs(spread)) < SIGMAS


def fan_out(kernel):
  h, w, _, features = kernel.shape  # of a depthwise kernel, all channels
  return math.sqrt(2 / (h * w * features))


he, small = normal(fan_out), normal(lambda kernel: 0.01)

# Family -> network, and the rules of its convolutions' kernels and biases (None
# if they have none) and of its head's kernel and bias.
TABLE = {
  'resnet_cifar': (
    ResNetCifar(8, (16, 16, 24, 32), 100),
    (he, None, pytorch, pytorch),
  ),
  'resnet': (
    ResNet(3, BASIC, (1, 1), (16, 16, 32), 100),
    (he, None, pytorch, pytorch),
  ),
  'imagenet_resnet': (
    ResNet(7, BOTTLENECK, (1,), (32, 16), 100),
    (he, None, pytorch, pytorch),
  ),
  'wide_resnet': (WideResNet(10, 2, 100), (he, None, pytorch, zero)),
  'vgg': (VGG(8, 100, width=1 / 4), (he, zero, small, zero)),
  'mobilenet_v1': (
    MobileNetV1(32, (((48, 1, 1), (64, 1, 2)),), 100),
    (pytorch, None, pytorch, pytorch),
  ),
  'mobilenet_v2': (
    MobileNetV2(32, (((2, 48, 1, 1), (1, 32, 1, 2)),), 128, 100),
    (he, None, small, zero),
  ),
  'shufflenet_v1': (
    ShuffleNetV1(2, 64, ((192, 2),), 100),
    (pytorch, None, pytorch, pytorch),
  ),
  'shufflenet_v2': (
    ShuffleNetV2(32, ((64, 2),), 128, 100),
    (pytorch, None, pytorch, pytorch),
  ),
}
each = pytest.mark.parametrize('family', TABLE)


@functools.cache
def start(family):
  """Layer -> its arrays, by name, as `init` returns them."""
  net, _ = TABLE[family]
  key = jax.random.key(0, impl='rbg')  # quick to compile
  params = jax.jit(net.init)(key, jnp.zeros((1, 8, 8, 3)))['params']
  layers = {}
  for path, array in tree.leaves(params).items():
    layer, _, name = path.rpartition('/')
    layers.setdefault(layer, {})[name] = np.asarray(array, np.float64)
  return layers


@each
def test_every_array_starts_as_in_the_references(family):
  _, (kernel_rule, bias_rule, *head_rules) = TABLE[family]
  layers = start(family)
  head = layers['head']
  for name, rule in zip(('kernel', 'bias'), head_rules, strict=True):
    assert rule(head[name], head['kernel']), name
  convolutions = {k for k, v in layers.items() if 'kernel' in v} - {'head'}
  assert len(convolutions) > 3
  for layer in convolutions:
    kernel, bias = layers[layer]['kernel'], layers[layer].get('bias')
    assert kernel_rule(kernel, kernel), layer
    assert (bias is None) == (bias_rule is None), layer
    assert bias is None or bias_rule(bias, kernel), layer


@each
def test_every_batch_norm_starts_as_the_identity(family):
  """The last one of a block too: no sum starts as its shortcut."""
  norms = [v for v in start(family).values() if 'scale' in v]
  assert len(norms) > 3
  for norm in norms:
    assert np.all(norm['scale'] == 1)
    assert not np.any(norm['bias'])


def test_each_rule_accepts_its_own_distribution_alone():
  rng = np.random.default_rng(0)
  kernel = rng.normal(size=(3, 3, 16, 64))
  std, bound = math.sqrt(2 / (9 * 64)), 1 / math.sqrt(9 * 16)
  draws = {
    'he': kernel * std,
    'fan_in': kernel * math.sqrt(2 / (9 * 16)),
    'truncated': np.clip(kernel, -2, 2) * std,
    'pytorch': rng.uniform(-bound, bound, kernel.shape),
    'as_wide': rng.uniform(-1, 1, kernel.shape) * std * math.sqrt(3),
    'shifted': kernel * std + 0.1 * std,
    'small': kernel * 0.01,
    'zero': kernel * 0,
  }
  rules = {'he': he, 'pytorch': pytorch, 'small': small, 'zero': zero}
  for name, rule in rules.items():
    assert {k for k, v in draws.items() if rule(v, kernel)} == {name}


# Layers and heads


def initial(family, *path):
  """Initial values of one array or module."""

  def init(key):
    params = SMALL[family].init(key, images())['params']
    return functools.reduce(lambda node, name: node[name], path, params)

  return jax.jit(init)(jax.random.key(0))


def spread(kernel):
  """Standard deviation, and the largest entry in its units."""
  kernel = np.asarray(kernel)
  return kernel.std(), np.abs(kernel).max() / kernel.std()


@pytest.mark.parametrize('size', [1, 3])
def test_convolutions_start_normal_in_fan_out(size):
  conv = layers.Conv(128, size)
  kernel = conv.init(jax.random.key(0), jnp.zeros((1, 4, 4, 64)))
  std, largest = spread(kernel['params']['kernel'])
  assert std == pytest.approx(math.sqrt(2 / (size * size * 128)), rel=0.02)
  assert largest > 3.5  # a truncated normal ends at 2 / 0.88


def test_heads_start_as_in_the_references():
  bound = 1 / math.sqrt(12)  # of the small ResNet's pooled features
  for array in initial('resnet', 'head').values():
    assert 0.7 * bound < np.abs(array).max() <= bound
    assert np.min(array) < 0 < np.max(array)
  head = initial('wide_resnet', 'head')
  assert not np.any(head['bias'])
  assert np.abs(head['kernel']).max() <= 1 / math.sqrt(32)
  head = initial('vgg', 'head')
  assert not np.any(head['bias'])
  assert spread(head['kernel'])[0] == pytest.approx(0.01, rel=0.2)
  assert not np.any(initial('vgg', 'stem', 'conv0', 'bias'))


def test_the_default_bias_is_uniform_on_both_sides():
  bias = np.asarray(layers.bias_uniform(16)(jax.random.key(0), (4096,)))
  np.testing.assert_allclose([bias.min(), bias.max()], [-0.25, 0.25], rtol=0.01)
  assert bias.mean() == pytest.approx(0, abs=0.01)
