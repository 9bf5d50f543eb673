"""VGG with BatchNorm for 32 x 32 images (Simonyan and Zisserman 2015).

https://arxiv.org/abs/1409.1556. As in the distillation benchmark (CRD, Tian et
al. 2020): five stages, max pooling after the first three, one linear layer. The
fourth pooling, which the benchmark uses only for 64 x 64 images, is used for
images of at least 64 pixels.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxkd.models.layers import BatchNorm, Conv, global_average, max_pool, widen
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
    if self.depth not in CONVOLUTIONS:
      raise ValueError(
        f'a VGG has depth {", ".join(map(str, CONVOLUTIONS))}, got {self.depth}'
      )
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
      name = f'stage{i}' if i else 'stem'
      stage = Stage(channels[i], n, self.branches, self.dtype, name=name)
      x = stage(x, train)
      if i:
        taps[f'stage{i}_pre'] = x
        record_norm(
          self, f'stage{i}_pre', stage.variables['params'][f'bn{n - 1}']
        )
      x = taps[name] = nn.relu(x)
    x = taps['pooled'] = global_average(x)
    head = nn.Dense(
      self.num_classes,
      kernel_init=nn.initializers.normal(0.01),
      name='head',
    )
    return Outputs(head(x), taps)
