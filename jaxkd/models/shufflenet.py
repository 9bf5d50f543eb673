"""ShuffleNets: convolutions of a part of the channels, and shuffles.

ShuffleNetV1 (Zhang et al. 2018, https://arxiv.org/abs/1707.01083) and V2 (Ma et
al. 2018, https://arxiv.org/abs/1807.11164) for small images, as in the
distillation benchmark (CRD, Tian et al. 2020). Deviations of the benchmark from
the papers: a 1 x 1 stem of stride 1 without pooling and, in V1, a ReLU behind
the depthwise convolutions.

A network of width r is made of r replicas of the plain one's channels, one
after the other. It shuffles, splits and concatenates within each of them, and
its 1 x 1 convolutions read and write all of them.
"""

import math
from collections.abc import Iterable
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from jaxkd.models.layers import (
  BatchNorm,
  fan_in_uniform,
  global_average,
  head,
  normed,
)
from jaxkd.models.norms import record_norm
from jaxkd.types import Array, Outputs

Stages = tuple[tuple[int, int], ...]  # channels and units of each stage

# The published networks of width 1.
SHUFFLE_V1 = (3, 24, ((240, 4), (480, 8), (960, 4)))  # groups, stem, stages
SHUFFLE_V2 = (24, ((116, 4), (232, 8), (464, 4)), 1024)  # stem, stages, last
HALVES = 2  # groups of the shuffle of V2
BOTTLENECK = 4  # the output of V1's units over their depthwise convolution


def whole(width: float) -> int:
  """Returns how many replicas of the plain network's channels a width is.

  Raises:
    ValueError: not a whole number, under which a wide network could not shuffle
      the copies of a narrow one's channels as the narrow one does.
  """
  if width < 1 or width != math.floor(width):
    raise ValueError(
      'the channels of a ShuffleNet are repeated as a whole, so that its width'
      f' is 1, 2, 3, ..., got {width}'
    )
  return int(width)


