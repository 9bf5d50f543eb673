"""Shuffles, groups, blocks and sizes of the ShuffleNets."""

import functools
import math

import jax
import jax.numpy as jnp
import model_counts
import numpy as np
import pytest
import reparam_nets as nets
from jax import lax
from reparam_nets import difference
from test_models import evaluated, shapes

from jaxkd import models, reparam, tree
from jaxkd.models import shufflenet
from jaxkd.models.shufflenet import (
  GroupedConv,
  ShuffleNetV1,
  ShuffleNetV2,
  UnitV2,
)

both = pytest.mark.parametrize('name', ['shufflenet_v1', 'shufflenet_v2'])


def ramp(*shape):
  """Distinct numbers, one for each entry."""
  return jnp.arange(math.prod(shape), dtype=jnp.float32).reshape(shape)


# Channels


@pytest.mark.parametrize(
  'groups, size, replicas', [(3, 2, 1), (2, 5, 3), (1, 4, 2), (4, 1, 1)]
)
def test_shuffle_interleaves_the_groups_of_each_replica(groups, size, replicas):
  c = groups * size
  x = ramp(2, replicas * c)
  want = np.full(x.shape, -1.0)
  for r, i, j in np.ndindex(replicas, groups, size):
    want[:, r * c + j * groups + i] = x[:, r * c + i * size + j]
  got = shufflenet.shuffle(x, groups, replicas)
  np.testing.assert_array_equal(got, want)
  again = shufflenet.shuffle(got, size, replicas)
  np.testing.assert_array_equal(again, x)


@pytest.mark.parametrize('groups, size, replicas', [(3, 4, 2), (2, 3, 3)])
def test_copies_of_channels_stay_copies(groups, size, replicas):
  """The result for copies is copies of the result for one."""
  x, y = ramp(2, groups * size), -ramp(2, 5)
  copies = lambda z: jnp.tile(z, (1, replicas))
  np.testing.assert_array_equal(
    shufflenet.shuffle(copies(x), groups, replicas),
    copies(shufflenet.shuffle(x, groups)),
  )
  np.testing.assert_array_equal(
    shufflenet.concatenate([copies(x), copies(y)], replicas),
    copies(jnp.concatenate([x, y], axis=-1)),
  )
  got = shufflenet.halves(copies(x), replicas)
  for half, want in zip(got, jnp.split(x, 2, axis=-1), strict=True):
    np.testing.assert_array_equal(half, copies(want))


def test_replicas_are_not_mixed_where_channels_move():
  x, y = ramp(3, 8).reshape(3, 2, 4), -ramp(3, 4).reshape(3, 2, 2)
  got = shufflenet.concatenate([x.reshape(3, 8), y.reshape(3, 4)], 2)
  want = np.concatenate([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], axis=-1)
  np.testing.assert_array_equal(got, want)
  first, second = shufflenet.halves(x.reshape(3, 8), 2)
  np.testing.assert_array_equal(first, x[:, :, :2].reshape(3, 4))
  np.testing.assert_array_equal(second, x[:, :, 2:].reshape(3, 4))


# Layers


def grouped(x, kernel, groups, replicas):
  features = kernel.shape[-1]
  conv = GroupedConv(features, groups, replicas)
  with jax.default_matmul_precision('highest'):
    return conv.apply({'params': {'kernel': kernel}}, x)


def test_a_grouped_convolution_is_that_of_xla():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 3, 4, 6)).astype(np.float32)
  kernel = rng.normal(size=(1, 1, 2, 12)).astype(np.float32)
  want = lax.conv_general_dilated(
    jnp.asarray(x),
    jnp.asarray(kernel),
    (1, 1),
    'VALID',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=3,
    precision='highest',
  )
  assert difference(grouped(x, kernel, 3, 1), want) <= 1e-6


def test_a_group_reads_its_channels_of_all_replicas():
  rng = np.random.default_rng(0)
  r, g, i, o = 2, 3, 2, 4  # replicas, groups, channels of a group
  x = rng.normal(size=(5, 1, 1, r * g * i))
  kernel = rng.normal(size=(1, 1, r * i, r * g * o))
  want = np.zeros((5, 1, 1, r * g * o))
  for s, k, c in np.ndindex(r, g, o):
    column = (s * g + k) * o + c
    for t, j in np.ndindex(r, i):
      entry = x[..., (t * g + k) * i + j] * kernel[0, 0, t * i + j, column]
      want[..., column] += entry
  assert difference(grouped(x, kernel, g, r), want) <= 1e-6


