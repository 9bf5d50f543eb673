"""The transformers against formulas that share no code with them."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd import models
from jaxkd.models import rvt, vit
from jaxkd.models.attention import Attention
from jaxkd.models.rvt import RVT
from jaxkd.models.vit import ViT

HEADS, DIM = 2, 3


def normal(*shape, seed=0):
  rng = np.random.default_rng(seed)
  return rng.normal(size=shape).astype(np.float32)


def draw(net, *args, **kwargs):
  """Variables of `net` in which nothing is zero, one or equal."""
  rng = np.random.default_rng(1)

  def leaf(path, shape):
    x = rng.normal(size=shape.shape) / 2
    if path[-1].key in ('scale', 'var'):
      x = 1 + abs(x)
    return x.astype(np.float32)

  init = functools.partial(net.init, **kwargs)
  shapes = jax.eval_shape(init, jax.random.key(0), *args)
  return jax.tree_util.tree_map_with_path(leaf, shapes)


def case(net, x, **kwargs):
  """Parameters and statistics in float64, and the outputs of `net` for `x`."""
  variables = draw(net, x, **kwargs)
  result = jax.jit(functools.partial(net.apply, **kwargs))(variables, x)
  double = jax.tree.map(lambda v: v.astype(np.float64), variables)
  return double['params'], double.get('batch_stats'), result


def check(got, want):
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


# The formulas, in float64


def dense(p, x):
  return x @ p['kernel'] + p['bias'][None]


def layer_norm(p, x):
  x = x - x.mean(-1, keepdims=True)
  x = x / np.sqrt(np.mean(x**2, -1, keepdims=True) + 1e-6)
  return x * p['scale'] + p['bias']


def batch_norm(p, stats, x):
  x = (x - stats['mean']) / np.sqrt(stats['var'] + 1e-5)
  return x * p['scale'] + p['bias']


def gelu(x):
  return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


def attention(p, x):
  """One head of one example at a time."""
  y = np.zeros(x.shape) + p['out']['bias']
  for b in range(len(x)):
    for h in range(p['out']['kernel'].shape[0]):
      kernel, bias = p['qkv']['kernel'][:, :, h], p['qkv']['bias'][:, h]
      q, k, v = (x[b] @ kernel[:, n] + bias[n] for n in range(3))
      weights = np.exp(q @ k.T / math.sqrt(q.shape[1]))
      weights /= weights.sum(1, keepdims=True)
      y[b] += weights @ v @ p['out']['kernel'][h]
  return y


def convolve(p, x, stride, pad, groups=1):
  """One output pixel and channel at a time."""
  kernel = p['kernel']
  k, _, depth, features = kernel.shape
  x = np.pad(x, [(0, 0), (pad, pad), (pad, pad), (0, 0)])
  rows = range(0, x.shape[1] - k + 1, stride)
  columns = range(0, x.shape[2] - k + 1, stride)
  y = np.zeros((len(x), len(rows), len(columns), features)) + p['bias']
  for f in range(features):
    first = f // (features // groups) * depth
    for i, row in enumerate(rows):
      for j, column in enumerate(columns):
        window = x[:, row : row + k, column : column + k, first : first + depth]
        y[:, i, j, f] += np.sum(window * kernel[..., f], axis=(1, 2, 3))
  return y


def conv_mlp(p, stats, x):
  y = convolve(p['fc1'], x, 1, 0)
  y = gelu(batch_norm(p['bn1'], stats['bn1'], y))
  y = convolve(p['depthwise'], y, 1, 1, groups=y.shape[-1])
  y = gelu(batch_norm(p['bn2'], stats['bn2'], y))
  return batch_norm(p['bn3'], stats['bn3'], convolve(p['fc2'], y, 1, 0))


# Attention and blocks


def test_attention_agrees_with_flax():
  x = normal(2, 5, HEADS * DIM)
  net = Attention(HEADS, DIM)
  params = draw(net, x)['params']
  theirs = {
    name: {
      'kernel': params['qkv']['kernel'][:, n],
      'bias': params['qkv']['bias'][n],
    }
    for n, name in enumerate(('query', 'key', 'value'))
  }
  theirs['out'] = params['out']
  want = nn.MultiHeadDotProductAttention(HEADS).apply({'params': theirs}, x)
  np.testing.assert_allclose(net.apply({'params': params}, x), want, atol=1e-5)


def test_attention_is_the_softmax_of_its_paper():
  x = normal(2, 5, HEADS * DIM)
  p, _, got = case(Attention(HEADS, DIM), x)
  check(got, attention(p, x))


def test_vit_block():
  x = normal(2, 5, HEADS * DIM)
  p, _, got = case(vit.Block(HEADS, DIM), x)
  y = x + attention(p['attention'], layer_norm(p['norm1'], x))
  hidden = gelu(dense(p['fc1'], layer_norm(p['norm2'], y)))
  check(got, y + dense(p['fc2'], hidden))


def test_rvt_block():
  x = normal(2, 2, 3, HEADS * DIM)
  p, stats, got = case(rvt.Block(HEADS, DIM), x, train=False)
  tokens = layer_norm(p['norm1'], x).reshape(2, 6, -1)
  y = x + attention(p['attention'], tokens).reshape(x.shape)
  mlp = conv_mlp(p['mlp'], stats['mlp'], layer_norm(p['norm2'], y))
  check(got, y + mlp)


# Stem, tokens and head


def test_vit_tokens_are_patches_row_by_row_behind_the_class_token():
  image = normal(2, 4, 6, 1)
  p, _, got = case(ViT((1,), HEADS, DIM, num_classes=5, patch=2), image)
  patches = convolve(p['embed'], image, 2, 0).reshape(2, 6, -1)
  first = np.tile(p['class_token'], (2, 1, 1))
  tokens = np.concatenate([first, patches], axis=1) + p['position_embedding']
  check(got.taps['stem'], tokens)
  pooled = layer_norm(p['norm_last'], np.asarray(got.taps['stage1'])[:, 0])
  check(got.taps['pooled'], pooled)
  check(got.logits, dense(p['head'], pooled))


@pytest.mark.parametrize('patch, grid', [(4, 4), (8, 2)])
def test_rvt_stem_halving_and_head(patch, grid):
  image = normal(2, 16, 16, 1)
  net = RVT((1, 1), (1, 2), DIM, num_classes=5, patch=patch)
  p, stats, got = case(net, image)
  y = convolve(p['conv_stem'], image, 2, 2)
  y = batch_norm(p['bn_stem'], stats['bn_stem'], y)
  y = np.pad(y, [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=-np.inf)
  y = [
    [y[:, i : i + 3, j : j + 3].max((1, 2)) for j in range(0, 7, 2)]
    for i in range(0, 7, 2)
  ]
  y = np.moveaxis(y, 2, 0)
  stem = convolve(p['embed'], y, patch // 4, 0)
  assert stem.shape == (2, grid, grid, DIM)
  check(got.taps['stem'], stem)
  first = np.asarray(got.taps['stage1'])
  assert first.shape == stem.shape
  p_block = p['stage2_block0']
  halved = convolve(p['stage2_pool'], first, 2, 1, groups=DIM)
  tokens = layer_norm(p_block['norm1'], halved).reshape(2, -1, 2 * DIM)
  y = halved + attention(p_block['attention'], tokens).reshape(halved.shape)
  y += conv_mlp(
    p_block['mlp'],
    stats['stage2_block0']['mlp'],
    layer_norm(p_block['norm2'], y),
  )
  check(got.taps['stage2'], y)
  pooled = layer_norm(p['norm_last'], y.mean((1, 2)))
  check(got.taps['pooled'], pooled)
  check(got.logits, dense(p['head'], pooled))


# Sizes


@pytest.mark.parametrize(
  'name, d', [('vit_tiny', 192), ('deit_small', 384), ('vit_base', 768)]
)
def test_macs_of_a_vit_are_those_of_its_linear_layers(name, d):
  patches, block = 196 * 16 * 16 * 3 * d, 197 * (3 + 1 + 4 + 4) * d * d
  net = models.build(name, 1000)
  got = models.macs(net, (224, 224, 3))
  assert got == patches + 12 * block + 1000 * d


@functools.cache
def on_cifar(name, width):
  image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
  net = models.build(name, 10, width=width)
  return jax.eval_shape(net.init_with_output, jax.random.key(0), image)


@pytest.mark.parametrize('name', ['vit_small', 'rvt_tiny', 'rvt_small'])
@pytest.mark.parametrize('width', [2, 1.5, 0.5])
def test_width_multiplies_heads_and_not_their_size(name, width):
  narrow, wide = on_cifar(name, 1), on_cifar(name, width)
  for tap, array in narrow[0].taps.items():
    assert wide[0].taps[tap].shape[-1] == width * array.shape[-1]
  old, new = (
    v['params']['stage1_block0']['attention']['qkv']['bias'].shape
    for _, v in (narrow, wide)
  )
  assert new == (3, width * old[1], old[2])


@pytest.mark.parametrize('name', ['vit_tiny', 'rvt_tiny'])
@pytest.mark.parametrize('image', [(32, 32, 3), (8, 12, 1)])
def test_a_small_patch_is_for_small_images(name, image):
  net = models.build(name, 10, patch=4)
  x = jax.ShapeDtypeStruct((2, *image), jnp.float32)
  outputs, _ = jax.eval_shape(net.init_with_output, jax.random.key(0), x)
  assert outputs.logits.shape == (2, 10)
  grid = (image[0] // 4, image[1] // 4)
  tokens = {'vit_tiny': (1 + math.prod(grid),), 'rvt_tiny': grid}[name]
  assert outputs.taps['stage1'].shape == (2, *tokens, 192)


@pytest.mark.parametrize(
  'name, kwargs, message',
  [
    ('vit_tiny', {'width': 0.5}, r'width 0.5 .* heads \(3,\) .* of 1 / 3'),
    ('deit_small', {'width': 1.25}, r'width 1.25 .* heads \(6,\) .* of 1 / 6'),
    ('rvt_tiny', {'width': 0.1}, r'width 0.1 .* heads \(6, 12\) .* of 1 / 6'),
    (
      'rvt_small',
      {'width': 0},
      'width must be above 0 and at most 10000, got 0',
    ),
    ('vit_tiny', {'patch': 0}, 'patch must be at least 1, got 0'),
    ('rvt_tiny', {'patch': 2}, 'a multiple of 4, got 2'),
    ('rvt_tiny', {'patch': 0}, 'patch must be at least 1, got 0'),
  ],
)
def test_impossible_sizes_are_refused(name, kwargs, message):
  with pytest.raises(ValueError, match=message):
    models.build(name, 10, **kwargs)


@pytest.mark.parametrize('name', ['vit_tiny', 'rvt_tiny'])
@pytest.mark.parametrize('image', [(24, 32, 3), (32, 40, 3)])
def test_images_that_patches_do_not_cover_are_refused(name, image):
  x = jax.ShapeDtypeStruct((1, *image), jnp.float32)
  message = f'{image[0]} x {image[1]} .* 16 x 16: .* multiples of 16, .* of 8'
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(models.build(name, 10).init, jax.random.key(0), x)


# Branches


def shapes(net):
  image = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
  return jax.eval_shape(net.init, jax.random.key(0), image)['params']


def test_only_the_depthwise_convolutions_have_branches():
  plain, branched = (
    shapes(models.build('rvt_tiny', 10, branches=m)) for m in (1, 3)
  )
  changed = set()
  for name, module in plain.items():
    if 'mlp' in module:
      changed |= {
        k for k, v in module['mlp'].items() if v != branched[name]['mlp'][k]
      }
      rest = branched[name] | {'mlp': module['mlp']}
      assert rest == module
    else:
      assert branched[name] == module
  assert changed == {'depthwise'}


def test_a_vit_has_no_branches():
  plain, branched = (
    shapes(models.build('vit_tiny', 10, branches=m)) for m in (1, 3)
  )
  assert plain == branched


# Initialisers


def test_vit_starts_as_in_timm():
  net = ViT((1,), 4, 16, num_classes=100, patch=4)
  params = jax.jit(net.init)(jax.random.key(0), normal(1, 32, 32, 3))['params']
  block = params['stage1_block0']
  kernels = [
    params['position_embedding'],
    params['head']['kernel'],
    block['attention']['qkv']['kernel'],
    block['attention']['out']['kernel'],
    block['fc1']['kernel'],
    block['fc2']['kernel'],
  ]
  for kernel in kernels:
    assert np.std(kernel) == pytest.approx(0.02, rel=0.1)
  assert 0 < np.abs(params['class_token']).max() < 1e-5
  assert not np.any(block['attention']['qkv']['bias'])
  assert not np.any(params['head']['bias'])
  for array in params['embed'].values():
    bound = 1 / math.sqrt(4 * 4 * 3)
    assert 0.9 * bound < np.abs(array).max() <= bound


def test_rvt_starts_with_the_defaults_of_pytorch():
  net = RVT((1, 0), (2, 4), 8, num_classes=100, patch=16)
  params = jax.jit(net.init)(jax.random.key(0), normal(1, 32, 32, 3))['params']
  block = params['stage1_block0']
  fan_in = [
    (params['conv_stem'], 7 * 7 * 3),
    (params['embed'], 4 * 4 * 32),
    (params['stage2_pool'], 3 * 3),
    (params['head'], 32),
    (block['attention']['qkv'], 16),
    (block['attention']['out'], 16),
  ]
  for layer, n in fan_in:
    for array in layer.values():
      bound = 1 / math.sqrt(n)
      assert 0.75 * bound < np.abs(array).max() <= bound
      assert np.min(array) < 0 < np.max(array)
  for name, n in (('fc1', 16), ('depthwise', 3 * 3), ('fc2', 64)):
    largest = np.abs(block['mlp'][name]['kernel']).max()
    assert 0.9 / math.sqrt(n) < largest <= 1 / math.sqrt(n)
    assert not np.any(block['mlp'][name]['bias'])
