"""What the network families share: convolution, BatchNorm, initialisers.

Convolutions pad k // 2 zeros on both sides, as the reference networks do. XLA's
'SAME' pads only right and bottom when the stride is 2, which shifts the grid.
"""

import math
from collections.abc import Iterable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from jaxkd.types import Array

Initializer = nn.initializers.Initializer

# He et al. 2015 (https://arxiv.org/abs/1502.01852) with fan_out and without
# truncation: standard deviation sqrt(2 / (k k C_out)).
fan_out_normal = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')

# What PyTorch gives a layer that nobody initialises: U(+-1 / sqrt(fan_in)).
fan_in_uniform = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')


def bias_uniform(fan_in: int) -> Initializer:
  """Returns PyTorch's default for a bias: U(+-1 / sqrt(fan_in))."""
  bound = 1 / math.sqrt(fan_in)

  def init(key, shape, dtype=jnp.float32):
    return nn.initializers.uniform(2 * bound)(key, shape, dtype) - bound

  return init


def widen(channels: Iterable[int], width: float) -> tuple[int, ...]:
  """Returns every entry of `channels` times `width`.

  Args:
    channels: channel counts of the plain network.
    width: the multiplier, usually an integer.

  Raises:
    ValueError: a product is not a positive whole number.
  """
  channels = tuple(channels)
  wide = tuple(round(c * width) for c in channels)
  if min(wide) < 1 or any(
    w != c * width for c, w in zip(channels, wide, strict=True)
  ):
    raise ValueError(
      f'width {width} does not turn the channels {channels} into whole '
      'numbers; use an integer, or a fraction that divides all of them'
    )
  return wide


class Conv(nn.Module):
  """k x k convolution with k // 2 zeros around the map, NHWC.

  Attributes:
    features: output channels.
    size: k, odd.
    stride: the same along H and W.
    groups: feature groups; `features` is also the depthwise case.
    use_bias: adds a bias, zero at the start.
    kernel_init: of the kernel [k, k, C / groups, features].
    dtype: compute type; parameters are float32.
  """

  features: int
  size: int = 3
  stride: int = 1
  groups: int = 1
  use_bias: bool = False
  kernel_init: Initializer = fan_out_normal
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Returns the map [B, ceil(H / stride), ceil(W / stride), features]."""
    shape = (self.size, self.size, x.shape[-1] // self.groups, self.features)
    kernel = self.param('kernel', self.kernel_init, shape, jnp.float32)
    x = lax.conv_general_dilated(
      x.astype(self.dtype),
      kernel.astype(self.dtype),
      window_strides=(self.stride, self.stride),
      padding=[(self.size // 2, self.size // 2)] * 2,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=self.groups,
    )
    if self.use_bias:
      bias = self.param('bias', nn.initializers.zeros, (self.features,))
      x = x + bias.astype(self.dtype).reshape(1, 1, 1, -1)
    return x


def batch_norm(train: bool, dtype: Any, name: str) -> nn.BatchNorm:
  """Returns BatchNorm with PyTorch's constants (its momentum 0.1 is 0.9 here).

  Statistics are float32 whatever `dtype` is. Deviation: the running variance
  averages the biased batch variance, as Flax does; PyTorch averages the
  unbiased one, n / (n - 1) times larger with n = B H W.
  """
  return nn.BatchNorm(
    use_running_average=not train,
    momentum=0.9,
    epsilon=1e-5,
    dtype=dtype,
    name=name,
  )


def global_average(x: Array) -> Array:
  """Returns the mean over H and W, [B, C], in float32."""
  return jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
