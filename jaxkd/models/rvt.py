"""Robust Vision Transformers (Mao et al. 2022), without the '*' additions.

https://arxiv.org/abs/2105.07926: a convolutional stem, no class token and no
position embedding, a depthwise convolution in every MLP, and average pooling.
The additions of RVT*, position-aware attention scaling and patch-wise
augmentation, are absent, as are dropout and stochastic depth. As in the
authors' code, no ReLU follows the stem's BatchNorm.

Deviations: biases before a BatchNorm are initialised with zero, not with
PyTorch's default, which does not change outputs in train mode; the MLP always
has its convolution, which the authors' code leaves out if D = 768.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxkd.models.attention import (
  MLP_RATIO,
  Attention,
  check_sides,
  layer_norm,
  widen_heads,
)
from jaxkd.models.layers import (
  BatchNorm,
  Conv,
  bias_uniform,
  fan_in_uniform,
  global_average,
  head,
  overlapping_max_pool,
  widen,
)
from jaxkd.types import Array, Outputs

STEM = 32  # channels of the first convolution
STEM_STRIDE = 4  # total stride of that convolution and the max pooling


class ConvMLP(nn.Module):
  """1 x 1, depthwise 3 x 3 and 1 x 1 convolution, each with BatchNorm."""

  branches: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """Returns a map [B, H, W, D] for the map [B, H, W, D]."""
    conv = partial(
      Conv, use_bias=True, kernel_init=fan_in_uniform, dtype=self.dtype
    )
    hidden, gelu = MLP_RATIO * x.shape[-1], partial(nn.gelu, approximate=False)
    y = conv(hidden, size=1, name='fc1')(x)
    y = gelu(BatchNorm(self.dtype, name='bn1')(y, train))
    y = conv(hidden, groups=hidden, branches=self.branches, name='depthwise')(y)
    y = gelu(BatchNorm(self.dtype, name='bn2')(y, train))
    y = conv(x.shape[-1], size=1, name='fc2')(y)
    return BatchNorm(self.dtype, name='bn3')(y, train)


class Block(nn.Module):
  """Attention over all pixels and an MLP, both pre-norm and residual."""

  heads: int
  head_dim: int
  branches: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """Returns a map [B, H, W, D] for the map [B, H, W, D]."""
    b, _, _, d = x.shape
    attention = Attention(
      self.heads,
      self.head_dim,
      kernel_init=fan_in_uniform,
      bias_init=bias_uniform(d),
      dtype=self.dtype,
      name='attention',
    )
    y = layer_norm(self.dtype, 'norm1')(x)
    x = x + attention(y.reshape(b, -1, d)).reshape(x.shape)
    y = layer_norm(self.dtype, 'norm2')(x)
    return x + ConvMLP(self.branches, self.dtype, name='mlp')(y, train)


class RVT(nn.Module):
  """A convolutional stem and stages of blocks, with downsampling in between.

  Taps are maps [B, H, W, D], at first with H / patch x W / patch pixels: 'stem'
  is the input of the first block, 'stage<i>' the output of the last block of
  stage i. No activation follows, so there are no '_pre' taps. 'pooled' is the
  spatial mean of the last map after the last LayerNorm.

  Attributes:
    blocks: number of blocks of each stage.
    heads: attention heads of each stage's blocks.
    head_dim: channels of a head; D = heads * head_dim.
    num_classes: K.
    width: multiplier of the stem's channels and of the number of heads, hence
      of D.
    branches: number of branches of each depthwise 3 x 3 convolution with stride
      1.
    dtype: compute type; parameters, softmax, pooling and head are float32.
    patch: stride of the stem, a multiple of 4; both sides of the image are
      multiples of it.
  """

  blocks: tuple[int, ...]
  heads: tuple[int, ...]
  head_dim: int
  num_classes: int
  width: float = 1
  branches: int = 1
  dtype: Any = jnp.float32
  patch: int = 16

  def __post_init__(self):
    """Checks the sizes before anything is traced."""
    widen_heads(self.heads, self.width)
    widen((STEM,), self.width)
    if self.patch < STEM_STRIDE or self.patch % STEM_STRIDE:
      raise ValueError(
        f'patch of an RVT must be a multiple of {STEM_STRIDE}, got {self.patch}'
      )
    super().__post_init__()

  @nn.compact
  def __call__(self, image: Array, train: bool = False) -> Outputs:
    """Returns logits [B, K] and taps of the image [B, H, W, C]."""
    taps, all_heads = {}, widen_heads(self.heads, self.width)
    x = taps['stem'] = self.stem(image, all_heads[0] * self.head_dim, train)
    for i, (count, heads) in enumerate(
      zip(self.blocks, all_heads, strict=True), start=1
    ):
      if i > 1:
        x = self.downsample(x, heads * self.head_dim, f'stage{i}_pool')
      for j in range(count):
        name = f'stage{i}_block{j}'
        block = Block(
          heads, self.head_dim, self.branches, self.dtype, name=name
        )
        x = block(x, train)
      taps[f'stage{i}'] = x
    x = layer_norm(jnp.float32, 'norm_last')(global_average(x))
    taps['pooled'] = x
    return Outputs(head(x, self.num_classes), taps)

  def stem(self, image: Array, features: int, train: bool) -> Array:
    """Returns the map [B, H / patch, W / patch, features] of the image."""
    check_sides(image, self.patch)
    (stem,) = widen((STEM,), self.width)
    x = self.conv(image, stem, 7, stride=2, padding=2, name='conv_stem')
    x = BatchNorm(self.dtype, name='bn_stem')(x, train)
    x = overlapping_max_pool(x)
    rest = self.patch // STEM_STRIDE
    return self.conv(x, features, rest, stride=rest, name='embed')

  def downsample(self, x: Array, features: int, name: str) -> Array:
    """Depthwise convolution with stride 2, [B, ~H / 2, ~W / 2, features]."""
    size = 3
    conv = Conv(
      features,
      size,
      stride=2,
      groups=x.shape[-1],
      use_bias=True,
      kernel_init=fan_in_uniform,
      bias_init=bias_uniform(size**2),
      dtype=self.dtype,
      name=name,
    )
    return conv(x)

  def conv(
    self,
    x: Array,
    features: int,
    size: int,
    *,
    stride: int,
    padding: int = 0,
    name: str,
  ) -> Array:
    """Convolution with bias, with PyTorch's initialisers and any padding."""
    return nn.Conv(
      features,
      (size, size),
      strides=stride,
      padding=padding,
      kernel_init=fan_in_uniform,
      bias_init=bias_uniform(size**2 * x.shape[-1]),
      dtype=self.dtype,
      name=name,
    )(x)
