"""Networks whose input differs from the images of the data set.

A teacher that was trained elsewhere can expect another size, other channels and
another normalisation than its student. `OwnInput` converts the images of the
data set, on the device, so that all networks of a run see the same crop.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxkd.models.wrapper import NetworkWrapper
from jaxkd.types import Array, Outputs

# The weights of red, green and blue in grey: ITU-R BT.601, as in Pillow.
LUMA = (0.299, 0.587, 0.114)


@dataclasses.dataclass(frozen=True)
class Input:
  """The images that a network takes: (pixels / scale - mean) / std.

  shape: (H, W, C).
  mean, std: per channel, in units of pixels / scale.
  scale: what pixels are divided by first.
  """

  shape: tuple[int, int, int]
  mean: tuple[float, ...]
  std: tuple[float, ...]
  scale: float = 255.0

  def __str__(self) -> str:
    mean, std = (
      ', '.join(f'{x:.4g}' for x in values) for values in (self.mean, self.std)
    )
    size = 'x'.join(map(str, self.shape))
    return f'{size}, normalised by mean ({mean}) and deviation ({std})'


def convert(image: Array, source: Input, target: Input) -> Array:
  """Returns images as another network takes them.

  Sizes are changed by bilinear interpolation, with antialiasing where images
  become smaller (`jax.image.resize`, method 'linear'). Grey becomes RGB by
  repetition, RGB becomes grey by `LUMA`. What is equal is left as it is.

  Args:
    image: [B, H, W, C], as `source` describes them.
    source: what the images are.
    target: what the network takes.
  """
  height, width, channels = target.shape
  if image.shape[1:3] != (height, width):
    shape = (image.shape[0], height, width, image.shape[-1])
    image = jax.image.resize(image, shape, 'linear', antialias=True)
  factor, offset = _affine(source, target)
  if channels < image.shape[-1]:
    return jnp.sum(image * factor, axis=-1, keepdims=True) + offset
  if channels == image.shape[-1] and np.all(factor == 1) and not offset.any():
    return image
  return image * factor + offset


def _affine(source: Input, target: Input) -> tuple[np.ndarray, np.ndarray]:
  """Returns factor and offset of each channel, [1, 1, 1, C] each.

  From RGB to grey the factors include the weights of the three channels.
  """
  mean, std = (np.array(x, np.float64) for x in (source.mean, source.std))
  new_mean, new_std = (
    np.array(x, np.float64) for x in (target.mean, target.std)
  )
  ratio = source.scale / target.scale
  factor = std * ratio
  if target.shape[-1] < source.shape[-1]:
    factor, mean = factor * LUMA, np.sum(mean * LUMA)
  factor, offset = factor / new_std, (mean * ratio - new_mean) / new_std
  first, second = (
    x.astype(np.float32).reshape(1, 1, 1, -1) for x in (factor, offset)
  )
  return first, second


class OwnInput(NetworkWrapper, nn.Module):
  """A network that converts the images of the data set to its own input.

  The variables are those of the network, with the same names.

  Attributes:
    bare: any network.
    source: the images of the data set.
    target: the images that the network takes.
  """

  bare: Any
  source: Input
  target: Input

  def setup(self):
    """Shares the network's scope, so that the variables keep their names."""
    nn.share_scope(self, self.bare)

  def __call__(self, image: Array, train: bool = False) -> Outputs:
    """Returns the network's outputs for images [B, H, W, C] of the data."""
    return self.bare(convert(image, self.source, self.target), train=train)

  @property
  def wrapped(self) -> Any:
    """The network."""
    return self.bare


def with_input(network: nn.Module, source: Input, target: Input) -> nn.Module:
  """Returns a network for images of a data set.

  Args:
    network: any network.
    source: the images of the data set.
    target: the images that the network takes; where they are equal, the network
      itself is returned.
  """
  return network if source == target else OwnInput(network, source, target)
