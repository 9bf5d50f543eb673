"""Layers that the vision transformers share: attention, LayerNorm, heads.

Heads have an axis of their own in every array of the attention, and a wider
network has more heads of the same size. LayerNorm has timm's epsilon; its
statistics and the softmax are float32.
"""

import math
from collections.abc import Iterable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxkd.models.layers import Initializer
from jaxkd.types import Array

MLP_RATIO = 4  # hidden channels of a block's MLP over D
EPSILON = 1e-6  # of every LayerNorm, added to the variance

# timm truncates it at +-2, which is 100 standard deviations.
normal_002 = nn.initializers.normal(0.02)


def widen_heads(heads: Iterable[int], width: float) -> tuple[int, ...]:
  """Returns every entry of `heads` times `width`.

  Args:
    heads: numbers of attention heads at width 1.
    width: the multiplier, usually an integer.

  Raises:
    ValueError: a product is not a positive whole number.
  """
  heads = tuple(heads)
  wide = tuple(round(h * width) for h in heads)
  whole = all(w == h * width for h, w in zip(heads, wide, strict=True))
  if min(wide) < 1 or not whole:
    least = math.gcd(*heads)
    raise ValueError(
      f'width {width} times the attention heads {heads} must be whole numbers:'
      f' use a multiple of 1 / {least}'
    )
  return wide


def check_sides(image: Array, patch: int) -> None:
  """Checks that the sides of an image [B, H, W, C] are multiples of `patch`.

  Raises:
    ValueError: H or W is not a multiple of `patch`.
  """
  h, w = image.shape[1:3]
  if h % patch or w % patch:
    raise ValueError(
      f'an image of {h} x {w} cannot be divided into patches of {patch} x'
      f' {patch}: resize it to multiples of {patch}, or set `patch` to a'
      f' divisor of {math.gcd(h, w)}'
    )


def layer_norm(dtype: Any, name: str, epsilon: float = EPSILON) -> nn.LayerNorm:
  """Returns a LayerNorm over the last axis, with results in `dtype`."""
  return nn.LayerNorm(
    epsilon=epsilon, dtype=dtype, use_fast_variance=False, name=name
  )


class Attention(nn.Module):
  """Multi-head self-attention (Vaswani et al. 2017), [B, N, D] -> [B, N, D].

  https://arxiv.org/abs/1706.03762. The kernels are 'qkv' [D, 3, heads,
  head_dim] and 'out' [heads, head_dim, D].

  Attributes:
    heads: number of heads.
    head_dim: channels of a head; the attention logits are divided by its square
      root.
    kernel_init: initialiser of both kernels.
    bias_init: initialiser of both biases.
    dtype: compute type; attention logits and softmax are float32.
  """

  heads: int
  head_dim: int
  kernel_init: Initializer = normal_002
  bias_init: Initializer = nn.initializers.zeros
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Returns tokens [B, N, D]."""
    dense = partial(
      nn.DenseGeneral,
      kernel_init=self.kernel_init,
      bias_init=self.bias_init,
      dtype=self.dtype,
    )
    qkv = dense((3, self.heads, self.head_dim), name='qkv')(x)
    q, k, v = jnp.moveaxis(qkv, 2, 0)
    y = jax.nn.dot_product_attention(q, k, v)
    return dense(x.shape[-1], axis=(-2, -1), name='out')(y)
