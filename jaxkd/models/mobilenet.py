"""MobileNets: depthwise separable convolutions.

MobileNetV1 (Howard et al. 2017, https://arxiv.org/abs/1704.04861) for large
images, and MobileNetV2 (Sandler et al. 2018, https://arxiv.org/abs/1801.04381)
for small ones, both as in the distillation benchmark (CRD, Tian et al. 2020);
and MobileNetV2 for large images as in the paper and in torchvision. Deviations
of the benchmark's MobileNetV2 from the paper: ReLU instead of ReLU6, an
expansion also in the first block, strides for 32 x 32 images, half the
channels, except before the head, and no dropout.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxkd.catalog import lookup
from jaxkd.models.layers import (
  check_rate,
  fan_in_uniform,
  global_average,
  head,
  normed,
  widen,
)
from jaxkd.models.norms import record_norm
from jaxkd.types import Array, Outputs

# The rows of a stage, at whose end the benchmark has a tap. A row is c, n, s: n
# blocks with c channels, the first of which has stride s. For MobileNetV2 it is
# t, c, n, s with the expansion t.
StageRows = tuple[tuple[int, ...], ...]

V1 = (  # the stem's channels, and the stages
  32,
  (
    ((64, 1, 1), (128, 2, 2)),
    ((256, 2, 2),),
    ((512, 6, 2),),
    ((1024, 2, 2),),
  ),
)
V2_HALF = (  # the stem's channels, the stages, the last convolution's channels
  16,
  (
    ((1, 8, 1, 1), (6, 12, 2, 1)),
    ((6, 16, 3, 2),),
    ((6, 32, 4, 2), (6, 48, 3, 1)),
    ((6, 80, 3, 2), (6, 160, 1, 1)),
  ),
  1280,
)
V2 = (
  32,
  (
    ((1, 16, 1, 1), (6, 24, 2, 2)),
    ((6, 32, 3, 2),),
    ((6, 64, 4, 2), (6, 96, 3, 1)),
    ((6, 160, 3, 2), (6, 320, 1, 1)),
  ),
  1280,
)
V2_PUBLISHED = dict(activation='relu6', always_expand=False, dropout=0.2)
ACTIVATIONS = {'relu': nn.relu, 'relu6': nn.relu6}


def channels(stages: tuple[StageRows, ...]) -> list[int]:
  """Returns the channels of every row of all stages."""
  return [row[-3] for stage in stages for row in stage]


def blocks(stage: StageRows, width: float) -> list[tuple[int, ...]]:
  """Returns (c, s) or (t, c, s) of each block; c is multiplied by `width`."""
  return [
    (*expansion, *widen([features], width), stride if i == 0 else 1)
    for *expansion, features, n, stride in stage
    for i in range(n)
  ]


class Separable(nn.Module):
  """Depthwise separable convolution, without the last ReLU."""

  features: int
  stride: int = 1
  branches: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """Returns the map before its last ReLU, [B, H / stride, W / stride, C]."""
    layer = partial(
      normed,
      train=train,
      kernel_init=fan_in_uniform,
      branches=self.branches,
      dtype=self.dtype,
    )
    c = x.shape[-1]
    x = layer(
      x, name='depthwise', features=c, size=3, stride=self.stride, groups=c
    )
    return layer(nn.relu(x), name='pointwise', features=self.features)


class Inverted(nn.Module):
  """Inverted residual: 1 x 1, depthwise 3 x 3, and linear 1 x 1 convolution.

  Attributes:
    expansion: channels of the 3 x 3 convolution over the input channels.
    features: output channels; the input is added if the shapes agree.
    stride: of the 3 x 3 convolution.
    branches: number of branches of the 3 x 3 convolution if its stride is 1.
    dtype: compute type.
    activation: a key of `ACTIVATIONS`.
    always_expand: whether there is a first 1 x 1 convolution if the expansion
      is 1, too.
  """

  expansion: int
  features: int
  stride: int = 1
  branches: int = 1
  dtype: Any = jnp.float32
  activation: str = 'relu'
  always_expand: bool = True

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """Returns the linear bottleneck, [B, H / stride, W / stride, features]."""
    layer = partial(
      normed, train=train, branches=self.branches, dtype=self.dtype
    )
    activation = ACTIVATIONS[self.activation]
    c, y = x.shape[-1] * self.expansion, x
    if self.always_expand or self.expansion > 1:
      y = activation(layer(y, name='expand', features=c))
    y = layer(
      y, name='depthwise', features=c, size=3, stride=self.stride, groups=c
    )
    y = layer(activation(y), name='project', features=self.features)
    residual = self.stride == 1 and x.shape[-1] == self.features
    return x + y if residual else y


class MobileNetV1(nn.Module):
  """A stem with stride 2 and stages of depthwise separable convolutions.

  There is no tap 'stem'.

  Attributes:
    stem: channels of the stem.
    stages: rows c, n, s.
    num_classes: K.
    width: multiplier of every channel count.
    branches: number of branches of each 3 x 3 convolution with stride 1.
    dtype: compute type; parameters, pooling and head are float32.
  """

  stem: int
  stages: tuple[StageRows, ...]
  num_classes: int
  width: float = 1
  branches: int = 1
  dtype: Any = jnp.float32

  def __post_init__(self):
    """Checks the sizes before anything is traced."""
    widen((self.stem, *channels(self.stages)), self.width)
    super().__post_init__()

  @nn.compact
  def __call__(self, image: Array, train: bool = False) -> Outputs:
    """Returns logits [B, K] and taps of the image [B, H, W, C]."""
    settings: dict[str, Any] = dict(branches=self.branches, dtype=self.dtype)
    taps = {}
    (stem,) = widen([self.stem], self.width)
    x = normed(
      image, train, 'stem', stem, 3, 2, kernel_init=fan_in_uniform, **settings
    )
    x = nn.relu(x)
    for i, stage in enumerate(self.stages, start=1):
      for j, (features, stride) in enumerate(blocks(stage, self.width)):
        name = f'stage{i}_block{j}'
        block = Separable(features, stride, name=name, **settings)
        x = taps[f'stage{i}_pre'] = block(x, train)  # the last block's stays
        record_norm(
          self, f'stage{i}_pre', block.variables['params']['bn_pointwise']
        )
        x = nn.relu(x)
      taps[f'stage{i}'] = x
    x = taps['pooled'] = global_average(x)
    return Outputs(head(x, self.num_classes), taps)


class MobileNetV2(nn.Module):
  """A stem with stride 2, stages of inverted residuals, a 1 x 1 convolution.

  The stages end without an activation, so there are no '_pre' taps.

  Attributes:
    stem: channels of the stem.
    stages: rows t, c, n, s.
    last: channels of the 1 x 1 convolution after the stages.
    num_classes: K.
    width: multiplier of every channel count, including `last`.
    branches: number of branches of each 3 x 3 convolution with stride 1.
    dtype: compute type; parameters, pooling and head are float32.
    activation: a key of `ACTIVATIONS`.
    always_expand: whether blocks with expansion 1 have a first 1 x 1
      convolution, too.
    dropout: rate of the head's inputs in train mode.
  """

  stem: int
  stages: tuple[StageRows, ...]
  last: int
  num_classes: int
  width: float = 1
  branches: int = 1
  dtype: Any = jnp.float32
  activation: str = 'relu'
  always_expand: bool = True
  dropout: float = 0.0

  def __post_init__(self):
    """Checks the sizes before anything is traced."""
    lookup('activation', ACTIVATIONS, self.activation)
    check_rate(self.dropout)
    widen((self.stem, *channels(self.stages), self.last), self.width)
    super().__post_init__()

  @nn.compact
  def __call__(self, image: Array, train: bool = False) -> Outputs:
    """Returns logits [B, K] and taps of the image [B, H, W, C]."""
    settings: dict[str, Any] = dict(branches=self.branches, dtype=self.dtype)
    taps = {}
    activation = ACTIVATIONS[self.activation]
    stem, last = widen([self.stem, self.last], self.width)
    x = activation(normed(image, train, 'stem', stem, 3, 2, **settings))
    taps['stem'] = x
    for i, stage in enumerate(self.stages, start=1):
      for j, (t, features, stride) in enumerate(blocks(stage, self.width)):
        name = f'stage{i}_block{j}'
        block = Inverted(
          t,
          features,
          stride,
          activation=self.activation,
          always_expand=self.always_expand,
          name=name,
          **settings,
        )
        x = block(x, train)
      taps[f'stage{i}'] = x
    x = activation(normed(x, train, 'last', last, **settings))
    x = taps['pooled'] = global_average(x)
    x = nn.Dropout(self.dropout, deterministic=not train)(x)
    head = nn.Dense(
      self.num_classes, kernel_init=nn.initializers.normal(0.01), name='head'
    )
    return Outputs(head(x), taps)