@pytest.mark.parametrize('h, w', [(4, 6), (5, 3), (1, 1)])
def test_average_pooling_counts_the_padding(h, w):
  x = np.random.default_rng(0).normal(size=(2, h, w, 3))
  padded = np.pad(x, ((0, 0), (1, 2), (1, 2), (0, 0)))
  want = np.zeros((2, (h + 1) // 2, (w + 1) // 2, 3))
  for a, b in np.ndindex(want.shape[1:3]):
    window = padded[:, 2 * a : 2 * a + 3, 2 * b : 2 * b + 3]
    want[:, a, b] = window.sum((1, 2)) / 9
  got = shufflenet.overlapping_average_pool(jnp.asarray(x, jnp.float32))
  assert difference(got, want) <= 1e-6


# Networks


def kernels(name, **kwargs):
  """The shapes of a catalogue network's kernels, by their layers' names."""
  leaves = tree.leaves(shapes(name, **kwargs)[1]['params'])
  return {
    path.removesuffix('/kernel'): leaf.shape
    for path, leaf in leaves.items()
    if path.endswith('/kernel')
  }


@pytest.mark.parametrize('r', [1, 2])
def test_version_1_has_three_groups_except_in_its_first_convolution(r):
  kernel_shapes = kernels('shufflenet_v1', width=r)
  assert kernel_shapes['stage1_block0/conv_reduce'] == (1, 1, 24 * r, 54 * r)
  assert kernel_shapes['stage1_block0/conv_expand'] == (1, 1, 18 * r, 216 * r)
  assert kernel_shapes['stage1_block1/conv_reduce'] == (1, 1, 80 * r, 60 * r)
  assert kernel_shapes['stage2_block0/conv_reduce'] == (1, 1, 80 * r, 60 * r)
  assert kernel_shapes['stage2_block0/conv_expand'] == (1, 1, 20 * r, 240 * r)
  assert kernel_shapes['stage3_block3/conv_expand'] == (1, 1, 80 * r, 960 * r)


def test_the_taps_before_the_relu_of_version_2_are_not_shuffled():
  taps = evaluated('shufflenet_v2').taps
  pre, tap = (np.asarray(taps[name]) for name in ('stage1_pre', 'stage1'))
  half = pre.shape[-1] // 2
  assert pre[..., half:].min() < 0 <= pre[..., :half].min()
  np.testing.assert_array_equal(tap[..., 0::2], pre[..., :half])
  np.testing.assert_array_equal(tap[..., 1::2], np.maximum(pre[..., half:], 0))


def test_a_unit_of_version_2_keeps_the_first_half_of_each_replica():
  r = 2
  x = np.random.default_rng(0).normal(size=(1, 4, 4, 6 * r)).astype(np.float32)
  unit = UnitV2(6, replicas=r)
  init = functools.partial(unit.init, train=False)
  variables = jax.eval_shape(init, jax.random.key(0), x)
  zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), variables)
  y = np.asarray(unit.apply(zeros, x, False)).reshape(4, 4, r, 6)
  x = x.reshape(4, 4, r, 6)
  np.testing.assert_array_equal(y[..., :3], x[..., :3])
  assert not np.any(y[..., 3:])


@both
def test_width_multiplies_every_tap(name):
  wide, _ = shapes(name, width=2)
  for tap, shape in model_counts.TAPS[name].items():
    *positions, c = shape
    assert wide.taps[tap].shape == (2, *positions, 2 * c)


@both
@pytest.mark.parametrize('image', [(6, 5, 1), (64, 64, 3)])
def test_any_image_size_is_possible(name, image):
  outputs, _ = shapes(name, image)
  assert outputs.logits.shape == (2, 100)
  assert all(0 not in tap.shape for tap in outputs.taps.values())


@both
@pytest.mark.parametrize('width', [0, 0.5, 1.5, -1])
def test_a_width_that_is_not_whole_is_refused(name, width):
  message = rf'width .*must be .*, got {width}$'
  with pytest.raises(ValueError, match=message):
    models.build(name, 10, width=width)


@pytest.mark.parametrize(
  'make, message',
  [
    (lambda: ShuffleNetV1(3, 24, ((250, 1),), 10), ' 56 channels, .* 3 groups'),
    (lambda: ShuffleNetV1(3, 24, ((240, 1), (240, 1)), 10), ' 0 channels, '),
    (lambda: ShuffleNetV1(4, 24, ((240, 1),), 10), '54 channels, .* 4 groups'),
    (lambda: ShuffleNetV2(24, ((116, 1), (117, 1)), 9, 10), 'got 117'),
  ],
)
def test_impossible_sizes_are_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make()


@both
def test_depthwise_convolutions_of_stride_1_have_the_branches(name):
  _, variables = shapes(name, branches=2)
  branched = reparam.branched_prefixes(variables['params'])
  ends = 'conv_depthwise/'
  blocks = {p.removesuffix(ends) for p in branched if p.endswith(ends)}
  assert len(blocks) == len(branched)
  units = {p for p in variables['params'] if p.startswith('stage')}
  first = {unit for unit in units if unit.endswith('block0')}
  assert {b.strip('/') for b in blocks} == units - first


@pytest.mark.parametrize(
  'family, ratios, scaling',
  [
    ('shufflenet_v1', (2, 3), 'copy'),
    ('shufflenet_v2', (2, 3), 'copy'),
    ('shufflenet_v1', (1, 2), 'official'),
  ],
)
def test_any_width_expands_to_any_larger_one(family, ratios, scaling):
  """Whole ratio or not: replicas are copied as a whole."""
  narrow, wide = (nets.family(family, width) for width in ratios)
  plan = reparam.make_plan(narrow, wide, nets.SHAPE, scaling=scaling)

  def results(variables, image):
    grown = reparam.expand(variables, plan)
    params = reparam.unscale(grown['params'], plan)
    logits = [
      nets.forward(net)(v, image)
      for net, v in ((narrow, variables), (wide, {**grown, 'params': params}))
    ]
    return *logits, reparam.extract(grown['params'], plan)

  variables = nets.random_variables(narrow)
  want, got, again = nets.compiled(results)(variables, nets.images())
  assert difference(got, want) <= 1e-5
  same = functools.partial(np.testing.assert_allclose, rtol=1e-6)
  jax.tree.map(same, again, variables['params'])
