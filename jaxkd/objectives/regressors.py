"""Regressors: modules from the learner's features to the guide's shape.

They learn with the networks and are discarded after training. Their layers are
initialised as PyTorch's, as in the published codes. BatchNorm uses the
statistics of the batch, of a sharded batch those of all of it: a regressor is
never evaluated, so there are no running statistics, and its objective needs no
memory for them.

Training batches are not padded. In a padded one, masked examples would count in
these statistics, as in those of the networks, but not in the loss.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from jaxkd.losses import sizes
from jaxkd.models.layers import BatchNorm, bias_uniform, fan_in_uniform
from jaxkd.types import Array, Tree

# PyTorch takes the fan-in of a transposed convolution from its output.
transposed_uniform = nn.initializers.variance_scaling(
  1 / 3, 'fan_out', 'uniform'
)


def init(module: nn.Module, key: Array, *maps: Array) -> Tree:
  """Returns a regressor's initial parameters for maps of such shapes."""
  return module.init(key, *maps).get('params', {})


def apply(module: nn.Module, params: Tree, *maps: Array) -> Any:
  """Returns a regressor's outputs, with statistics of the batch."""
  result, _ = module.apply({'params': params}, *maps, mutable=['batch_stats'])
  return result


def convolution(
  x: Array,
  features: int,
  size: tuple[int, int] = (1, 1),
  *,
  stride: int = 1,
  padding: int = 0,
  use_bias: bool = True,
  name: str = 'conv',
) -> Array:
  """Returns a convolution of x, initialised as in PyTorch; for `nn.compact`.

  Args:
    x: [B, H, W, C].
    features: output channels.
    size: height and width of the kernel.
    stride: the same along H and W.
    padding: zeros on each side.
    use_bias: adds a bias.
    name: of the layer.
  """
  height, width = size
  return nn.Conv(
    features,
    size,
    strides=stride,
    padding=padding,
    use_bias=use_bias,
    kernel_init=fan_in_uniform,
    bias_init=bias_uniform(height * width * x.shape[-1]),
    name=name,
  )(x)


class Doubling(nn.Module):
  """Transposed 4 x 4 convolution, stride 2, one row of padding: H -> 2 H.

  An output pixel sees 2 x 2 input pixels through one of four quarters of the
  kernel, depending on the parity of its row and column. So it is computed as
  four convolutions (Shi et al., 2016, https://arxiv.org/abs/1609.07009), whose
  gradient is ten times faster on a CPU than that of a convolution with holes in
  its input. The kernel [4, 4, C, features] is PyTorch's, turned by 180 degrees.

  Attributes:
    features: output channels.
  """

  features: int

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Returns [B, 2 H, 2 W, features] of the map [B, H, W, C]."""
    b, h, w, c = x.shape
    shape = (4, 4, c, self.features)
    kernel = self.param('kernel', transposed_uniform, shape)
    bias = self.param(
      'bias', bias_uniform(16 * self.features), (self.features,)
    )

    def quarter(row: int, column: int) -> Array:
      return lax.conv_general_dilated(
        x,
        kernel[row::2, column::2].astype(x.dtype),
        window_strides=(1, 1),
        padding=[(1 - row, row), (1 - column, column)],
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      )

    rows = [jnp.stack([quarter(i, j) for j in (0, 1)], axis=3) for i in (0, 1)]
    x = jnp.stack(rows, axis=2).reshape(b, 2 * h, 2 * w, self.features)
    return x + bias.astype(x.dtype).reshape(1, 1, 1, -1)


class ConvReg(nn.Module):
  """A convolution to a target's shape, BatchNorm, and ReLU.

  As in the distillation benchmark (CRD, Tian et al. 2020,
  https://arxiv.org/abs/1910.10699): a map of twice the target's size is halved
  by a 3 x 3 convolution with stride 2, one of half the size is doubled by a
  transposed convolution, and otherwise the kernel is as large as the map has to
  shrink, 1 x 1 between equal sizes. See `connectable` for other sizes.

  Attributes:
    target: of one example, (H, W, C).
    relu: ReLU at the end.
  """

  target: tuple[int, ...]
  relu: bool = True

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Returns [B, *target] of the map [B, H, W, C]."""
    (h, w), (height, width, features) = x.shape[1:3], self.target
    if (h, w) == (2 * height, 2 * width):
      x = convolution(x, features, (3, 3), stride=2, padding=1)
    elif (2 * h, 2 * w) == (height, width):
      x = Doubling(features, name='conv')(x)
    else:
      x = convolution(x, features, (1 + h - height, 1 + w - width))
    x = BatchNorm(name='bn')(x, train=True)
    return nn.relu(x) if self.relu else x


class Connectors(nn.Module):
  """A `ConvReg` without ReLU for each map of another shape than its target.

  Attributes:
    targets: of one example of each map, (H, W, C).
  """

  targets: tuple[tuple[int, ...], ...]

  @nn.compact
  def __call__(self, *maps: Array) -> list[Array]:
    """Returns each map [B, H, W, C] in its target's shape."""
    return [
      x
      if x.shape[1:] == target
      else ConvReg(target, relu=False, name=f'connector{i}')(x)
      for i, (x, target) in enumerate(zip(maps, self.targets, strict=True))
    ]


class Embedding(nn.Module):
  """A linear map of flattened features, with a bias.

  Attributes:
    features: the output's width.
  """

  features: int

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Returns [B, features] of features [B, ...]."""
    x = x.reshape(len(x), -1)
    return nn.Dense(
      self.features,
      kernel_init=fan_in_uniform,
      bias_init=bias_uniform(x.shape[-1]),
      name='linear',
    )(x)


def connectable(source: Array, target: Array) -> tuple[Array, Array]:
  """Returns two maps in sizes between which `ConvReg` is defined.

  It is not where the source is smaller than the target and not half of it. The
  published methods are not defined there; here the larger map is averaged to
  the smaller one's size first.

  Args:
    source: [B, H, W, C], the regressor's input.
    target: [B, H', W', C'].
  """
  (h, w), (height, width) = source.shape[1:3], target.shape[1:3]
  half = (2 * h, 2 * w) == (height, width)
  if half or (h >= height and w >= width):
    return source, target
  return sizes.match(source, target)
