"""What the network families share: convolution, BatchNorm, initialisers.

Convolutions pad k // 2 zeros on both sides, as the reference networks do. XLA's
'SAME' pads only right and bottom when the stride is 2, which shifts the grid.
"""

import math
from collections.abc import Iterable
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from jaxkd.models.depthwise import depthwise
from jaxkd.reparam import branches as branching
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
  """Returns every entry of `channels` times `width`, as a whole number.

  Equal entries give equal results, so what can be added stays so.

  Args:
    channels: channel counts of the plain network.
    width: the multiplier.

  Raises:
    ValueError: nothing would be left of an entry.
  """
  channels = tuple(channels)
  wide = tuple(round(c * width) for c in channels)
  if any(c < 1 for c in wide):
    raise ValueError(
      f'width {width} leaves no channel of {min(channels)}; the least is'
      f' {1 / min(channels):.3g}'
    )
  return wide


class Conv(nn.Module):
  """k x k convolution with k // 2 zeros around the map, NHWC.

  Attributes:
    features: output channels.
    size: k, odd.
    stride: the same along H and W.
    groups: feature groups; if as many as input channels, see `depthwise`.
    use_bias: adds a bias.
    branches: M of parallel kernels (see `jaxkd.reparam.branches`); only a 3 x 3
      convolution of stride 1 has them.
    branch_bias: a convolution with branches has a bias, as in the published
      code; false where no BatchNorm follows that could take it up.
    kernel_init: of the kernel [k, k, C / groups, features].
    bias_init: of the bias [features], if there is one.
    dtype: compute type; parameters are float32.
  """

  features: int
  size: int = 3
  stride: int = 1
  groups: int = 1
  use_bias: bool = False
  branches: int = 1
  branch_bias: bool = True
  kernel_init: Initializer = fan_out_normal
  bias_init: Initializer = nn.initializers.zeros
  dtype: Any = jnp.float32

  def __post_init__(self):
    """Refuses an impossible number of branches before anything is traced."""
    branching.check(self.branches)
    super().__post_init__()

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Returns the map [B, ceil(H / stride), ceil(W / stride), features]."""
    shape = (self.size, self.size, x.shape[-1] // self.groups, self.features)
    kernel = self.param('kernel', self.kernel_init, shape, jnp.float32)
    branched = self.branches > 1 and self.size == 3 and self.stride == 1
    if branched:
      kernel = branching.merged({'kernel': kernel, **self._branches(shape)})
    x = self._convolved(x.astype(self.dtype), kernel.astype(self.dtype))
    if self.use_bias or (branched and self.branch_bias):
      bias = self.param('bias', self.bias_init, (self.features,))
      x = x + bias.astype(self.dtype).reshape(1, 1, 1, -1)
    return x

  def _convolved(self, x: Array, kernel: Array) -> Array:
    """Returns the map convolved with a kernel, both of the compute type."""
    if 1 < self.groups == x.shape[-1]:
      return depthwise(x, kernel, self.stride)
    return lax.conv_general_dilated(
      x,
      kernel,
      window_strides=(self.stride, self.stride),
      padding=[(self.size // 2, self.size // 2)] * 2,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=self.groups,
    )

  def _branches(self, shape: tuple[int, ...]) -> dict[str, Array]:
    """Returns what branches add to the kernel of a shape."""
    learned = branching.parameters(self.branches, shape, self.groups)
    fixed = branching.constants(self.branches, shape, self.groups)
    return {
      name: self.param(name, init, size)
      for name, (init, size) in learned.items()
    } | {
      name: self.variable('batch_stats', name, lambda x=value: x).value
      for name, value in fixed.items()
    }


class BatchNorm(nn.Module):
  """BatchNorm with PyTorch's constants and Flax's names: NHWC -> NHWC.

  The result is x * a + b with one pair (a, b) per channel, so that the gradient
  is two sums per channel; that of `nn.BatchNorm` has more, and takes two to
  four times as long on a CPU. Statistics are float32 whatever `dtype` is.

  Deviation: the running variance averages the biased batch variance, as Flax
  does; PyTorch averages the unbiased one, n / (n - 1) times larger with
  n = B H W.

  Attributes:
    dtype: compute type of the result.
    momentum: of the running statistics; PyTorch calls 0.9 momentum 0.1.
    epsilon: added to the variance.
  """

  dtype: Any = jnp.float32
  momentum: float = 0.9
  epsilon: float = 1e-5

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """Returns [B, H, W, C]; with `train`, moves 'mean' and 'var'."""
    shape = x.shape[-1:]
    scale = self.param('scale', nn.initializers.ones, shape, jnp.float32)
    bias = self.param('bias', nn.initializers.zeros, shape, jnp.float32)
    zeros, ones = partial(jnp.zeros, shape), partial(jnp.ones, shape)
    running_mean = self.variable('batch_stats', 'mean', zeros)
    running_var = self.variable('batch_stats', 'var', ones)
    x = x.astype(jnp.float32)
    mean, var = running_mean.value, running_var.value
    if train:
      mean = jnp.mean(x, axis=(0, 1, 2))
      # The mean minimises this sum, so no gradient flows through it.
      center = lax.stop_gradient(mean).reshape(1, 1, 1, -1)
      var = jnp.mean(jnp.square(x - center), axis=(0, 1, 2))
      if not self.is_initializing():
        old, new = self.momentum, 1 - self.momentum
        running_mean.value = old * running_mean.value + new * mean
        running_var.value = old * running_var.value + new * var
    scale = scale * lax.rsqrt(var + self.epsilon)
    bias = bias - mean * scale
    x = x * scale.reshape(1, 1, 1, -1) + bias.reshape(1, 1, 1, -1)
    return x.astype(self.dtype)


def normed(
  x: Array,
  train: bool,
  name: str,
  features: int,
  size: int = 1,
  stride: int = 1,
  **kwargs: Any,
) -> Array:
  """Returns convolution 'conv_<name>' and then BatchNorm 'bn_<name>' of x.

  Args:
    x: [B, H, W, C].
    train: as of a network.
    name: of the pair, in the module whose method calls this.
    features: output channels.
    size: of the kernel.
    stride: the same along H and W.
    **kwargs: further attributes of `Conv`, with 'dtype'.
  """
  conv = Conv(features, size, stride, name=f'conv_{name}', **kwargs)
  return BatchNorm(kwargs['dtype'], name=f'bn_{name}')(conv(x), train)


def max_pool(x: Array) -> Array:
  """Returns the maximum of each 2 x 2 window, [B, H // 2, W // 2, C].

  A maximum of four slices, because the gradient of `nn.max_pool` is ten times
  slower on a CPU. Windows do not overlap; an odd last row or column is left
  out. Entries that tie share the gradient.
  """
  b, h, w, c = x.shape
  h, w = h // 2, w // 2
  x = x[:, : 2 * h, : 2 * w].reshape(b, h, 2, w, 2, c)
  x = jnp.maximum(x[:, :, 0], x[:, :, 1])
  return jnp.maximum(x[:, :, :, 0], x[:, :, :, 1])


def overlapping_max_pool(x: Array) -> Array:
  """Returns the maximum around every second pixel, [B, ~H / 2, ~W / 2, C].

  Windows are 3 x 3 with stride 2; what is outside the map is -inf.
  """
  window, strides = (1, 3, 3, 1), (1, 2, 2, 1)
  padding = ((0, 0), (1, 1), (1, 1), (0, 0))
  return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, padding)


def global_average(x: Array) -> Array:
  """Returns the mean over H and W, [B, C], in float32."""
  return jnp.mean(x, axis=(1, 2), dtype=jnp.float32)


def head(x: Array, num_classes: int) -> Array:
  """Returns the logits [B, K] of a linear layer 'head' with PyTorch's start."""
  layer = nn.Dense(
    num_classes,
    kernel_init=fan_in_uniform,
    bias_init=bias_uniform(x.shape[-1]),
    name='head',
  )
  return layer(x)
