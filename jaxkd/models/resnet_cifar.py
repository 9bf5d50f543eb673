"""ResNets for 32 x 32 images (He et al. 2016, section 4.2).

https://arxiv.org/abs/1512.03385. A shortcut that changes the shape is a 1 x 1
convolution with BatchNorm (option B of the paper), as in the distillation
benchmark (CRD, Tian et al. 2020), or every second pixel with zeros as the new
channels (option A, the paper's choice for these images; 'resnet20_a').
'resnet8x4' has four times as many channels, in the stem twice as many.
"""

import itertools
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
from jaxkd.reparam import Pieces
from jaxkd.types import Array, Outputs

# Layers outside the blocks: the stem and the head.
FAMILY, OTHERS = 'CIFAR ResNet', 2
CONV, PAD = 'conv', 'pad'  # shortcuts that change the shape


def padded(x: Array, features: int, stride: int) -> Array:
  """The shortcut without parameters: fewer pixels, more channels.

  Args:
    x: [B, H, W, C].
    features: C', at least C; C' - C is even.
    stride: of the pixels that are kept, beginning with the first one.

  Returns:
    [B, ceil(H / stride), ceil(W / stride), C']; half of the new channels, which
    are zeros, are in front of the old ones and half behind them.
  """
  zeros = (features - x.shape[-1]) // 2
  return jnp.pad(
    x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (zeros, zeros))
  )


class Block(nn.Module):
  """Two 3 x 3 convolutions and a shortcut, without the last ReLU."""

  features: int
  stride: int = 1
  branches: int = 1
  dtype: Any = jnp.float32
  shortcut: str = CONV

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
    if self.stride == 1 and x.shape[-1] == self.features:
      return x + y
    if self.shortcut == PAD:
      x = padded(x, self.features, self.stride)
    else:
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
    shortcut: where the shape changes: `CONV`, a 1 x 1 convolution, or `PAD`,
      zeros, for which the channels have to double from stage to stage.
  """

  depth: int
  channels: tuple[int, ...]
  num_classes: int
  width: float = 1
  branches: int = 1
  dtype: Any = jnp.float32
  shortcut: str = CONV

  def __post_init__(self):
    """Checks the sizes before anything is traced."""
    blocks_per_stage(FAMILY, self.depth, OTHERS)
    channels = widen(self.channels, self.width)
    if self.shortcut not in (CONV, PAD):
      raise ValueError(
        f'shortcut must be {CONV!r} or {PAD!r}, got {self.shortcut!r}'
      )
    if self.shortcut == PAD:
      for before, features in itertools.pairwise(channels):
        if features != before and (features != 2 * before or before % 2):
          raise ValueError(
            f'shortcut={PAD!r} needs stages with equally many channels or twice'
            f' as many, in even numbers; width {self.width} of'
            f' {self.channels} is {channels}: use a multiple of 1/8'
          )
    super().__post_init__()

  @nn.nowrap
  def channel_pieces(self) -> tuple[Pieces, ...]:
    """Where zeros lie between channels, for `jaxkd.reparam.make_plan`."""
    if self.shortcut != PAD:
      return ()
    stem, *stages = widen(self.channels, self.width)
    before = sizes = (stem,)
    pieces = []
    for i, features in enumerate(stages, start=1):
      if features != sum(before):
        zeros = (features - sum(before)) // 2
        sizes = (zeros, *before, zeros)
      first, stage = f'stage{i}_block0', f'stage{i}_block'
      pieces += [
        Pieces(f'{first}/conv1', inputs=before),
        Pieces(rf'{stage}\d+/conv1', inputs=sizes),
        Pieces(rf'{stage}\d+/(conv2|bn2)', outputs=sizes),
      ]
      before = sizes
    return (*pieces, Pieces('head', inputs=before))

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
        block = Block(
          features, stride, **settings, shortcut=self.shortcut, name=name
        )
        x = taps[f'stage{i}_pre'] = block(x, train)  # the last block's stays
        record_norm(self, f'stage{i}_pre', block.variables['params']['bn2'])
        x = nn.relu(x)
      taps[f'stage{i}'] = x
    x = taps['pooled'] = global_average(x)
    return Outputs(head(x, self.num_classes), taps)
