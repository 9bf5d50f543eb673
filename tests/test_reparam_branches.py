"""Branches: executed one by one, merged, added, folded, and cut before that."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reparam_nets as nets
from jax import lax
from reparam_nets import SHAPE, difference

from jaxkd import reparam, tree
from jaxkd.models.layers import Conv

DOUBLE = np.float64
SIZES = {  # inputs, outputs, groups
  'dense': (3, 5, 1),
  'grouped': (4, 6, 2),
  'depthwise': (4, 4, 4),
  'depthwise, two for each': (3, 6, 3),
}
# The families whose networks have convolutions that can have branches.
BRANCHED = [
  name
  for name in nets.FAMILIES
  if reparam.branched_prefixes(
    nets.shapes(nets.family(name, branches=2))['params']
  )
]


# What each branch is


def convolve(x, kernel, groups=1):
  """k x k convolution with zeros around the map; k is odd."""
  pad = kernel.shape[0] // 2
  return lax.conv_general_dilated(
    x,
    kernel,
    (1, 1),
    [(pad, pad)] * 2,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=groups,
  )


def executed(x, arrays, groups):
  """The branches of a convolution, each as the operations it stands for."""
  inputs = x.shape[-1]
  pointwise = lambda kernel: kernel[None, None]
  yield convolve(x, arrays['kernel'], groups)
  y = convolve(x, pointwise(arrays['branch_pool']), groups)
  window, pad = (3, 3), ((1, 1), (1, 1))
  yield nn.avg_pool(y, window, padding=pad, count_include_pad=True)
  y = convolve(x, pointwise(arrays['branch_frequency']), groups)
  yield convolve(y, arrays['frequency'][:, :, None], y.shape[-1])
  mix = np.tile(np.eye(inputs // groups), (1, groups)) + arrays['branch_mix']
  y = convolve(x, pointwise(mix), groups)
  yield convolve(y, arrays['branch_mixed'], groups)
  yield convolve(x, arrays['branch_square'], groups)
  # Eight filters for each channel, those of one channel side by side.
  y = convolve(x, arrays['branch_depth'].reshape(3, 3, 1, 8 * inputs), inputs)
  point = arrays['branch_point'].reshape(8 * inputs // groups, -1)
  yield convolve(y, pointwise(point), groups)


@functools.cache
def convolutions(sizes):
  """A branched convolution's arrays, its map and those of its branches."""
  inputs, outputs, groups = SIZES[sizes]
  conv = Conv(outputs, groups=groups, branches=6, dtype=DOUBLE)
  x = np.random.default_rng(3).normal(size=(2, 5, 4, inputs))
  with jax.enable_x64(True):
    shapes = jax.eval_shape(conv.init, jax.random.key(0), x)
  rng = np.random.default_rng(0)
  variables = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), shapes)
  eye = np.eye(inputs // groups)
  variables['batch_stats']['identity'] = np.tile(eye, (1, groups))
  arrays = {**variables['params'], **variables['batch_stats']}

  def both(variables, arrays, x):
    return conv.apply(variables, x), list(executed(x, arrays, groups))

  with jax.enable_x64(True):
    whole, parts = nets.compiled(both)(variables, arrays, x)
  return variables, np.asarray(whole), [np.asarray(part) for part in parts]


@pytest.mark.parametrize('sizes', SIZES)
def test_a_branched_convolution_is_the_sum_of_its_executed_branches(sizes):
  variables, whole, parts = convolutions(sizes)
  scales, bias = (variables['params'][n] for n in ('branch_scale', 'bias'))
  want = bias + sum(s * part for s, part in zip(scales, parts, strict=True))
  assert whole.dtype == DOUBLE
  assert difference(whole, want) <= 1e-12  # the borders are part of the map


@pytest.mark.parametrize('branches', [2, 3, 4, 5])
def test_fewer_branches_are_the_first_of_the_six(branches):
  variables, _, parts = convolutions('dense')
  arrays = {**variables['params'], **variables['batch_stats']}
  scales = arrays['branch_scale'][:branches]
  kernel = reparam.merged_kernel({**arrays, 'branch_scale': scales})
  x = np.random.default_rng(3).normal(size=(2, 5, 4, 3))
  got = convolve(*(np.float32(array) for array in (x, kernel)))
  want = sum(s * part for s, part in zip(scales, parts, strict=False))
  assert difference(got, want) <= 1e-5


@pytest.fixture(scope='module')
def fresh():
  """Initial variables of two branched convolutions: dense and depthwise."""
  x = jnp.zeros((1, 4, 4, 16))
  dense, depthwise = Conv(32, branches=6), Conv(16, groups=16, branches=6)
  init = lambda key: (dense.init(key, x), depthwise.init(key, x))
  return nets.compiled(init)(jax.random.key(0, impl='rbg'))


@pytest.mark.parametrize('which', [0, 1], ids=['dense', 'depthwise'])
def test_branches_are_initialised_as_published(fresh, which):
  params, constants = (fresh[which][part] for part in ('params', 'batch_stats'))
  inputs, outputs = params['kernel'].shape[2:]
  scales = np.array([0.25, 0.25, 0.0, 0.5, 0.05, 0.5])
  want = np.repeat(scales[:, None], outputs, axis=1)
  np.testing.assert_allclose(params['branch_scale'], want)
  assert not np.any(params['branch_mix'])
  assert not np.any(params['bias'])
  fan_in = {
    'branch_pool': inputs,
    'branch_frequency': inputs,
    'branch_mixed': 9 * inputs,
    'branch_square': 9 * inputs,
    'branch_depth': 9,
    'branch_point': 8 * inputs,
  }
  for name, n in fan_in.items():
    array, bound = np.asarray(params[name]), math.sqrt(6 / n)
    assert 0.8 * bound < array.max() <= bound, name
    assert -0.8 * bound > array.min() >= -bound, name
  waves = nets.frequency(3, outputs)
  np.testing.assert_allclose(constants['frequency'], waves, atol=1e-6)
  groups = 16 // inputs
  identity = np.tile(np.eye(inputs), (1, groups))
  np.testing.assert_array_equal(constants['identity'], identity)
  assert {*constants} == {'frequency', 'identity'}


@pytest.mark.parametrize('branches', [0, 7, -1])
def test_numbers_of_branches_outside_1_to_6_are_refused(branches):
  with pytest.raises(ValueError, match=f'1 to 6 branches, got .*={branches}$'):
    Conv(4, branches=branches)


def test_only_3_x_3_convolutions_of_stride_1_have_branches():
  image = jax.ShapeDtypeStruct((1, 4, 4, 2), jnp.float32)
  for size, stride, want in ((3, 1, 2), (3, 2, 0), (1, 1, 0), (5, 1, 0)):
    conv = Conv(4, size, stride, branches=2)
    shapes = jax.eval_shape(conv.init, jax.random.key(0), image)['params']
    assert len(reparam.branched_prefixes(shapes)) == bool(want)
    assert set(shapes) - {'kernel', 'bias'} == (
      {'branch_scale', 'branch_pool'} if want else set()
    )
    assert ('bias' in shapes) == bool(want)


# Adding them to a trained network


def test_adding_branches_preserves_the_function():
  net, branched = (nets.Branched(branches=m) for m in (1, 6))
  grown = nets.Branched(2, 6)
  plan = reparam.make_plan(branched, grown, SHAPE)
  plain = nets.random_variables(net)

  def all_of_them(plain, key, image):
    added = reparam.add_branches(plain, branched.init(key, image))
    wide = reparam.expand(added, plan)
    return (
      added,
      reparam.merge(added),
      nets.forward(net)(plain, image),
      nets.forward(branched)(added, image),
      nets.forward(grown)(wide, image),
    )

  added, merged, want, got, wide = nets.compiled(all_of_them)(
    plain, jax.random.key(1, impl='rbg'), nets.images()
  )
  for path, array in tree.leaves(plain).items():
    assert np.array_equal(tree.leaves(merged)[path], array), path
    assert np.array_equal(tree.leaves(added)[path], array), path
  np.testing.assert_array_equal(got, want)
  assert difference(wide, want) <= 1e-6
  for path, array in tree.leaves(added['params']).items():
    kind = path.split('/')[-1]
    if kind == 'branch_scale':
      np.testing.assert_array_equal(array[0], np.ones(array.shape[1]))
      assert not np.any(array[1:])
    elif kind.startswith('branch') and kind != 'branch_mix':
      assert np.all(array), 'a branch of zeros at scale zero never learns'


# Extracting, merging, folding


@pytest.mark.parametrize(
  ('name', 'branches'),
  [
    *((name, 6) for name in BRANCHED[:4]),
    *(pytest.param(x, 6, marks=pytest.mark.slow) for x in BRANCHED[4:]),
    (BRANCHED[0], 3),
    (BRANCHED[1], 4),
  ],
)
def test_the_deployed_network_is_the_student_that_was_trained(name, branches):
  """Every parameter of the wide network and every statistic is random."""
  plain = nets.family(name)
  narrow, wide = (nets.family(name, width, branches) for width in (1, 2))
  plan = reparam.make_plan(narrow, wide, SHAPE)
  stats = nets.random_variables(narrow, seed=1)['batch_stats']

  def both(theta, stats, image):
    params = reparam.extract(theta, plan)
    student = {'params': params, 'batch_stats': stats}
    deployed = reparam.fold_biases(reparam.merge(student), plain, SHAPE)
    results = [nets.forward(narrow)(student, image)]
    return *results, nets.forward(plain)(deployed, image), deployed

  want, got, deployed = nets.compiled(both)(
    nets.random_variables(wide)['params'], stats, nets.images()
  )
  assert difference(got, want) <= 1e-5
  assert np.std(want) > 1e-3
  shapes = nets.shapes(plain)
  assert not tree.differences(deployed, shapes)
  assert tree.count(deployed['params']) == tree.count(shapes['params'])


@pytest.fixture(scope='module')
def orders():
  """Kernels of each branch alone, cut and then merged, merged and then cut."""
  both = [nets.Branched(w, 6, normed=False, bias=True) for w in (1, 2)]
  bare = [nets.Branched(w, 1, normed=False, bias=True) for w in (1, 2)]
  plan = reparam.make_plan(*both, SHAPE)
  plain_plan = reparam.make_plan(*bare, SHAPE)

  def kernels(theta, narrow):
    wide = reparam.expand(narrow, plan)['batch_stats']
    for m in range(6):
      alone = jax.tree_util.tree_map_with_path(
        lambda path, x, m=m: (
          x * jnp.eye(6)[m][:, None] if path[-1].key == 'branch_scale' else x
        ),
        theta,
      )
      first = reparam.merge({'params': alone, 'batch_stats': wide})
      last = {
        'params': reparam.extract(alone, plan),
        'batch_stats': narrow['batch_stats'],
      }
      yield (
        reparam.merge(last)['params'],
        reparam.extract(first['params'], plain_plan),
      )

  results = nets.compiled(lambda *args: list(kernels(*args)))(
    nets.random_variables(both[1])['params'], nets.random_variables(both[0])
  )
  return jax.tree.map(np.asarray, results)


@pytest.mark.parametrize('branch', range(6))
def test_extracting_and_merging_commute_except_for_the_fourth_branch(
  orders, branch
):
  """The fourth has channels inside of it, which are extracted, too."""
  cut, merged = (tree.leaves(x) for x in orders[branch])
  inside = branch == 3
  for path in ('first/kernel', 'depthwise/kernel'):
    assert difference(merged[path], cut[path]) <= 1e-6, path
  path = 'middle/kernel'
  error = difference(merged[path], cut[path])
  assert error > 1e-3 if inside else error <= 1e-6


# Folding


# By hand, layer by layer: the BatchNorm that can take up each bias.
PAIRS = {
  'conv_stem': 'bn_stem',
  'stage1_block0/conv1': 'stage1_block0/bn1',
  'stage1_block0/conv2': 'stage1_block0/bn2',
  'stage1_block0/conv_shortcut': 'stage1_block0/bn_shortcut',
  'stage2_block0/conv1': 'stage2_block0/bn1',
  'stage2_block0/conv2': 'stage2_block0/bn2',
  'stage2_block0/conv_shortcut': 'stage2_block0/bn_shortcut',
  'stage3_block0/conv1': 'stage3_block0/bn1',
  'stage3_block0/conv2': 'stage3_block0/bn2',
  'stage3_block0/conv_shortcut': 'stage3_block0/bn_shortcut',
}


def test_batch_norms_after_pairs_layers_with_their_batch_norms():
  net = nets.family('resnet')
  assert reparam.batch_norms_after(net, SHAPE) == PAIRS
  pairs = reparam.batch_norms_after(nets.Mixed(), SHAPE)
  # A layer whose output is added to another before the norm has none.
  assert pairs == {
    'first': 'norm0',
    'depthwise': 'norm1',
    'middle': 'norm2',
  }
  assert 'stem/conv0' in reparam.batch_norms_after(nets.family('vgg'), SHAPE)


class Twice(nn.Module):
  """Two BatchNorms read one layer."""

  @nn.compact
  def __call__(self, x, train=False):
    x = nn.Dense(4, name='first')(x.mean((1, 2)))
    norms = [
      nn.BatchNorm(use_running_average=not train, name=f'norm{i}')(x)
      for i in range(2)
    ]
    return nn.Dense(3, name='head')(sum(norms))


def test_a_layer_with_two_batch_norms_is_not_paired():
  assert reparam.batch_norms_after(Twice(), SHAPE) == {}


@pytest.mark.parametrize('name', nets.FAMILIES)
def test_every_bias_added_by_branches_is_followed_by_a_batch_norm(name):
  net, branched = nets.family(name), nets.family(name, branches=2)
  plain, more = (tree.leaves(nets.shapes(x)['params']) for x in (net, branched))
  behind = reparam.batch_norms_after(net, SHAPE)
  for path in more.keys() - plain.keys():
    layer, _, kind = path.rpartition('/')
    assert kind.startswith('branch_') or layer in behind, path


def test_a_bias_without_a_batch_norm_is_refused_by_name():
  branched, plain = (nets.Branched(branches=m, normed=False) for m in (3, 1))
  merged = reparam.merge(nets.random_variables(branched))
  with pytest.raises(ValueError, match=r'deployed.*(\n.*)+/middle/bias'):
    reparam.fold_biases(merged, plain, SHAPE)


def test_folding_does_not_modify_its_arguments():
  branched = nets.family('resnet', branches=2)
  merged = reparam.merge(nets.random_variables(branched))
  merged = jax.tree.map(np.array, merged)  # could be written to
  before = tree.digest(merged)
  folded = reparam.fold_biases(merged, nets.family('resnet'), SHAPE)
  assert tree.digest(merged) == before
  old, new = (tree.leaves(x['batch_stats']) for x in (merged, folded))
  moved = [name for name in old if np.any(old[name] != new[name])]
  assert moved and all(name.endswith('/mean') for name in moved)


def test_merging_a_network_without_branches_is_the_identity():
  variables = nets.random_variables(nets.family('resnet'))
  merged = reparam.merge(variables)
  jax.tree.map(np.testing.assert_array_equal, merged, variables)
  assert reparam.branched_prefixes(variables['params']) == []
