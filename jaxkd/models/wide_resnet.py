"""Wide ResNets (Zagoruyko and Komodakis 2016).

https://arxiv.org/abs/1605.07146, without dropout. As in the distillation
benchmark (CRD, Tian et al. 2020): the tap of a stage is the sum at its end, and
the '_pre' tap is that sum after the next stage's first BatchNorm. It is the
same array that the next stage uses, so the statistics are updated once.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxkd.models.layers import (
  BatchNorm,
  Conv,
  blocks_per_stage,
  fan_in_uniform,
  global_average,
  widen,
)
from jaxkd.models.norms import record_norm
from jaxkd.types import Array, Outputs

CHANNELS = (16, 16, 32, 64)  # of the stem, and of the stages at factor 1
# Convolutions outside the blocks: the stem and three shortcuts.
FAMILY, OTHERS = 'wide ResNet', 4


class Block(nn.Module):
  """Pre-activation block: BatchNorm, ReLU, convolution, twice; a shortcut."""

  features: int
  stride: int = 1
  branches: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array, train: bool) -> tuple[Array, Array]:
    """Returns the sum, and the normalised input before its ReLU."""

    def conv(name, size=3, stride=1, branch_bias=True):
      settings: dict[str, Any] = dict(
        branches=self.branches, branch_bias=branch_bias
      )
      return Conv(
        self.features, size, stride, **settings, dtype=self.dtype, name=name
      )

    normed = BatchNorm(self.dtype, name='bn1')(x, train)
    active = nn.relu(normed)
    y = conv('conv1', stride=self.stride)(active)
    y = nn.relu(BatchNorm(self.dtype, name='bn2')(y, train))
    y = conv('conv2', branch_bias=False)(y)  # no BatchNorm before the sum
    if x.shape[-1] != self.features:
      x = conv('conv_shortcut', 1, self.stride)(active)
    return x + y, normed


class WideResNet(nn.Module):
  """A stem and three stages of n blocks with strides 1, 2, 2.

  Attributes:
    depth: 6n + 4.
    factor: the k of wrn_d_k, which multiplies the channels of the stages.
    num_classes: K.
    width: multiplier of every channel count, including the stem's.
    branches: number of branches of each 3 x 3 convolution with stride 1.
    dtype: compute type; parameters, pooling and head are float32.
  """

  depth: int
  factor: int
  num_classes: int
  width: float = 1
  branches: int = 1
  dtype: Any = jnp.float32

  def __post_init__(self):
    """Checks the sizes before anything is traced."""
    blocks_per_stage(FAMILY, self.depth, OTHERS)
    widen(CHANNELS, self.width)
    super().__post_init__()

  @nn.compact
  def __call__(self, image: Array, train: bool = False) -> Outputs:
    """Returns logits [B, K] and taps of the image [B, H, W, C]."""
    stem, *stages = widen(CHANNELS, self.width)
    taps = {}
    settings: dict[str, Any] = dict(branches=self.branches, dtype=self.dtype)
    x = Conv(stem, branch_bias=False, **settings, name='conv_stem')(image)
    taps['stem'] = x
    for i, features in enumerate(stages, start=1):
      for j in range(blocks_per_stage(FAMILY, self.depth, OTHERS)):
        stride = 2 if i > 1 and j == 0 else 1
        name = f'stage{i}_block{j}'
        block = Block(features * self.factor, stride, **settings, name=name)
        x, normed = block(x, train)
        if i > 1 and j == 0:
          taps[f'stage{i - 1}_pre'] = normed
          record_norm(
            self, f'stage{i - 1}_pre', block.variables['params']['bn1']
          )
      taps[f'stage{i}'] = x
    last = BatchNorm(self.dtype, name='bn_last')
    x = taps['stage3_pre'] = last(x, train)
    record_norm(self, 'stage3_pre', last.variables['params'])
    x = taps['pooled'] = global_average(nn.relu(x))
    head = nn.Dense(self.num_classes, kernel_init=fan_in_uniform, name='head')
    return Outputs(head(x), taps)
