"""VGG with BatchNorm (Simonyan and Zisserman 2015).

https://arxiv.org/abs/1409.1556. `VGG` is for 32 x 32 images, as in the
distillation benchmark (CRD, Tian et al. 2020): five stages, max pooling after
the first three, one linear layer. The fourth pooling, which the benchmark uses
only for 64 x 64 images, is used for images of at least 64 pixels.

`LargeVGG` is for large images, as in torchvision: max pooling after all five
stages, then averages of 7 x 7 windows, which for images of 224 x 224 are the
map itself, and three linear layers.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from jaxkd.models.layers import (
  BatchNorm,
  Conv,
  check_rate,
  global_average,
  max_pool,
  widen,
)
from jaxkd.models.norms import record_norm
from jaxkd.types import Array, Outputs

CHANNELS = (64, 128, 256, 512, 512)
CONVOLUTIONS = {  # depth -> number of convolutions of each stage
  8: (1, 1, 1, 1, 1),
  11: (1, 1, 2, 2, 2),
  13: (2, 2, 2, 2, 2),
  16: (2, 2, 3, 3, 3),
  19: (2, 2, 4, 4, 4),
}
HIDDEN, SIDE = 4096, 7  # of the linear layers, and of the map they read


class Stage(nn.Module):
  """Convolutions, each with BatchNorm and ReLU, without the last ReLU."""

  features: int
  convolutions: int
  branches: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """Returns the map before its last ReLU, [B, H, W, features]."""
    for i in range(self.convolutions):
      x = x if i == 0 else nn.relu(x)
      settings: dict[str, Any] = dict(branches=self.branches, dtype=self.dtype)
      x = Conv(self.features, use_bias=True, **settings, name=f'conv{i}')(x)
      x = BatchNorm(self.dtype, name=f'bn{i}')(x, train)
    return x


def check_depth(depth: int) -> None:
  """Checks the depth of a VGG.

  Raises:
    ValueError: not one of `CONVOLUTIONS`.
  """
  if depth not in CONVOLUTIONS:
    raise ValueError(
      f'a VGG has depth {", ".join(map(str, CONVOLUTIONS))}, got {depth}'
    )


def _stage(
  net: Any,
  number: int,
  convolutions: int,
  channels: int,
  x: Array,
  train: bool,
  taps: dict[str, Array],
) -> Array:
  """Returns the output of a stage of a network, and adds its taps.

  Args:
    net: in whose `__call__` this is called.
    number: of the stage; 0 is the stem.
    convolutions: of the stage.
    channels: of each.
    x: map [B, H, W, C].
    train: whether the network is trained.
    taps: of the network.
  """
  name = f'stage{number}' if number else 'stem'
  stage = Stage(channels, convolutions, net.branches, net.dtype, name=name)
  x = stage(x, train)
  if number:
    taps[f'{name}_pre'] = x
    last = stage.variables['params'][f'bn{convolutions - 1}']
    record_norm(net, f'{name}_pre', last)
  x = taps[name] = nn.relu(x)
  return x


class VGG(nn.Module):
  """The stages 'stem', 'stage1', ..., 'stage4' at strides 1, 2, 4, 8, 8.

  Attributes:
    depth: 8, 11, 13, 16 or 19.
    num_classes: K.
    width: multiplier of every channel count.
    branches: number of branches of each convolution.
    dtype: compute type; parameters, pooling and head are float32.
  """

  depth: int
  num_classes: int
  width: float = 1
  branches: int = 1
  dtype: Any = jnp.float32

  def __post_init__(self):
    """Checks the sizes before anything is traced."""
    check_depth(self.depth)
    widen(CHANNELS, self.width)
    super().__post_init__()

  @nn.compact
  def __call__(self, image: Array, train: bool = False) -> Outputs:
    """Returns logits [B, K] and taps of the image [B, H, W, C]."""
    channels = widen(CHANNELS, self.width)
    pools = 4 if min(image.shape[1:3]) >= 64 else 3
    taps = {}
    x = image
    for i, n in enumerate(CONVOLUTIONS[self.depth]):
      # The map of an image below 8 x 8 shrinks to one pixel earlier.
      if 0 < i <= pools and min(x.shape[1:3]) > 1:
        x = max_pool(x)
      x = _stage(self, i, n, channels[i], x, train, taps)
    x = taps['pooled'] = global_average(x)
    head = nn.Dense(
      self.num_classes,
      kernel_init=nn.initializers.normal(0.01),
      name='head',
    )
    return Outputs(head(x), taps)


def windows(length: int, count: int) -> np.ndarray:
  """Returns the weights of averages over `count` windows, [count, length].

  Window i is from floor(i length / count) to ceil((i + 1) length / count), as
  in PyTorch's adaptive average pooling.

  Args:
    length: of the axis that is averaged.
    count: number of windows; they overlap if it does not divide the length.
  """
  position, i = np.arange(length), np.arange(count)[:, None]
  start, stop = i * length // count, -(-(i + 1) * length // count)
  inside = (position >= start) & (position < stop)
  return (inside / (stop - start)).astype(np.float32)


def adaptive_average_pool(x: Array, side: int) -> Array:
  """Averages over side x side windows: [B, H, W, C] -> [B, side, side, C].

  A map of that size is returned as it is.
  """
  height, width = x.shape[1:3]
  if (height, width) == (side, side):
    return x
  rows = windows(height, side).astype(x.dtype)
  columns = windows(width, side).astype(x.dtype)
  return jnp.einsum('ih,bhwc,jw->bijc', rows, x, columns)


class LargeVGG(nn.Module):
  """The stages 'stem', ..., 'stage4' at strides 1, 2, 4, 8, 16; three layers.

  The taps of stages are in front of the pooling. The first linear layer reads
  the map as [C, 7, 7], in PyTorch's order, which also keeps the replicas of a
  wider network apart.

  Attributes:
    depth: 8, 11, 13, 16 or 19.
    num_classes: K.
    width: multiplier of every channel count and of `hidden`.
    branches: number of branches of each convolution.
    dtype: compute type; parameters, the last pooling and the linear layers are
      float32.
    hidden: units of the first two linear layers; the tap 'pooled' is the second
      one's.
    dropout: rate of both layers' units in train mode.
  """

  depth: int
  num_classes: int
  width: float = 1
  branches: int = 1
  dtype: Any = jnp.float32
  hidden: int = HIDDEN
  dropout: float = 0.5

  def __post_init__(self):
    """Checks the sizes before anything is traced."""
    check_depth(self.depth)
    check_rate(self.dropout)
    if self.hidden < 1:
      raise ValueError(f'hidden must be at least 1, got {self.hidden}')
    widen((*CHANNELS, self.hidden), self.width)
    super().__post_init__()

  @nn.compact
  def __call__(self, image: Array, train: bool = False) -> Outputs:
    """Returns logits [B, K] and taps of the image [B, H, W, C]."""
    *channels, hidden = widen((*CHANNELS, self.hidden), self.width)
    init = nn.initializers.normal(0.01)
    taps = {}
    x = image
    for i, n in enumerate(CONVOLUTIONS[self.depth]):
      x = _stage(self, i, n, channels[i], x, train, taps)
      # The map of an image below 32 x 32 shrinks to one pixel earlier.
      if min(x.shape[1:3]) > 1:
        x = max_pool(x)
    x = adaptive_average_pool(x.astype(jnp.float32), SIDE)
    b = x.shape[0]  # may be symbolic
    x = jnp.moveaxis(x, -1, 1).reshape(b, -1)
    for name in ('fc1', 'fc2'):
      x = nn.relu(nn.Dense(hidden, kernel_init=init, name=name)(x))
      taps['pooled'] = x
      x = nn.Dropout(self.dropout, deterministic=not train)(x)
    head = nn.Dense(self.num_classes, kernel_init=init, name='head')
    return Outputs(head(x), taps)
