"""ShuffleNets: grouped or split convolutions, and channel shuffles.

ShuffleNetV1 (Zhang et al. 2018, https://arxiv.org/abs/1707.01083) and V2 (Ma et
al. 2018, https://arxiv.org/abs/1807.11164) for small images, as in the
distillation benchmark (CRD, Tian et al. 2020). Deviations of the benchmark from
the papers: a 1 x 1 stem of stride 1 without pooling and, in V1, a ReLU after
the depthwise convolutions.

A network of width r has r replicas of the channels at width 1, one after the
other. It shuffles, splits and concatenates within each replica, and its 1 x 1
convolutions connect all replicas.
"""

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxkd.models.grouped import grouped
from jaxkd.models.layers import (
  BatchNorm,
  fan_in_uniform,
  global_average,
  head,
  normed,
  overlapping_average_pool,
)
from jaxkd.models.norms import record_norm
from jaxkd.types import Array, Outputs

Stages = tuple[tuple[int, int], ...]  # channels and number of units of stages

# The published networks of width 1.
SHUFFLE_V1 = (3, 24, ((240, 4), (480, 8), (960, 4)))  # groups, stem, stages
SHUFFLE_V2 = (24, ((116, 4), (232, 8), (464, 4)), 1024)  # stem, stages, last
HALVES = 2  # groups of the shuffle of V2
BOTTLENECK = 4  # output channels of V1's units over those of their bottleneck


def replicas_of(width: float) -> int:
  """Returns the number of replicas of a network of some width.

  Raises:
    ValueError: not a whole number.
  """
  if width < 1 or width != math.floor(width):
    raise ValueError(
      f'width of a ShuffleNet must be a whole number of at least 1, got {width}'
    )
  return int(width)


