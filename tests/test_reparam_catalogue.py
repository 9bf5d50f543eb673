"""Properties of every network of the catalogue, and of any small one.

Shapes for the published sizes; arithmetic for the small network of a family.
"""

import functools
import math

import flax.linen as nn
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import model_counts
import numpy as np
import pytest
import reparam_nets as nets
from reparam_nets import SHAPE, difference
from test_models import VARIANTS

from jaxkd import models, reparam, tree
from jaxkd.models.layers import Conv
from jaxkd.reparam import Axis

# One network of each kind of block that can have branches.
BRANCHED = ['resnet8', 'wrn_16_1', 'vgg8', 'imagenet_resnet50']
BRANCHED += ['mobilenet_v2', 'imagenet_mobilenet_v1', 'rvt_tiny']
BRANCHED += ['shufflenet_v1', 'shufflenet_v2', 'efficientnet_b0']


@functools.cache
def plan_of(student, teacher, image):
  return reparam.make_plan(student, teacher, image)


def pair(name, ratio, branches):
  """A catalogue network, the wider one, and the image's shape."""
  classes, image = model_counts.PROTOCOLS.get(name, model_counts.CIFAR)
  return *(
    models.build(name, classes, width=width, branches=branches)
    for width in (1, ratio)
  ), image


def check_axis(axis):
  """First copies are the narrow entries, and every copy is counted."""
  sources, copies = axis.sources, axis.copies
  np.testing.assert_array_equal(
    sources[axis.first_copies], np.arange(copies.size)
  )
  assert copies.size == sum(axis.narrow) and copies.sum() == sum(axis.wide)
  assert copies.min() >= 1
  assert axis.grows or np.array_equal(axis.first_copies, np.arange(copies.size))


def shared(plan):
  """How many numbers the narrow network has, and how many the wide one."""
  sizes = [
    [
      math.prod(sum(getattr(a, which)) for a in leaf.axes)
      for which in Axis._fields[:2]
    ]
    for leaf in plan.values()
  ]
  return tuple(np.sum(sizes, axis=0))


