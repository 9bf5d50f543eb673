"""Blocks and branches of the MobileNets."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd import models
from jaxkd.models.mobilenet import Inverted


@pytest.mark.parametrize(
  'features, stride, added', [(6, 1, 1), (6, 2, 0), (4, 1, 0)]
)
def test_an_inverted_block_adds_its_input_where_the_shapes_agree(
  features, stride, added
):
  x = np.random.default_rng(0).normal(size=(1, 4, 4, 6)).astype(np.float32)
  block = Inverted(2, features, stride)
  init = functools.partial(block.init, train=False)
  shapes = jax.eval_shape(init, jax.random.key(0), x)
  # The input alone.
  zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
  y = np.asarray(jax.jit(functools.partial(block.apply, train=False))(zeros, x))
  assert y.shape == (1, 4 // stride, 4 // stride, features)
  np.testing.assert_array_equal(y, added * x if added else np.zeros(y.shape))


@pytest.mark.parametrize(
  'name, strided',
  [
    (
      'imagenet_mobilenet_v1',
      {'stage1_block1', 'stage2_block0', 'stage3_block0', 'stage4_block0'},
    ),
    ('mobilenet_v2', {'stage2_block0', 'stage3_block0', 'stage4_block0'}),
  ],
)
def test_depthwise_convolutions_of_stride_1_have_the_branches(name, strided):
  net = models.build(name, 10, branches=2)
  image = jnp.zeros((1, 8, 8, 3))
  params = jax.eval_shape(net.init, jax.random.key(0), image)['params']
  blocks = {k for k in params if k.startswith('stage')}
  more = {k for k in blocks if set(params[k]['conv_depthwise']) != {'kernel'}}
  assert more == blocks - strided
  assert set(params['conv_stem']) == {'kernel'}  # it has stride 2
