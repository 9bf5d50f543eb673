"""Layers and initialisers that the network families share.

Convolutions pad k // 2 zeros on both sides, as the reference networks do.
TensorFlow's and XLA's 'SAME' has fewer zeros at the top and left if the stride
is 2 and the side even, which shifts the grid: networks that were trained with
it need it.
"""

import math
from collections.abc import Iterable
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from jaxkd.catalog import lookup
from jaxkd.models.convolution import convolution
from jaxkd.models.depthwise import Pads, depthwise
from jaxkd.reparam import branches as branching
from jaxkd.types import Array

Initializer = nn.initializers.Initializer

# He et al. 2015 (https://arxiv.org/abs/1502.01852) with fan_out and without
# truncation: standard deviation sqrt(2 / (k k C_out)).
fan_out_normal = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')

EPSILON = 1e-5  # of a BatchNorm, PyTorch's default

# PyTorch's default for kernels: U(+-1 / sqrt(fan_in)).
fan_in_uniform = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')


def bias_uniform(fan_in: int) -> Initializer:
  """Returns PyTorch's default for biases: U(+-1 / sqrt(fan_in))."""
  bound = 1 / math.sqrt(fan_in)

  def init(key, shape, dtype=jnp.float32):
    return nn.initializers.uniform(2 * bound)(key, shape, dtype) - bound

  return init


def widen(channels: Iterable[int], width: float) -> tuple[int, ...]:
  """Returns every entry of `channels` times `width`, rounded.

  Equal entries give equal results, so maps that are added still match.

  Args:
    channels: channel counts at width 1.
    width: the multiplier.

  Raises:
    ValueError: an entry would be 0.
  """
  channels = tuple(channels)
  wide = tuple(round(c * width) for c in channels)
  if any(c < 1 for c in wide):
    raise ValueError(
      f'width {width} leaves no channel of {min(channels)}; the minimum is'
      f' {1 / min(channels):.3g}'
    )
  return wide


def blocks_per_stage(family: str, depth: int, others: int) -> int:
  """Returns n of depth = 6n + others: three stages of n blocks of two layers.

  Args:
    family: the name of the architecture, for the message.
    depth: number of layers.
    others: number of layers outside the blocks.

  Raises:
    ValueError: no n >= 1 gives this depth.
  """
  n, rest = divmod(depth - others, 6)
  if n < 1 or rest:
    raise ValueError(f'a {family} has depth 6n + {others}, n >= 1, got {depth}')
  return n


def check_rate(rate: float, name: str = 'dropout') -> None:
  """Checks the rate of a dropout.

  Args:
    rate: of the dropout.
    name: of the setting.

  Raises:
    ValueError: not in 0 <= rate < 1.
  """
  if not 0 <= rate < 1:
    raise ValueError(f'{name} must be at least 0 and below 1, got {rate}')


def pads(padding: str, size: int, stride: int, sides: Iterable[int]) -> Pads:
  """Returns the zeros (above, below) and (left, right) of a map.

  Args:
    padding: a key of `PADDINGS`.
    size: of the kernel.
    stride: along both H and W.
    sides: H and W.

  Raises:
    KeyError: no such padding, with suggestions.
  """
  return lookup('padding', PADDINGS, padding)(size, stride, tuple(sides))