def check_groups(groups: int, stem: int, stages: Stages) -> None:
  """Checks that all channel counts of a ShuffleNetV1 can be grouped.

  Raises:
    ValueError: a convolution whose channels are not a multiple of `groups`.
  """
  before = stem
  for features, _ in stages:
    for outputs in (features - before, features):  # of a stage's units
      for channels in (outputs // BOTTLENECK, outputs):
        if channels < 1 or channels % groups:
          raise ValueError(
            f'convolutions of {channels} channels, in a stage of {features}'
            f' after {before}, cannot have {groups} groups'
          )
    before = features


def check_halves(stages: Stages) -> None:
  """Checks that all channel counts of a ShuffleNetV2 can be halved.

  Raises:
    ValueError: a stage with an odd number of channels.
  """
  for features, _ in stages:
    if features < 1 or features % HALVES:
      raise ValueError(
        'the channels of a stage of a ShuffleNetV2 must be an even number, got'
        f' {features}: its units split them into halves'
      )


def by_replica(x: Array, replicas: int, *sizes: int) -> Array:
  """Reshapes channels [..., r C] to [..., r, *sizes]."""
  return x.reshape(*x.shape[:-1], replicas, *sizes)


def shuffle(x: Array, groups: int, replicas: int = 1) -> Array:
  """Channel shuffle within each replica, [..., r C] -> [..., r C].

  Channel j of group i moves from i C / groups + j to j groups + i. A shuffle
  with C / groups groups is the inverse.

  Args:
    x: [..., r C].
    groups: number of groups of C channels.
    replicas: r.
  """
  y = by_replica(x, replicas, groups, -1)
  return jnp.swapaxes(y, -1, -2).reshape(x.shape)


def halves(x: Array, replicas: int) -> tuple[Array, Array]:
  """Splits each replica into halves, 2 x [..., r C / 2]."""
  parts = jnp.split(by_replica(x, replicas, -1), HALVES, axis=-1)
  first, second = (part.reshape(*x.shape[:-1], -1) for part in parts)
  return first, second


def concatenate(maps: Iterable[Array], replicas: int) -> Array:
  """Concatenates the channels of maps within each replica."""
  parts = [by_replica(x, replicas, -1) for x in maps]
  y = jnp.concatenate(parts, axis=-1)
  return y.reshape(*y.shape[:-2], -1)


def apply_stages(
  stages: Stages,
  unit: Callable[[Array, int, int, int], Array],
  activation: Callable[[Array], Array],
  x: Array,
) -> tuple[Array, dict[str, Array]]:
  """Applies the units of all stages, each followed by the activation.

  Args:
    stages: channels and number of units of each stage.
    unit: applies a unit, (map, stage from 1, unit from 0, channels) -> map.
    activation: map -> map.
    x: the input of the first stage.

  Returns:
    The last map, and the taps 'stage<i>_pre' and 'stage<i>' of each stage.
  """
  taps = {}
  for i, (features, n) in enumerate(stages, start=1):
    for j in range(n):
      x = taps[f'stage{i}_pre'] = unit(x, i, j, features)
      x = activation(x)
    taps[f'stage{i}'] = x
  return x, taps


class GroupedConv(nn.Module):
  """1 x 1 convolution whose groups contain their channels of all replicas.

  With more replicas, groups become larger, not more: r g groups would make r
  networks that are connected only in the head. (Not called `groups`: those of
  `Conv` are contiguous.)

  Attributes:
    features: output channels of all replicas.
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
    """Returns a map [B, H, W, features] for the map [B, H, W, r C]."""
    shape = (1, 1, x.shape[-1] // self.num_groups, self.features)
    kernel = self.param('kernel', fan_in_uniform, shape, jnp.float32)
    x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
    return _grouped(x, kernel, self.num_groups, self.replicas)


# One call, so that `reparam.channels` finds a layer.
@partial(jax.jit, static_argnums=(2, 3))
def _grouped(x: Array, kernel: Array, groups: int, replicas: int) -> Array:
  """Returns the products of each group of channels, see `GroupedConv`."""
  inputs = kernel.shape[2] // replicas
  kernel = kernel.reshape(replicas, inputs, replicas, groups, -1)
  y = grouped(by_replica(x, replicas, groups, -1), kernel)
  return y.reshape(*x.shape[:-1], -1)


class UnitV1(nn.Module):
  """A bottleneck with grouped convolutions, without the last ReLU.

  Attributes:
    features: output channels of a replica; with stride 2, they include the
      average-pooled input.
    groups: of the last 1 x 1 convolution.
    first_groups: of the first 1 x 1 convolution and of the shuffle after it.
    stride: of the 3 x 3 convolution, 1 or 2.
    replicas: r.
    branches: number of branches of the 3 x 3 convolution if its stride is 1.
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
      return concatenate([y, overlapping_average_pool(x)], r)
    return x + y


class UnitV2(nn.Module):
  """Convolutions of one half, without the last ReLU and the shuffle.

  Attributes:
    features: output channels of a replica.
    stride: 1: half of the channels are passed on unchanged; 2: both halves of
      the output depend on the whole input.
    replicas: r.
    branches: number of branches of the 3 x 3 convolution if its stride is 1.
    dtype: compute type.
  """

  features: int
  stride: int = 1
  replicas: int = 1
  branches: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """Returns both halves, concatenated, [B, H / stride, W / stride, r C']."""
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
      left, y = halves(x, r)
    else:
      left = depthwise(x, 'left_depthwise')
      left, y = layer(left, name='left_pointwise', features=half), x
    y = nn.relu(layer(y, name='pointwise1', features=half))
    y = layer(depthwise(y, 'depthwise'), name='pointwise2', features=half)
    return concatenate([left, y], r)


class ShuffleNetV1(nn.Module):
  """A 1 x 1 stem and stages that start with stride 2.

  Attributes:
    groups: of the 1 x 1 convolutions, except the first one of the first unit,
      which has few input channels.
    stem: channels of the stem.
    stages: channels and number of units of each stage.
    num_classes: K.
    width: r, the number of replicas of every channel, a whole number.
    branches: number of branches of each 3 x 3 convolution with stride 1.
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
    """Checks the sizes before anything is traced."""
    replicas_of(self.width)
    check_groups(self.groups, self.stem, self.stages)
    super().__post_init__()

  @nn.compact
  def __call__(self, image: Array, train: bool = False) -> Outputs:
    """Returns logits [B, K] and taps of the image [B, H, W, C]."""
    r = replicas_of(self.width)
    settings: dict[str, Any] = dict(branches=self.branches, dtype=self.dtype)
    layer = partial(normed, kernel_init=fan_in_uniform, **settings)

    def apply_unit(x, i, j, features):
      unit = UnitV1(
        features,
        self.groups,
        first_groups=1 if i == 1 and j == 0 else self.groups,
        stride=2 if j == 0 else 1,
        replicas=r,
        name=f'stage{i}_block{j}',
        **settings,
      )
      y = unit(x, train)
      if j > 0:  # a part of the first unit's output is not normalised
        record_norm(
          self, f'stage{i}_pre', unit.variables['params']['bn_expand']
        )
      return y

    stem = nn.relu(layer(image, train, 'stem', r * self.stem))
    x, taps = apply_stages(self.stages, apply_unit, nn.relu, stem)
    taps = {'stem': stem, **taps, 'pooled': global_average(x)}
    return Outputs(head(taps['pooled'], self.num_classes), taps)


class ShuffleNetV2(nn.Module):
  """A 1 x 1 stem, stages that start with stride 2, and a 1 x 1 convolution.

  As in the benchmark, the taps 'stage<i>_pre' are not shuffled: their channels
  have another order than those of 'stage<i>'.

  Attributes:
    stem: channels of the stem.
    stages: channels and number of units of each stage.
    last: channels of the 1 x 1 convolution after the stages.
    num_classes: K.
    width: r, the number of replicas of every channel, a whole number.
    branches: number of branches of each 3 x 3 convolution with stride 1.
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
    """Checks the sizes before anything is traced."""
    replicas_of(self.width)
    check_halves(self.stages)
    super().__post_init__()

  @nn.compact
  def __call__(self, image: Array, train: bool = False) -> Outputs:
    """Returns logits [B, K] and taps of the image [B, H, W, C]."""
    r = replicas_of(self.width)
    settings: dict[str, Any] = dict(branches=self.branches, dtype=self.dtype)
    layer = partial(normed, kernel_init=fan_in_uniform, **settings)

    def apply_unit(x, i, j, features):
      stride, name = 2 if j == 0 else 1, f'stage{i}_block{j}'
      return UnitV2(features, stride, r, name=name, **settings)(x, train)

    def activation(x):  # the unchanged half is not negative already
      return shuffle(nn.relu(x), HALVES, r)

    stem = nn.relu(layer(image, train, 'stem', r * self.stem))
    x, taps = apply_stages(self.stages, apply_unit, activation, stem)
    x = nn.relu(layer(x, train, 'last', r * self.last))
    taps = {'stem': stem, **taps, 'pooled': global_average(x)}
    return Outputs(head(taps['pooled'], self.num_classes), taps)
