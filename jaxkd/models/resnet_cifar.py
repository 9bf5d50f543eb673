"""ResNets for 32 x 32 images (He et al. 2016, section 4.2).

https://arxiv.org/abs/1512.03385. As in the distillation benchmark (CRD, Tian et
al. 2020): a shortcut that changes the shape is a 1 x 1 convolution with
BatchNorm instead of zero padding; 'resnet8x4' has four times as many channels,
in the stem twice as many.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxkd.models.layers import (
  BatchNorm,
  Conv,
  blocks_per_stage,
  global_average,
  head,
  widen,
)
from jaxkd.models.norms import record_norm
from jaxkd.types import Array, Outputs

# Layers outside the blocks: the stem and the head.
FAMILY, OTHERS = 'CIFAR ResNet', 2


class Block(nn.Module):
  """Two 3 x 3 convolutions and a shortcut, without the last ReLU."""

  features: int
  stride: int = 1
  branches: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """Returns the sum before its ReLU, [B, H / stride, W / stride, C]."""

    def conv(name, size=3, stride=1):
      settings: dict[str, Any] = dict(branches=self.branches, dtype=self.dtype)
      return Conv(self.features, size, stride, **settings, name=name)

    def bn(name):
      return partial(BatchNorm(self.dtype, name=name), train=train)

    y = nn.relu(bn('bn1')(conv('conv1', stride=self.stride)(x)))
    y = bn('bn2')(conv('conv2')(y))
    if self.stride != 1 or x.shape[-1] != self.features:
      x = bn('bn_shortcut')(conv('conv_shortcut', 1, self.stride)(x))
    return x + y


class ResNetCifar(nn.Module):
  """A stem and three stages of n blocks with strides 1, 2, 2.

  Attributes:
    depth: 6n + 2.
    channels: of the stem and of the three stages.
    num_classes: K.
    width: multiplier of every channel count.
    branches: number of branches of each 3 x 3 convolution with stride 1.
    dtype: compute type; parameters, pooling and head are float32.
  """

  depth: int
  channels: tuple[int, ...]
  num_classes: int
  width: float = 1
  branches: int = 1
  dtype: Any = jnp.float32

  def __post_init__(self):
    """Checks the sizes before anything is traced."""
    blocks_per_stage(FAMILY, self.depth, OTHERS)
    widen(self.channels, self.width)
    super().__post_init__()

  @nn.compact
  def __call__(self, image: Array, train: bool = False) -> Outputs:
    """Returns logits [B, K] and taps of the image [B, H, W, C]."""
    stem, *stages = widen(self.channels, self.width)
    taps = {}
    settings: dict[str, Any] = dict(branches=self.branches, dtype=self.dtype)
    x = Conv(stem, **settings, name='conv_stem')(image)
    x = nn.relu(BatchNorm(self.dtype, name='bn_stem')(x, train))
    taps['stem'] = x
    for i, features in enumerate(stages, start=1):
      for j in range(blocks_per_stage(FAMILY, self.depth, OTHERS)):
        stride = 2 if i > 1 and j == 0 else 1
        name = f'stage{i}_block{j}'
        block = Block(features, stride, **settings, name=name)
        x = taps[f'stage{i}_pre'] = block(x, train)  # the last block's stays
        record_norm(self, f'stage{i}_pre', block.variables['params']['bn2'])
        x = nn.relu(x)
      taps[f'stage{i}'] = x
    x = taps['pooled'] = global_average(x)
    return Outputs(head(x, self.num_classes), taps)
