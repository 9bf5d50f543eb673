"""A multilayer perceptron: small, without BatchNorm, for digits and tests."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxkd.models.layers import (
  head,
  widen,
)
from jaxkd.types import Array, Outputs


class MLP(nn.Module):
  """Hidden layers with ReLU over the flattened image, and a linear head.

  Attributes:
    num_classes: K.
    features: units of each hidden layer; layer i is the tap 'stage<i>'.
    width: multiplies every entry of `features`.
    branches: changes nothing, as there is no convolution to have them.
    dtype: compute type; parameters and head are float32.
  """

  num_classes: int
  features: tuple[int, ...] = (64, 64)
  width: float = 1
  branches: int = 1
  dtype: Any = jnp.float32

  def __post_init__(self):
    """Refuses an impossible size before anything is traced."""
    if not self.features:
      raise ValueError('an MLP needs at least one hidden layer')
    widen(self.features, self.width)
    super().__post_init__()

  @nn.compact
  def __call__(self, image: Array, train: bool = False) -> Outputs:
    """Returns logits [B, K] and taps [B, D] of the image [B, H, W, C]."""
    del train  # nothing here behaves differently
    taps = {}
    x = image.reshape(len(image), -1)
    for i, units in enumerate(widen(self.features, self.width), start=1):
      x = taps[f'stage{i}_pre'] = nn.Dense(
        units,
        kernel_init=nn.initializers.he_normal(),
        dtype=self.dtype,
        name=f'hidden{i}',
      )(x)
      x = taps[f'stage{i}'] = nn.relu(x)
    x = taps['pooled'] = x.astype(jnp.float32)
    return Outputs(head(x, self.num_classes), taps)
