"""ViT (Dosovitskiy et al. 2021) and DeiT (Touvron et al. 2021).

https://arxiv.org/abs/2010.11929, https://arxiv.org/abs/2012.12877. As in timm,
a DeiT without a distillation token is the ViT of the same size, with the same
initialisation; only the training differs. One with a distillation token is in
`deit`. Dropout and stochastic depth, which belong to the training, are absent.
"""

from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from jaxkd.models.attention import (
  EPSILON,
  MLP_RATIO,
  Attention,
  check_sides,
  layer_norm,
  normal_002,
  widen_heads,
)
from jaxkd.models.layers import bias_uniform, fan_in_uniform
from jaxkd.types import Array, Outputs


class Block(nn.Module):
  """Attention and an MLP with exact GELU, both pre-norm and residual."""

  heads: int
  head_dim: int
  dtype: Any = jnp.float32
  epsilon: float = EPSILON

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Returns tokens [B, N, D] for the tokens [B, N, D]."""
    d = x.shape[-1]
    norm = partial(layer_norm, self.dtype, epsilon=self.epsilon)
    dense = partial(nn.Dense, kernel_init=normal_002, dtype=self.dtype)
    attention = Attention(
      self.heads, self.head_dim, dtype=self.dtype, name='attention'
    )
    x = x + attention(norm('norm1')(x))
    y = dense(MLP_RATIO * d, name='fc1')(norm('norm2')(x))
    y = dense(d, name='fc2')(nn.gelu(y, approximate=False))
    return x + y


class ViT(nn.Module):
  """Patches, a class token, learned positions, and pre-norm blocks.

  Taps are tokens [B, N, D] with N = 1 + H W / patch², the class token first:
  'stem' is the input of the first block, 'stage<i>' the output of the last
  block of stage i. No activation follows, so there are no '_pre' taps. 'pooled'
  is the class token after the last LayerNorm. The position embedding is for the
  image size that `init` is called with.

  Attributes:
    blocks: number of blocks of each stage; stages only determine the taps.
    heads: attention heads of each block.
    head_dim: channels of a head; D = heads * head_dim.
    num_classes: K.
    width: multiplier of the number of heads, hence of D.
    branches: ignored, because there is no 3 x 3 convolution.
    dtype: compute type; parameters, softmax, pooling and head are float32.
    patch: side of a patch; both sides of the image are multiples of it.
    epsilon: of the LayerNorms; timm's and torchvision's is 1e-6, that of most
      networks of Hugging Face 1e-12.
  """

  blocks: tuple[int, ...]
  heads: int
  head_dim: int
  num_classes: int
  width: float = 1
  branches: int = 1
  dtype: Any = jnp.float32
  patch: int = 16
  epsilon: float = EPSILON

  # Learned tokens in front of the patches.
  TOKENS: ClassVar[tuple[str, ...]] = ('class_token',)

  def __post_init__(self):
    """Checks the sizes before anything is traced."""
    widen_heads((self.heads,), self.width)
    if self.patch < 1:
      raise ValueError(f'patch must be at least 1 pixel, got {self.patch}')
    super().__post_init__()

  @nn.compact
  def __call__(self, image: Array, train: bool = False) -> Outputs:
    """Returns logits [B, K] and taps of the image [B, H, W, C]."""
    del train  # train and eval mode are the same
    (heads,) = widen_heads((self.heads,), self.width)
    taps = {}
    x = taps['stem'] = self.tokens(image, heads * self.head_dim)
    for i, count in enumerate(self.blocks, start=1):
      for j in range(count):
        name = f'stage{i}_block{j}'
        x = Block(heads, self.head_dim, self.dtype, self.epsilon, name=name)(x)
      taps[f'stage{i}'] = x
    norm = layer_norm(jnp.float32, 'norm_last', self.epsilon)
    return self.classified(norm(x[:, : len(self.TOKENS)]), taps)

  def classified(self, x: Array, taps: dict[str, Array]) -> Outputs:
    """Returns logits [B, K] and taps of the learned tokens [B, n, D]."""
    x = taps['pooled'] = x[:, 0]
    return Outputs(self.head('head')(x), taps)

  def head(self, name: str) -> nn.Dense:
    """Returns a linear classifier."""
    return nn.Dense(self.num_classes, kernel_init=normal_002, name=name)

  def tokens(self, image: Array, features: int) -> Array:
    """Returns the learned tokens and the embedded patches, [B, N, D]."""
    check_sides(image, self.patch)
    embed = nn.Conv(
      features,
      (self.patch, self.patch),
      strides=self.patch,
      padding='VALID',
      kernel_init=fan_in_uniform,
      bias_init=bias_uniform(self.patch**2 * image.shape[-1]),
      dtype=self.dtype,
      name='embed',
    )
    x = embed(image)
    b, d = x.shape[0], features  # b may be symbolic
    x = x.reshape(b, -1, d)
    inits = (nn.initializers.normal(1e-6), normal_002)  # as timm's
    first = [
      self.param(name, init, (1, 1, d), jnp.float32)
      for name, init in zip(self.TOKENS, inits, strict=False)
    ]
    first = [jnp.broadcast_to(y.astype(self.dtype), (b, 1, d)) for y in first]
    x = jnp.concatenate([*first, x], axis=1)
    shape = (1, x.shape[1], d)
    position = self.param('position_embedding', normal_002, shape, jnp.float32)
    return x + position.astype(self.dtype)
