"""Networks whose channels lie in pieces: expanded, they keep their function."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
import reparam_nets as nets
from reparam_nets import SHAPE, difference

from jaxkd import models, reparam, tree
from jaxkd.models.resnet import BASIC, RESNEXT, ResNet
from jaxkd.models.resnet_cifar import PAD, ResNetCifar
from jaxkd.models.resnet_cifar import padded as shortcut
from jaxkd.reparam import Pieces

CHANNELS = (4, 4, 8, 16)


def padded(width=1.0, branches=1):
  return ResNetCifar(8, CHANNELS, nets.CLASSES, width, branches, shortcut=PAD)


def grouped(width=1.0, branches=1):
  channels = (4, 8, 16)
  settings = dict(width=width, branches=branches, groups=4)
  return ResNet(3, RESNEXT, (1, 1), channels, nets.CLASSES, **settings)


@pytest.mark.parametrize(
  ('make', 'ratio', 'branches', 'train'),
  [(padded, 2, 6, False), (padded, 1.5, 1, True), (grouped, 2, 4, False)],
)
def test_an_expanded_network_has_the_narrow_networks_logits(
  make, ratio, branches, train
):
  """And the narrow network is extracted from it."""
  narrow, wide = make(1, branches), make(ratio, branches)
  plan = reparam.make_plan(narrow, wide, SHAPE)

  def whole(variables, image):
    grown = reparam.expand(variables, plan)
    results = [
      nets.forward(net, train)(v, image)
      for net, v in ((narrow, variables), (wide, grown))
    ]
    return results, reparam.extract(grown['params'], plan)

  variables = nets.random_variables(narrow)
  (want, got), again = nets.compiled(whole)(variables, nets.images())
  if train:
    want, got = want[0], got[0]
  assert difference(got, want) <= 1e-5
  before, after = tree.leaves(variables['params']), tree.leaves(again)
  assert before.keys() == after.keys()
  for path, array in before.items():
    assert difference(after[path], array) <= 1e-6, path


def test_pieces_are_those_of_the_stages_before():
  plan = reparam.make_plan(padded(), padded(2), SHAPE)
  outputs, classes = plan.params['head/kernel'].axes
  assert outputs.narrow == (4, 2, 4, 2, 4) and outputs.wide == (8, 4, 8, 4, 8)
  assert outputs.is_input and not classes.grows
  inner = plan.params['stage2_block0/conv1/kernel'].axes
  assert inner[2].narrow == (4,) and inner[3].narrow == (8,)


def test_a_wrapped_network_has_its_pieces():
  narrow, wide = (models.wrap(padded(w), 'clip') for w in (1, 2))
  plan = reparam.make_plan(narrow, wide, SHAPE)
  (head,) = (x for path, x in plan.params.items() if 'head/kernel' in path)
  assert head.axes[0].narrow == (4, 2, 4, 2, 4)


class Bordered(nn.Module):
  """A network of another author: a channel of ones beside each third."""

  width: int = 1

  @nn.nowrap
  def channel_pieces(self):
    w = self.width
    return (Pieces('head', inputs=(3 * w, w)),)

  @nn.compact
  def __call__(self, x, train=False):
    x = nn.relu(nn.Dense(3 * self.width, name='first')(x.mean((1, 2))))
    x = jnp.pad(x, ((0, 0), (0, self.width)), constant_values=1)
    return nn.Dense(nets.CLASSES, name='head')(x)


def test_a_network_of_ones_own_states_its_pieces():
  narrow, wide = Bordered(), Bordered(3)
  plan = reparam.make_plan(narrow, wide, SHAPE)
  variables = nets.random_variables(narrow)
  grown = reparam.expand(variables, plan)
  want, got = (
    nets.forward(net)(v, nets.images())
    for net, v in ((narrow, variables), (wide, grown))
  )
  assert difference(got, want) <= 1e-6


@pytest.mark.parametrize('width', [0.3, 0.9])
def test_a_width_without_room_for_equal_zeros_is_refused(width):
  with pytest.raises(ValueError, match=f'width {width} of .* multiple of 1/8'):
    models.build('resnet20_a', 10, width=width)


def test_the_only_shortcuts_are_conv_and_pad():
  with pytest.raises(ValueError, match="'conv' or 'pad', got 'zeros'"):
    models.build('resnet20', 10, shortcut='zeros')


@pytest.mark.parametrize(('side', 'stride'), [(5, 2), (4, 2), (3, 1)])
def test_a_padded_shortcut_is_every_second_pixel_between_zeros(side, stride):
  x = np.random.default_rng(0).normal(size=(2, side, side, 4))
  want = np.zeros((2, -(-side // stride), -(-side // stride), 8))
  for i, j in np.ndindex(want.shape[1:3]):
    want[:, i, j, 2:6] = x[:, stride * i, stride * j]
  np.testing.assert_array_equal(
    shortcut(jnp.asarray(x, jnp.float32), 8, stride), want.astype(np.float32)
  )


def test_grouped_bottlenecks_expand_by_more_groups():
  def net(width):
    return models.build(
      'imagenet_resnext50', nets.CLASSES, width=width, branches=2
    )

  plan = reparam.make_plan(net(1 / 8), net(1 / 4), (32, 32, 3))
  kernel = plan.params['stage1_block0/conv2/kernel'].axes
  assert [sum(x.narrow) for x in kernel] == [3, 3, 4, 16]
  assert [sum(x.wide) for x in kernel] == [3, 3, 4, 32]
  with pytest.raises(ValueError, match='3.2 groups .* multiple of 1/32'):
    net(0.1)
  with pytest.raises(ValueError, match='basic blocks have no groups, got 4'):
    ResNet(3, BASIC, (1,), (4, 8), nets.CLASSES, groups=4)