def _symmetric(size: int, stride: int, sides: tuple[int, ...]) -> Pads:
  del stride
  return ((size // 2, size // 2),) * len(sides)


def _same(size: int, stride: int, sides: tuple[int, ...]) -> Pads:
  """As TensorFlow's 'SAME': as many zeros at the bottom, or one more."""
  zeros = [
    max(0, (math.ceil(side / stride) - 1) * stride + size - side)
    for side in sides
  ]
  return tuple((n // 2, n - n // 2) for n in zeros)


PADDINGS = {'symmetric': _symmetric, 'same': _same}


class Conv(nn.Module):
  """k x k convolution with zeros around the map, NHWC.

  Attributes:
    features: output channels.
    size: k, odd.
    stride: along both H and W.
    groups: feature groups; if as many as input channels, see `depthwise`.
    use_bias: whether to add a bias.
    branches: M, the number of parallel kernels (see `jaxkd.reparam.branches`);
      only 3 x 3 convolutions with stride 1 have branches.
    branch_bias: whether a convolution with branches has a bias, as in the
      published code; false if no BatchNorm follows that it can be folded into.
    kernel_init: initialiser of the kernel [k, k, C / groups, features].
    bias_init: initialiser of the bias [features].
    dtype: compute type; parameters are float32.
    padding: 'symmetric', k // 2 zeros on each side, or 'same' as TensorFlow's.
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
  padding: str = 'symmetric'

  def __post_init__(self):
    """Checks the number of branches before anything is traced."""
    branching.check(self.branches)
    super().__post_init__()

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Returns the map [B, ceil(H / stride), ceil(W / stride), features]."""
    shape = (self.size, self.size, x.shape[-1] // self.groups, self.features)
    kernel = self.param('kernel', self.kernel_init, shape, jnp.float32)
    branched = self.branches > 1 and self.size == 3 and self.stride == 1
    if branched:
      kernel = branching.merged_kernel(
        {'kernel': kernel, **self._branches(shape)}
      )
    x = self._convolved(x.astype(self.dtype), kernel.astype(self.dtype))
    if self.use_bias or (branched and self.branch_bias):
      bias = self.param('bias', self.bias_init, (self.features,))
      x = x + bias.astype(self.dtype).reshape(1, 1, 1, -1)
    return x

  def _convolved(self, x: Array, kernel: Array) -> Array:
    """Returns the convolution of a map and a kernel of the compute type."""
    zeros = pads(self.padding, self.size, self.stride, x.shape[1:3])
    if 1 < self.groups == x.shape[-1]:
      return depthwise(x, kernel, self.stride, zeros)
    return convolution(x, kernel, self.stride, zeros, self.groups)

  def _branches(self, shape: tuple[int, ...]) -> dict[str, Array]:
    """Returns the parameters and constants of the branches by name.

    Args:
      shape: of the kernel.
    """
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

  It is computed as x * a + b with one pair (a, b) per channel, so that the
  gradient needs two sums per channel; the gradient of `nn.BatchNorm` needs more
  and takes two to four times as long on a CPU. Statistics are float32 for any
  `dtype`.

  Deviation: the running variance averages the biased batch variance, as in
  Flax; PyTorch averages the unbiased variance, which is n / (n - 1) times
  larger with n = B H W.

  Attributes:
    dtype: type of the result.
    momentum: of the running statistics; 0.9 is PyTorch's momentum 0.1.
    epsilon: added to the variance.
  """

  dtype: Any = jnp.float32
  momentum: float = 0.9
  epsilon: float = EPSILON

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """Returns [B, H, W, C]; in train mode, updates 'mean' and 'var'."""
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
      # The derivative of the variance with respect to the centre is zero.
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
  epsilon: float = EPSILON,
  **kwargs: Any,
) -> Array:
  """Applies a convolution 'conv_<name>' and a BatchNorm 'bn_<name>' to x.

  Args:
    x: [B, H, W, C].
    train: the train flag.
    name: suffix of both names, in the module whose method calls this.
    features: output channels.
    size: of the kernel.
    stride: along both H and W.
    epsilon: of the BatchNorm.
    **kwargs: further attributes of `Conv`, including 'dtype'.
  """
  conv = Conv(features, size, stride, name=f'conv_{name}', **kwargs)
  norm = BatchNorm(kwargs['dtype'], epsilon=epsilon, name=f'bn_{name}')
  return norm(conv(x), train)


def max_pool(x: Array) -> Array:
  """Returns the maximum of each 2 x 2 window, [B, H // 2, W // 2, C].

  It is computed as a maximum of four slices, because the gradient of
  `nn.max_pool` is ten times slower on a CPU. Windows do not overlap; an odd
  last row or column is left out. Equal maxima share the gradient.
  """
  b, h, w, c = x.shape
  h, w = h // 2, w // 2
  x = x[:, : 2 * h, : 2 * w].reshape(b, h, 2, w, 2, c)
  x = jnp.maximum(x[:, :, 0], x[:, :, 1])
  return jnp.maximum(x[:, :, :, 0], x[:, :, :, 1])


# 3 x 3 windows with stride 2, on a map with one more pixel on each side.
_OVERLAPPING = ((1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0)))


def overlapping_max_pool(x: Array) -> Array:
  """3 x 3 max pooling with stride 2, [B, ~H / 2, ~W / 2, C].

  The map is padded with -inf.
  """
  return lax.reduce_window(x, -jnp.inf, lax.max, *_OVERLAPPING)


def overlapping_average_pool(x: Array) -> Array:
  """3 x 3 average pooling with stride 2, [B, ~H / 2, ~W / 2, C].

  The map is padded with zeros, which are included in the mean.
  """
  return lax.reduce_window(x, 0.0, lax.add, *_OVERLAPPING) / 9


def global_average(x: Array) -> Array:
  """Global average pooling: the mean over H and W, [B, C], in float32."""
  return jnp.mean(x, axis=(1, 2), dtype=jnp.float32)


def head(x: Array, num_classes: int) -> Array:
  """Returns the logits [B, K] of a layer 'head' with PyTorch's initialisers."""
  layer = nn.Dense(
    num_classes,
    kernel_init=fan_in_uniform,
    bias_init=bias_uniform(x.shape[-1]),
    name='head',
  )
  return layer(x)