def check_groups(groups: int, stem: int, stages: Stages) -> None:
  """Refuses channels that the groups of ShuffleNetV1 cannot share.

  Raises:
    ValueError: a convolution with other than a multiple of `groups`.
  """
  before = stem
  for features, _ in stages:
    for outputs in (features - before, features):  # of a stage's units
      for channels in (outputs // BOTTLENECK, outputs):
        if channels < 1 or channels % groups:
          raise ValueError(
            f'a stage of {features} channels after {before} has convolutions of'
            f' {channels} channels, which {groups} groups cannot share'
          )
    before = features


def check_halves(stages: Stages) -> None:
  """Refuses channels that have no halves.

  Raises:
    ValueError: a stage with an odd number of them.
  """
  for features, _ in stages:
    if features < 1 or features % HALVES:
      raise ValueError(
        'the units of a ShuffleNetV2 halve their channels, which have to be an'
        f' even number, got a stage of {features}'
      )


def by_replica(x: Array, replicas: int, *sizes: int) -> Array:
  """Splits channels [..., r C] into replicas and these axes of C."""
  return x.reshape(*x.shape[:-1], replicas, *sizes)


def shuffle(x: Array, groups: int, replicas: int = 1) -> Array:
  """Deals the groups of each replica out in turn, [..., r C] -> [..., r C].

  Channel j of group i moves from i C / groups + j to j groups + i. As many
  groups as a group has channels undo it.

  Args:
    x: [..., r C].
    groups: that make up the C channels.
    replicas: r.
  """
  y = by_replica(x, replicas, groups, -1)
  return jnp.swapaxes(y, -1, -2).reshape(x.shape)


def halves(x: Array, replicas: int) -> tuple[Array, Array]:
  """Returns both halves of each replica, [..., r C / 2]."""
  parts = jnp.split(by_replica(x, replicas, -1), HALVES, axis=-1)
  first, second = (part.reshape(*x.shape[:-1], -1) for part in parts)
  return first, second


def concatenate(maps: Iterable[Array], replicas: int) -> Array:
  """Returns the maps' channels next to each other in each replica."""
  parts = [by_replica(x, replicas, -1) for x in maps]
  y = jnp.concatenate(parts, axis=-1)
  return y.reshape(*y.shape[:-2], -1)


def average_pool(x: Array) -> Array:
  """Returns the mean around every second pixel, [B, ~H / 2, ~W / 2, C].

  Windows are 3 x 3; the zeros outside the map count.
  """
  window, strides = (1, 3, 3, 1), (1, 2, 2, 1)
  padding = ((0, 0), (1, 1), (1, 1), (0, 0))
  return lax.reduce_window(x, 0.0, lax.add, window, strides, padding) / 9


class GroupedConv(nn.Module):
  """1 x 1 convolution whose groups each gather their channels of all replicas.

  A matrix product for each group: on a CPU (64 images, sizes of V1) one batched
  product takes 1.6 times as long, and the gradient of XLA's own grouped
  convolution 2 to 14 times as long as that.
  With more replicas there are not more groups but larger ones: r g groups would
  make r networks that meet in the head alone. The attribute is called as that
  of flax's GroupNorm, because the groups of `Conv` lie next to each other.

  Attributes:
    features: output channels, of all replicas.
    num_groups: g.
    replicas: r.
    dtype: compute type; parameters are float32.
  """

  features: int
  num_groups: int
  replicas: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Returns [B, H, W, features] of the map [B, H, W, r C]."""
    r, g = self.replicas, self.num_groups
    shape = (1, 1, x.shape[-1] // g, self.features)
    kernel = self.param('kernel', fan_in_uniform, shape, jnp.float32)
    kernel = kernel.astype(self.dtype).reshape(shape[2], r, g, -1)
    x = by_replica(x.astype(self.dtype), r, g, -1)
    positions = x.shape[:-3]
    maps = [
      jnp.tensordot(x[..., i, :].reshape(*positions, -1), kernel[:, :, i], 1)
      for i in range(g)
    ]
    return jnp.stack(maps, axis=-2).reshape(*positions, self.features)


class UnitV1(nn.Module):
  """A bottleneck with grouped convolutions; the last ReLU is the caller's.

  Attributes:
    features: output channels of a replica; with stride 2, those of the input,
      averaged, are among them.
    groups: of the last 1 x 1 convolution.
    first_groups: of the first 1 x 1 convolution and of the shuffle behind it.
    stride: of the 3 x 3 convolution, 1 or 2.
    replicas: r.
    branches: of the 3 x 3 convolution if its stride is 1.
    dtype: compute type.
  """

  features: int
  groups: int
  first_groups: int
  stride: int = 1
  replicas: int = 1
  branches: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """Returns the map before its ReLU, [B, H / stride, W / stride, r C']."""
    r = self.replicas

    def grouped(x, name, features, groups):
      conv = GroupedConv(
        features, groups, r, dtype=self.dtype, name=f'conv_{name}'
      )
      return BatchNorm(self.dtype, name=f'bn_{name}')(conv(x), train)

    outer = r * self.features
    if self.stride == 2:
      outer -= x.shape[-1]
    inner = r * (outer // r // BOTTLENECK)
    y = nn.relu(grouped(x, 'reduce', inner, self.first_groups))
    y = normed(
      shuffle(y, self.first_groups, r),
      train,
      'depthwise',
      inner,
      size=3,
      stride=self.stride,
      groups=inner,
      kernel_init=fan_in_uniform,
      branches=self.branches,
      dtype=self.dtype,
    )
    y = grouped(nn.relu(y), 'expand', outer, self.groups)
    if self.stride == 2:
      return concatenate([y, average_pool(x)], r)
    return x + y


class UnitV2(nn.Module):
  """Convolutions of one half; the last ReLU and the shuffle are the caller's.

  Attributes:
    features: output channels of a replica.
    stride: 1, and half of the channels stay as they are; or 2, and both halves
      of the output are made of the whole input.
    replicas: r.
    branches: of the 3 x 3 convolution if its stride is 1.
    dtype: compute type.
  """

  features: int
  stride: int = 1
  replicas: int = 1
  branches: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """Returns both halves, [B, H / stride, W / stride, r C']."""
    layer = partial(
      normed,
      train=train,
      kernel_init=fan_in_uniform,
      branches=self.branches,
      dtype=self.dtype,
    )
    r, half = self.replicas, self.replicas * self.features // HALVES

    def depthwise(x, name):
      c = x.shape[-1]
      return layer(
        x, name=name, features=c, size=3, stride=self.stride, groups=c
      )

    if self.stride == 1:
      kept, y = halves(x, r)
    else:
      kept = depthwise(x, 'left_depthwise')
      kept, y = layer(kept, name='left_pointwise', features=half), x
    y = nn.relu(layer(y, name='pointwise1', features=half))
    y = layer(depthwise(y, 'depthwise'), name='pointwise2', features=half)
    return concatenate([kept, y], r)


class ShuffleNetV1(nn.Module):
  """A 1 x 1 stem and stages that begin with stride 2.

  Attributes:
    groups: of the 1 x 1 convolutions, but not of the very first unit's first
      one, which has few channels to read.
    stem: channels of the stem.
    stages: channels and units of each stage.
    num_classes: K.
    width: r, a whole number: how often every channel is there.
    branches: of each 3 x 3 convolution of stride 1.
    dtype: compute type; parameters, pooling and head are float32.
  """

  groups: int
  stem: int
  stages: Stages
  num_classes: int
  width: float = 1
  branches: int = 1
  dtype: Any = jnp.float32

  def __post_init__(self):
    """Refuses an impossible size before anything is traced."""
    whole(self.width)
    check_groups(self.groups, self.stem, self.stages)
    super().__post_init__()

  @nn.compact
  def __call__(self, image: Array, train: bool = False) -> Outputs:
    """Returns logits [B, K] and taps of the image [B, H, W, C]."""
    r, taps = whole(self.width), {}
    settings: dict[str, Any] = dict(branches=self.branches, dtype=self.dtype)
    layer = partial(normed, kernel_init=fan_in_uniform, **settings)
    x = nn.relu(layer(image, train, 'stem', r * self.stem))
    taps['stem'] = x
    for i, (features, n) in enumerate(self.stages, start=1):
      for j in range(n):
        unit = UnitV1(
          features,
          self.groups,
          first_groups=1 if i == 1 and j == 0 else self.groups,
          stride=2 if j == 0 else 1,
          replicas=r,
          name=f'stage{i}_block{j}',
          **settings,
        )
        x = taps[f'stage{i}_pre'] = unit(x, train)  # the last unit's stays
        if j > 0:  # the first one's output is not all normalised
          record_norm(
            self, f'stage{i}_pre', unit.variables['params']['bn_expand']
          )
        x = nn.relu(x)
      taps[f'stage{i}'] = x
    x = taps['pooled'] = global_average(x)
    return Outputs(head(x, self.num_classes), taps)


class ShuffleNetV2(nn.Module):
  """A 1 x 1 stem, stages that begin with stride 2, and a 1 x 1 convolution.

  The taps 'stage1_pre', ... are not shuffled, as in the benchmark: their
  channels stand in another order than those of 'stage1', ...

  Attributes:
    stem: channels of the stem.
    stages: channels and units of each stage.
    last: channels of the 1 x 1 convolution after the stages.
    num_classes: K.
    width: r, a whole number: how often every channel is there.
    branches: of each 3 x 3 convolution of stride 1.
    dtype: compute type; parameters, pooling and head are float32.
  """

  stem: int
  stages: Stages
  last: int
  num_classes: int
  width: float = 1
  branches: int = 1
  dtype: Any = jnp.float32

  def __post_init__(self):
    """Refuses an impossible size before anything is traced."""
    whole(self.width)
    check_halves(self.stages)
    super().__post_init__()

  @nn.compact
  def __call__(self, image: Array, train: bool = False) -> Outputs:
    """Returns logits [B, K] and taps of the image [B, H, W, C]."""
    r, taps = whole(self.width), {}
    settings: dict[str, Any] = dict(branches=self.branches, dtype=self.dtype)
    layer = partial(normed, kernel_init=fan_in_uniform, **settings)
    x = nn.relu(layer(image, train, 'stem', r * self.stem))
    taps['stem'] = x
    for i, (features, n) in enumerate(self.stages, start=1):
      for j in range(n):
        stride, name = 2 if j == 0 else 1, f'stage{i}_block{j}'
        unit = UnitV2(features, stride, r, name=name, **settings)
        x = taps[f'stage{i}_pre'] = unit(x, train)  # the last unit's stays
        # What a unit has kept is rectified already.
        x = shuffle(nn.relu(x), HALVES, r)
      taps[f'stage{i}'] = x
    x = nn.relu(layer(x, train, 'last', r * self.last))
    x = taps['pooled'] = global_average(x)
    return Outputs(head(x, self.num_classes), taps)