def slow_unless(quick, *case):
  """A case that is slow unless `quick`."""
  return pytest.param(*case, marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize(
  ('name', 'branches'),
  [
    slow_unless(name in model_counts.SHALLOW, name, 1)
    for name in sorted(set(models.CATALOG) - model_counts.FIXED)
  ]
  + [
    slow_unless(name in ('resnet8', 'imagenet_mobilenet_v1'), name, 6)
    for name in BRANCHED
  ],
)
def test_every_network_expands_to_twice_the_width(name, branches):
  student, teacher, image = pair(name, 2, branches)
  plan = plan_of(student, teacher, image)
  narrow, wide = shared(plan.params)
  bare = {
    path: leaf for path, leaf in plan.params.items() if 'branch_' not in path
  }
  biases = sum(  # those that come with branches
    leaf.axes[-1].narrow[0]
    for path, leaf in plan.params.items()
    if path.endswith('branch_scale')
    and path.replace('branch_scale', 'bias') in bare
  )
  without = shared(bare)[0]
  published = model_counts.COUNTS[name]
  assert without in (published, published + biases)
  assert narrow >= without and wide > 1.9 * narrow
  for path, leaf in (plan.params | plan.stats).items():
    for axis in leaf.axes:
      check_axis(axis)
      if axis.grows:
        assert axis.wide == tuple(2 * n for n in axis.narrow), path
  # The classes are not expanded.
  assert not plan.params['head/kernel'].axes[1].grows
  assert plan.params['head/kernel'].axes[0].is_input
  assert not plan.params['head/bias'].grows
  assert all(leaf.grows for leaf in plan.stats.values() if len(leaf.axes) == 1)


@pytest.mark.parametrize('name', VARIANTS)
def test_networks_without_a_norm_over_channels_expand_by_one_and_a_half(name):
  plan = plan_of(*pair(name, 1.5, 1))
  assert shared(plan.params)[0] == model_counts.COUNTS[name]
  uneven = [axis for x in plan.params.values() for axis in x.axes if axis.grows]
  assert uneven
  for axis in uneven:
    check_axis(axis)
    assert set(axis.copies) == {1, 2}


@pytest.mark.parametrize('name', ['rvt_tiny', 'vit_tiny'])
def test_a_network_with_layer_norm_needs_a_whole_ratio(name):
  student, teacher, image = pair(name, 4 / 3, 1)
  with pytest.raises(ValueError, match='norm.*/bias grows .*LayerNorm'):
    plan_of(student, teacher, image)


# Arithmetic


def both_modes(net, variables, image):
  return nets.forward(net)(variables, image), nets.forward(net, True)(
    variables, image
  )


@functools.cache
def narrow_results(family):
  net = nets.family(family)
  run = nets.compiled(functools.partial(both_modes, net))
  return run(nets.random_variables(net), nets.images())


@pytest.mark.parametrize(
  ('family', 'ratio'),
  [(family, 3) for family in nets.FAMILIES]
  + [
    slow_unless(family == 'mlp', family, 4)
    for family in ('mlp', 'mobilenet_v1', 'resnet', 'vgg', 'vit')
  ]
  + [
    slow_unless(family == 'bottleneck', family, 2)
    for family in ('bottleneck', 'mobilenet_v2', 'wide_resnet')
  ],
)
def test_an_expanded_network_has_the_narrow_networks_logits(family, ratio):
  """In train mode at 3, in eval mode otherwise; copied by NumPy."""
  narrow, wide = nets.family(family), nets.family(family, ratio)
  plan = reparam.make_plan(narrow, wide, SHAPE)
  train = ratio == 3
  results = nets.compiled(nets.forward(wide, train))(
    nets.copied(nets.random_variables(narrow), plan), nets.images()
  )
  want, (trained, stats) = narrow_results(family)
  if not train:
    assert difference(results, want) <= 1e-5
    return
  assert difference(results[0], trained) <= 1e-4
  moved = tree.leaves(results[1])
  for path, array in tree.leaves(stats).items():
    tiled = np.tile(array, moved[path].size // array.size)
    assert difference(moved[path], tiled) <= 1e-5, path


@pytest.mark.parametrize(
  ('family', 'ratio'), [('mobilenet_v2', 2), ('resnet', 3), ('rvt', 3)]
)
def test_expand_copies_and_extract_takes_the_first_copy(family, ratio):
  narrow, wide = nets.family(family), nets.family(family, ratio)
  plan = reparam.make_plan(narrow, wide, SHAPE)

  def maps(variables):
    grown = reparam.expand(variables, plan)
    return grown, reparam.extract(grown['params'], plan)

  variables = nets.random_variables(narrow)
  grown, again = nets.compiled(maps)(variables)
  exact = ratio == 2  # a half of a number is, a third is not
  for path, array in tree.leaves(nets.copied(variables, plan)).items():
    assert difference(tree.leaves(grown)[path], array) <= 2e-7, path
  for path, array in tree.leaves(variables['params']).items():
    got = tree.leaves(again)[path]
    assert difference(got, array) <= (0 if exact else 1e-6), path


@pytest.mark.parametrize('family', ['mobilenet_v2', 'rvt'])
def test_the_students_gradient_is_zero_outside_its_block(family):
  """And the logits of the extracted parameters are the student's."""
  narrow, wide = nets.family(family), nets.family(family, 2)
  plan = reparam.make_plan(narrow, wide, SHAPE)
  variables = nets.random_variables(narrow)

  def loss(params, image):
    student = {**variables, 'params': reparam.extract(params, plan)}
    out = nets.forward(narrow)(student, image)
    return jnp.mean(jnp.square(out)), out

  theta = nets.copied(variables, plan)['params']
  grads, out = nets.compiled(jax.grad(loss, has_aux=True))(theta, nets.images())
  assert difference(out, narrow_results(family)[0]) <= 1e-5
  for path, grad in tree.leaves(grads).items():
    grad = np.array(grad)
    inside = tuple(slice(a.narrow[0]) for a in plan.params[path].axes)
    assert np.any(grad[inside]), path
    grad[inside] = 0
    assert not np.any(grad), path


# Any small network


pieces = st.lists(st.integers(1, 6), min_size=1, max_size=3)


@hypothesis.given(pieces, st.integers(1, 4))
def test_copies_of_a_piece_are_adjacent(sizes, ratio):
  axis = Axis(tuple(sizes), tuple(ratio * n for n in sizes))
  check_axis(axis)
  starts = np.cumsum([0, *sizes])
  want = [
    np.tile(np.arange(n), ratio) + s
    for n, s in zip(sizes, starts, strict=False)
  ]
  np.testing.assert_array_equal(axis.sources, np.concatenate(want))
  assert axis.uniform and axis.grows == (ratio > 1)


@hypothesis.given(st.integers(1, 9), st.integers(0, 20))
def test_wide_channels_repeat_the_narrow_ones_in_order(narrow, more):
  axis = Axis((narrow,), (narrow + more,))
  check_axis(axis)
  np.testing.assert_array_equal(axis.sources, np.arange(narrow + more) % narrow)
  assert axis.uniform == (more % narrow == 0)


class Chain(nn.Module):
  """Convolutions with BatchNorm of any sizes; a sum where the sizes agree."""

  width: float
  layers: tuple  # (channels, stride, groups or 0 for depthwise)
  branches: int

  @nn.compact
  def __call__(self, x, train=False):
    for i, (channels, stride, depthwise) in enumerate(self.layers):
      c = x.shape[-1] if depthwise else round(channels * self.width)
      y = Conv(
        c,
        stride=stride,
        groups=c if depthwise else 1,
        branches=self.branches,
        name=f'conv{i}',
      )(x)
      y = nets.norm(train, f'norm{i}')(y)
      x = nn.relu(x + y if x.shape == y.shape else y)
    return nn.Dense(nets.CLASSES, name='head')(x.mean((1, 2)))


layers = st.tuples(st.integers(2, 4), st.integers(1, 2), st.booleans())


@pytest.mark.slow
@hypothesis.settings(max_examples=6)
@hypothesis.given(
  st.lists(layers, min_size=1, max_size=2),
  st.sampled_from([1, 2, 4, 6]),
  st.sampled_from([1.5, 2, 2.75, 3]),
)
def test_any_small_network_keeps_its_function_when_expanded(
  layers, branches, ratio
):
  layers = ((3, 1, False), *layers)
  narrow, wide = (Chain(w, layers, branches) for w in (1, ratio))
  plan = reparam.make_plan(narrow, wide, SHAPE)

  def whole(variables, image):
    grown = reparam.expand(variables, plan)
    again = reparam.extract(grown['params'], plan)
    results = [
      nets.forward(net)(v, image)
      for net, v in ((narrow, variables), (wide, grown))
    ]
    return *results, again

  variables = nets.random_variables(narrow)
  want, got, again = nets.compiled(whole)(variables, nets.images())
  assert difference(got, want) <= 1e-5
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
    again,
    variables['params'],
  )
