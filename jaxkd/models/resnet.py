"""ResNets with four stages, for large and for small images (He et al. 2016).

https://arxiv.org/abs/1512.03385. As in torchvision: a shortcut that changes the
shape is a 1 x 1 convolution with BatchNorm, and the stride of a bottleneck is
in its 3 x 3 convolution, not in the first 1 x 1 convolution. For small images,
as in the distillation benchmark (CRD, Tian et al. 2020), the stem does not
reduce the resolution. A ResNeXt (Xie et al. 2017,
https://arxiv.org/abs/1611.05431) has more channels in its 3 x 3 convolutions,
in groups.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxkd.models.layers import (
  BatchNorm,
  Conv,
  global_average,
  head,
  overlapping_max_pool,
  widen,
)
from jaxkd.models.norms import record_norm
from jaxkd.types import Array, Outputs

CHANNELS = (64, 64, 128, 256, 512)  # of the stem and of the stages
# The 3 x 3 convolutions of ResNeXt-50 32x4d, in 32 groups.
RESNEXT_CHANNELS = (64, 128, 256, 512, 1024)
# Expansion: a block's output channels over those of its 3 x 3 convolution.
BASIC, RESNEXT, BOTTLENECK = 1, 2, 4
STRIDE = {3: 1, 7: 2}  # of the stem, by the size of its kernel


def widened_groups(groups: int, width: float, channels: Sequence[int]) -> int:
  """Returns the number of groups at a width, which keeps their sizes.

  Args:
    groups: at width 1; 1 is one group at any width.
    width: the multiplier.
    channels: of the grouped convolutions, at this width.

  Raises:
    ValueError: there would be parts of groups.
  """
  if groups == 1:
    return 1
  wide = groups * width
  if wide != int(wide) or any(c % wide for c in channels):
    raise ValueError(
      f'width {width} makes {wide:g} groups of convolutions with'
      f' {tuple(channels)} channels: use a multiple of 1/{groups}'
    )
  return int(wide)


class Block(nn.Module):
  """Two 3 x 3 convolutions or a bottleneck, without the last ReLU.

  Attributes:
    features: channels of the 3 x 3 convolutions.
    expansion: `BASIC`, `RESNEXT` or `BOTTLENECK`: output channels over
      `features`.
    stride: of the block's first 3 x 3 convolution.
    branches: number of branches of each 3 x 3 convolution with stride 1.
    dtype: compute type.
    groups: of a bottleneck's 3 x 3 convolution.
  """

  features: int
  expansion: int
  stride: int = 1
  branches: int = 1
  dtype: Any = jnp.float32
  groups: int = 1

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """Returns the sum before its ReLU, [B, H / stride, W / stride, C]."""

    def normed(x, name, features, size, stride=1, groups=1):
      conv = partial(Conv, branches=self.branches, dtype=self.dtype)
      x = conv(features, size, stride, groups, name=f'conv{name}')(x)
      return BatchNorm(self.dtype, name=f'bn{name}')(x, train)

    inner, outer = self.features, self.features * self.expansion
    if self.expansion == BASIC:
      y = nn.relu(normed(x, 1, inner, 3, self.stride))
      y = normed(y, 2, outer, 3)
    else:
      y = nn.relu(normed(x, 1, inner, 1))
      y = nn.relu(normed(y, 2, inner, 3, self.stride, self.groups))
      y = normed(y, 3, outer, 1)
    if self.stride != 1 or x.shape[-1] != outer:
      x = normed(x, '_shortcut', outer, 1, self.stride)
    return x + y


class ResNet(nn.Module):
  """A stem and stages of blocks with strides 1, 2, 2, 2.

  Attributes:
    stem: kernel size of the stem: 3, or 7 with stride 2 and max pooling.
    expansion: `BASIC`, `RESNEXT` or `BOTTLENECK` blocks.
    blocks: number of blocks of each stage.
    channels: of the stem, and of the 3 x 3 convolutions of each stage.
    num_classes: K.
    width: multiplier of every channel count.
    branches: number of branches of each 3 x 3 convolution with stride 1.
    dtype: compute type; parameters, pooling and head are float32.
    groups: of the 3 x 3 convolutions of bottlenecks, at width 1; a wider
      network has more groups of the same size.
  """

  stem: int
  expansion: int
  blocks: tuple[int, ...]
  channels: tuple[int, ...]
  num_classes: int
  width: float = 1
  branches: int = 1
  dtype: Any = jnp.float32
  groups: int = 1

  def __post_init__(self):
    """Checks the sizes before anything is traced."""
    if self.stem not in STRIDE:
      raise ValueError(f'the stem of a ResNet has size 3 or 7, got {self.stem}')
    if len(self.channels) != 1 + len(self.blocks):
      raise ValueError(
        'a ResNet has channels for the stem and for each stage, got '
        f'{self.channels} for stages of {self.blocks} blocks'
      )
    channels = widen(self.channels, self.width)
    if self.groups > 1 and self.expansion == BASIC:
      raise ValueError(
        f'basic blocks have no groups, got {self.groups}: use bottlenecks'
      )
    widened_groups(self.groups, self.width, channels[1:])
    super().__post_init__()

  @nn.compact
  def __call__(self, image: Array, train: bool = False) -> Outputs:
    """Returns logits [B, K] and taps of the image [B, H, W, C]."""
    first, *stages = widen(self.channels, self.width)
    settings: dict[str, Any] = dict(branches=self.branches, dtype=self.dtype)
    groups = widened_groups(self.groups, self.width, stages)
    taps = {}
    conv = Conv(
      first, self.stem, STRIDE[self.stem], name='conv_stem', **settings
    )
    x = nn.relu(BatchNorm(self.dtype, name='bn_stem')(conv(image), train))
    taps['stem'] = x
    if STRIDE[self.stem] == 2:
      x = overlapping_max_pool(x)
    for i, (features, n) in enumerate(zip(stages, self.blocks, strict=True), 1):
      for j in range(n):
        stride = 2 if i > 1 and j == 0 else 1
        name = f'stage{i}_block{j}'
        block = Block(
          features,
          self.expansion,
          stride,
          groups=groups,
          name=name,
          **settings,
        )
        x = taps[f'stage{i}_pre'] = block(x, train)  # the last block's stays
        last = 'bn2' if self.expansion == BASIC else 'bn3'
        record_norm(self, f'stage{i}_pre', block.variables['params'][last])
        x = nn.relu(x)
      taps[f'stage{i}'] = x
    x = taps['pooled'] = global_average(x)
    return Outputs(head(x, self.num_classes), taps)
