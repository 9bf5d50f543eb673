"""EfficientNet (Tan and Le, ICML 2019) and EfficientNet-Lite.

https://arxiv.org/abs/1905.11946. Inverted residuals with squeeze-and-excitation
(Hu et al., CVPR 2018, https://arxiv.org/abs/1709.01507) and SiLU, initialised
as in torchvision. The Lite networks (https://github.com/tensorflow/tpu,
models/official/efficientnet/lite) have ReLU6 and no squeeze-and-excitation.

The published weights were trained in TensorFlow, whose networks pad
differently ('same') and have a BatchNorm epsilon of 1e-3; torchvision's and
some of timm's were trained in PyTorch.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxkd.catalog import lookup
from jaxkd.models.layers import (
  EPSILON,
  Conv,
  check_rate,
  global_average,
  normed,
  widen,
)
from jaxkd.types import Array, Outputs

# Rows of a stage, which ends before the next downsampling: t, k, c, n, s are n
# blocks with expansion t, k x k kernels and c channels, the first of which has
# stride s.
StageRows = tuple[tuple[int, int, int, int, int], ...]

B0 = (  # the stem's channels, the stages, the last convolution's channels
  32,
  (
    ((1, 3, 16, 1, 1),),
    ((6, 3, 24, 2, 2),),
    ((6, 5, 40, 2, 2),),
    ((6, 3, 80, 3, 2), (6, 5, 112, 3, 1)),
    ((6, 5, 192, 4, 2), (6, 3, 320, 1, 1)),
  ),
  1280,
)
ACTIVATIONS = {'silu': nn.silu, 'relu6': nn.relu6}
REDUCTION = 4  # input channels of a block over its squeezed channels
head_init = nn.initializers.variance_scaling(1 / 3, 'fan_out', 'uniform')


class SqueezeExcite(nn.Module):
  """Scales each channel by a function of the means of all channels.

  Attributes:
    squeezed: channels of the hidden layer.
    activation: of the hidden layer.
    dtype: compute type; the means are float32.
  """

  squeezed: int
  activation: str
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Returns a map [B, H, W, C] for the map [B, H, W, C]."""
    conv = partial(Conv, size=1, use_bias=True, dtype=self.dtype)
    y = jnp.mean(x, axis=(1, 2), keepdims=True, dtype=jnp.float32)
    y = ACTIVATIONS[self.activation](conv(self.squeezed, name='reduce')(y))
    return x * nn.sigmoid(conv(x.shape[-1], name='expand')(y))


class Block(nn.Module):
  """Inverted residual, with squeeze-and-excitation in the middle.

  Attributes:
    expansion: channels of the k x k convolution over the input channels; if it
      is 1, there is no expanding convolution.
    size: k, of the depthwise convolution.
    features: output channels; the input is added if the shapes agree.
    stride: of the depthwise convolution.
    squeezed: see `SqueezeExcite`; 0 for none.
    drop_path: probability that an example skips the block in training.
    activation: a key of `ACTIVATIONS`.
    epsilon: of the BatchNorms.
    settings: of every convolution.
  """

  expansion: int
  size: int
  features: int
  stride: int
  squeezed: int
  drop_path: float
  activation: str
  epsilon: float
  settings: dict[str, Any]

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """Returns the linear bottleneck, [B, H / stride, W / stride, features]."""
    activate = ACTIVATIONS[self.activation]
    layer = partial(normed, train=train, epsilon=self.epsilon, **self.settings)
    y, c = x, x.shape[-1] * self.expansion
    if self.expansion != 1:
      y = activate(layer(y, name='expand', features=c))
    y = layer(
      y,
      name='depthwise',
      features=c,
      size=self.size,
      stride=self.stride,
      groups=c,
    )
    y = activate(y)
    if self.squeezed:
      dtype = self.settings['dtype']
      y = SqueezeExcite(self.squeezed, self.activation, dtype, name='se')(y)
    y = layer(y, name='project', features=self.features)
    if self.stride != 1 or x.shape[-1] != self.features:
      return y
    skip = nn.Dropout(self.drop_path, broadcast_dims=(1, 2, 3))
    return x + skip(y, deterministic=not train)


class EfficientNet(nn.Module):
  """A stem with stride 2, stages of inverted residuals, a 1 x 1 convolution.

  The stages end without an activation, so there are no '_pre' taps. In train
  mode it needs a key 'dropout', unless both rates are 0.

  Attributes:
    stem: channels of the stem.
    stages: rows t, k, c, n, s.
    last: channels of the 1 x 1 convolution after the stages.
    squeeze: whether blocks have squeeze-and-excitation.
    activation: a key of `ACTIVATIONS`.
    num_classes: K.
    width: multiplier of every channel count, including `last`.
    branches: number of branches of each 3 x 3 convolution with stride 1.
    dtype: compute type; parameters, pooling and head are float32.
    dropout: rate before the head.
    drop_path: rate of stochastic depth of the last block; that of the others
      rises linearly from 0.
    padding: 'symmetric' or 'same', see `layers.Conv`.
    epsilon: of the BatchNorms.
  """

  stem: int
  stages: tuple[StageRows, ...]
  last: int
  squeeze: bool
  activation: str
  num_classes: int
  width: float = 1
  branches: int = 1
  dtype: Any = jnp.float32
  dropout: float = 0.2
  drop_path: float = 0.2
  padding: str = 'symmetric'
  epsilon: float = EPSILON

  def __post_init__(self):
    """Checks the sizes before anything is traced."""
    lookup('activation', ACTIVATIONS, self.activation)
    channels = [row[2] for stage in self.stages for row in stage]
    widen((self.stem, *channels, self.last), self.width)
    check_rate(self.dropout, 'dropout')
    check_rate(self.drop_path, 'drop_path')
    super().__post_init__()

  @nn.compact
  def __call__(self, image: Array, train: bool = False) -> Outputs:
    """Returns logits [B, K] and taps of the image [B, H, W, C]."""
    settings: dict[str, Any] = dict(
      branches=self.branches, dtype=self.dtype, padding=self.padding
    )
    activate = ACTIVATIONS[self.activation]
    layer = partial(normed, train=train, epsilon=self.epsilon, **settings)
    taps = {}
    stem, last = widen([self.stem, self.last], self.width)
    x = activate(layer(image, name='stem', features=stem, size=3, stride=2))
    taps['stem'] = x
    for name, sizes in self.blocks():
      block = Block(
        **sizes,
        activation=self.activation,
        epsilon=self.epsilon,
        settings=settings,
        name=name,
      )
      x = taps[name.partition('_')[0]] = block(x, train)  # the last one stays
    x = activate(layer(x, name='last', features=last))
    x = taps['pooled'] = global_average(x)
    x = nn.Dropout(self.dropout, deterministic=not train)(x)
    head = nn.Dense(self.num_classes, kernel_init=head_init, name='head')
    return Outputs(head(x), taps)

  def blocks(self) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the name of each block, and its sizes and rate."""
    total = sum(row[3] for stage in self.stages for row in stage)
    number, inputs = 0, self.stem
    for i, stage in enumerate(self.stages, start=1):
      j = 0
      for expansion, size, channels, count, stride in stage:
        (features,) = widen([channels], self.width)
        for k in range(count):
          squeezed = max(1, round(inputs // REDUCTION * self.width))
          yield (
            f'stage{i}_block{j}',
            dict(
              expansion=expansion,
              size=size,
              features=features,
              stride=stride if k == 0 else 1,
              squeezed=squeezed if self.squeeze else 0,
              drop_path=self.drop_path * number / total,
            ),
          )
          inputs, number, j = channels, number + 1, j + 1
