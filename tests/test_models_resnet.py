"""Pooling, blocks and initialisation of the ResNets with four stages."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd import models
from jaxkd.models.layers import overlapping_max_pool
from jaxkd.models.resnet import (
  BASIC,
  BOTTLENECK,
  Block,
  ResNet,
)


def windows(x):
  """The part within the map of the window around every second pixel."""
  rows, columns = range(0, x.shape[1], 2), range(0, x.shape[2], 2)
  return [
    [x[:, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2] for j in columns]
    for i in rows
  ]


@pytest.mark.parametrize('side', [(1, 1), (4, 6), (5, 7)])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_overlapping_max_pool_ignores_the_padding(side, dtype):
  x = np.random.default_rng(0).normal(size=(2, *side, 3)) - 4  # below zero
  x = jnp.asarray(x, dtype)
  got = overlapping_max_pool(x)
  assert got.dtype == dtype
  want = np.stack(
    [
      np.stack([w.max(axis=(1, 2)) for w in row], axis=1)
      for row in windows(np.asarray(x.astype('float32')))
    ],
    axis=1,
  )
  np.testing.assert_array_equal(got.astype('float32'), want)


def test_the_gradient_of_overlapping_windows_adds_up():
  x = np.zeros((1, 4, 4, 1), np.float32)
  x[0, 1, 1, 0] = 1  # in all four windows
  grad = jax.grad(lambda x: jnp.sum(overlapping_max_pool(x)))(jnp.asarray(x))
  np.testing.assert_array_equal(grad, 4 * x)


@pytest.mark.parametrize(
  'expansion, kernels',
  [
    (BASIC, {'conv1': (3, 3, 6, 4), 'conv2': (3, 3, 4, 4)}),
    (
      BOTTLENECK,
      {'conv1': (1, 1, 6, 4), 'conv2': (3, 3, 4, 4), 'conv3': (1, 1, 4, 16)},
    ),
  ],
)
def test_a_block_is_two_convolutions_or_a_bottleneck(expansion, kernels):
  x = jnp.zeros((1, 8, 8, 6))
  block = Block(4, expansion, stride=2)
  y, variables = jax.eval_shape(
    lambda key: block.init_with_output(key, x, train=False), jax.random.key(0)
  )
  assert y.shape == (1, 4, 4, 4 * expansion)
  got = {
    k: v['kernel'].shape for k, v in variables['params'].items() if 'conv' in k
  }
  assert got == {**kernels, 'conv_shortcut': (1, 1, 6, 4 * expansion)}


def test_a_block_of_equal_shapes_has_no_shortcut_convolution():
  x = jnp.zeros((1, 4, 4, 16))
  block = Block(4, BOTTLENECK)
  shape = jax.eval_shape(
    lambda key: block.init(key, x, train=False), jax.random.key(0)
  )
  assert 'conv_shortcut' not in shape['params']


def test_weights_start_as_in_the_references():
  net = ResNet(7, BOTTLENECK, (1,), (64, 16), num_classes=100)
  params = jax.jit(net.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
  params = params['params']
  std = np.std(params['conv_stem']['kernel'])
  assert std == pytest.approx(math.sqrt(2 / (49 * 64)), rel=0.05)
  bound = 1 / math.sqrt(64)
  for array in params['head'].values():
    assert 0.9 * bound < np.abs(array).max() <= bound
    assert np.min(array) < 0 < np.max(array)
  # Also the last BatchNorm of a block: no sum starts as its shortcut.
  assert np.all(params['stage1_block0']['bn3']['scale'] == 1)


@pytest.mark.parametrize(
  'name, strided',
  [
    ('resnet18', {f'stage{i}_block0/conv1' for i in (2, 3, 4)}),
    ('resnet50', {f'stage{i}_block0/conv2' for i in (2, 3, 4)}),
  ],
)
def test_convolutions_of_stride_1_have_the_branches(name, strided):
  def shapes(branches):
    net = models.build(name, 10, branches=branches)
    image = jnp.zeros((1, 8, 8, 3))
    shape = jax.eval_shape(net.init, jax.random.key(0), image)['params']
    pairs = jax.tree_util.tree_leaves_with_path(shape)
    return {
      jax.tree_util.keystr(path, simple=True, separator='/'): leaf.shape
      for path, leaf in pairs
    }

  plain = shapes(1)
  kernels = {k for k, v in plain.items() if v[:2] == (3, 3)}
  more = {k.rsplit('/', 1)[0] for k in shapes(2).keys() - plain.keys()}
  assert more == {k.removesuffix('/kernel') for k in kernels} - strided
