"""ConvNeXt (Liu et al., CVPR 2022), https://arxiv.org/abs/2201.03545.

As in the authors' code and in torchvision, with layer scale (Touvron et al.,
ICCV 2021, https://arxiv.org/abs/2103.17239) and stochastic depth.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxkd.models.attention import EPSILON, MLP_RATIO, layer_norm, normal_002
from jaxkd.models.layers import Conv, check_rate, global_average, widen
from jaxkd.types import Array, Outputs

# Blocks of each stage, and their channels.
TINY = (3, 3, 9, 3), (96, 192, 384, 768)
SMALL = (3, 3, 27, 3), (96, 192, 384, 768)
BASE = (3, 3, 27, 3), (128, 256, 512, 1024)
SIZE = 7  # of the depthwise kernels
LAYER_SCALE = 1e-6  # the initial value


class Block(nn.Module):
  """Depthwise 7 x 7 convolution, LayerNorm, and an MLP with exact GELU.

  Attributes:
    drop_path: probability that an example skips the block in training.
    dtype: compute type.
  """

  drop_path: float
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """Returns a map [B, H, W, D] for the map [B, H, W, D]."""
    d = x.shape[-1]
    dense = partial(nn.Dense, kernel_init=normal_002, dtype=self.dtype)
    depthwise = Conv(
      d,
      SIZE,
      groups=d,
      use_bias=True,
      kernel_init=normal_002,
      dtype=self.dtype,
      name='depthwise',
    )
    y = layer_norm(self.dtype, 'norm')(depthwise(x))
    y = nn.gelu(dense(MLP_RATIO * d, name='fc1')(y), approximate=False)
    y = dense(d, name='fc2')(y)
    init = nn.initializers.constant(LAYER_SCALE)
    gamma = self.param('gamma', init, (d,), jnp.float32)
    y = y * gamma.astype(self.dtype).reshape(1, 1, 1, -1)
    skip = nn.Dropout(self.drop_path, broadcast_dims=(1, 2, 3))
    return x + skip(y, deterministic=not train)


class ConvNeXt(nn.Module):
  """Patches of 4 x 4 pixels, and stages with a halving in between.

  Taps are maps [B, H, W, D]: 'stem' is the input of the first block, 'stage<i>'
  the output of the last block of stage i. No activation follows, so there are
  no '_pre' taps. 'pooled' is the spatial mean of the last map after the last
  LayerNorm. Rows and columns that are left over by a patch or a halving are
  ignored. In train mode it needs a key 'dropout', unless the rate is 0.

  Attributes:
    blocks: number of blocks of each stage.
    channels: D of each stage.
    num_classes: K.
    width: multiplier of every channel count.
    branches: ignored, because there is no 3 x 3 convolution.
    dtype: compute type; parameters, LayerNorms, pooling and head are float32.
    drop_path: rate of stochastic depth of the last block; that of the others
      rises linearly from 0.
    stem: side of a patch.
    last_epsilon: of the last LayerNorm; that of most networks of Hugging Face
      is 1e-12.
  """

  blocks: tuple[int, ...]
  channels: tuple[int, ...]
  num_classes: int
  width: float = 1
  branches: int = 1
  dtype: Any = jnp.float32
  drop_path: float = 0.1
  stem: int = 4
  last_epsilon: float = EPSILON

  def __post_init__(self):
    """Checks the sizes before anything is traced."""
    if len(self.channels) != len(self.blocks):
      raise ValueError(
        f'a ConvNeXt has channels for each stage, got {self.channels} for'
        f' stages of {self.blocks} blocks'
      )
    if self.stem < 1:
      raise ValueError(f'stem must be at least 1 pixel, got {self.stem}')
    widen(self.channels, self.width)
    check_rate(self.drop_path, 'drop_path')
    super().__post_init__()

  @nn.compact
  def __call__(self, image: Array, train: bool = False) -> Outputs:
    """Returns logits [B, K] and taps of the image [B, H, W, C]."""
    self._check_sides(image)
    taps, channels = {}, widen(self.channels, self.width)
    x = self._patches(image, channels[0], self.stem, 'conv_stem')
    x = taps['stem'] = layer_norm(self.dtype, 'norm_stem')(x)
    number, total = 0, sum(self.blocks)
    for i, (count, features) in enumerate(
      zip(self.blocks, channels, strict=True), start=1
    ):
      if i > 1:
        x = layer_norm(self.dtype, f'stage{i}_norm')(x)
        x = self._patches(x, features, 2, f'stage{i}_halve')
      for j in range(count):
        rate = self.drop_path * number / max(1, total - 1)
        block = Block(rate, self.dtype, name=f'stage{i}_block{j}')
        x, number = block(x, train), number + 1
      taps[f'stage{i}'] = x
    norm = layer_norm(jnp.float32, 'norm_last', self.last_epsilon)
    x = taps['pooled'] = norm(global_average(x))
    head = nn.Dense(self.num_classes, kernel_init=normal_002, name='head')
    return Outputs(head(x), taps)

  def _patches(self, x: Array, features: int, size: int, name: str) -> Array:
    """Convolution of patches that do not overlap, with bias."""
    return nn.Conv(
      features,
      (size, size),
      strides=size,
      padding='VALID',
      kernel_init=normal_002,
      dtype=self.dtype,
      name=name,
    )(x)

  def _check_sides(self, image: Array) -> None:
    """Checks that the last stage has pixels."""
    least = self.stem * 2 ** (len(self.blocks) - 1)
    h, w = image.shape[1:3]
    if min(h, w) < least:
      raise ValueError(
        f'an image of {h} x {w} is too small for a ConvNeXt of'
        f' {len(self.blocks)} stages with stem {self.stem}, which needs'
        f' {least} x {least}: resize the image, or set `stem` to at most'
        f' {max(1, self.stem * min(h, w) // least)}'
      )
