"""Multilayer perceptrons: small, without BatchNorm, for digits and tests.

'mlp128' is the network of the toy experiment of Hamidi et al., ECCV 2024,
https://arxiv.org/abs/2407.18041 (see `jaxkd.data.gaussian_mixture`).
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxkd.models.layers import (
  Initializer,
  bias_uniform,
  fan_in_uniform,
  head,
  widen,
)
from jaxkd.types import Array, Outputs


class MLP(nn.Module):
  """Hidden layers with ReLU over the flattened image, and a linear head.

  Attributes:
    num_classes: K.
    features: units of each hidden layer; layer i is the tap 'stage<i>'. ()
      makes a linear classifier, whose only tap is 'pooled', its input.
    width: multiplier of every entry of `features`; 1 if there are none.
    branches: ignored, because there is no convolution.
    uniform_init: whether hidden layers have PyTorch's default initialisers,
      whose variance is a sixth of He initialisation's.
    dtype: compute type; parameters and head are float32.
  """

  num_classes: int
  features: tuple[int, ...] = (64, 64)
  width: float = 1
  branches: int = 1
  uniform_init: bool = False
  dtype: Any = jnp.float32

  def __post_init__(self):
    """Checks the sizes before anything is traced."""
    if not self.features and self.width != 1:
      raise ValueError(
        f'the width of a linear classifier must be 1, got {self.width}: it has'
        " no hidden layer to widen; use a network such as 'mlp'"
      )
    widen(self.features, self.width)
    super().__post_init__()

  @nn.compact
  def __call__(self, image: Array, train: bool = False) -> Outputs:
    """Returns logits [B, K] and taps [B, D] of the image [B, H, W, C]."""
    del train  # train and eval mode are the same
    taps = {}
    x = image.reshape(image.shape[0], -1)  # may be symbolic
    for i, units in enumerate(widen(self.features, self.width), start=1):
      kernel_init, bias_init = self._initializers(x.shape[-1])
      x = taps[f'stage{i}_pre'] = nn.Dense(
        units,
        kernel_init=kernel_init,
        bias_init=bias_init,
        dtype=self.dtype,
        name=f'hidden{i}',
      )(x)
      x = taps[f'stage{i}'] = nn.relu(x)
    x = taps['pooled'] = x.astype(jnp.float32)
    return Outputs(head(x, self.num_classes), taps)

  def _initializers(self, fan_in: int) -> tuple[Initializer, Initializer]:
    if self.uniform_init:
      return fan_in_uniform, bias_uniform(fan_in)
    return nn.initializers.he_normal(), nn.initializers.zeros
