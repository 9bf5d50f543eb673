"""Distillation via knowledge review (Chen et al., CVPR 2021).

https://arxiv.org/abs/2104.09044. Deviation: the sizes of all maps are taken
from the taps, so that it is defined between any two networks; the published
code has tables for a few pairs.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxkd import losses
from jaxkd.losses.sizes import nearest
from jaxkd.models.layers import normed
from jaxkd.objectives import regressors, taps
from jaxkd.objectives.base import Objective, Published
from jaxkd.types import Array, Outputs

PUBLISHED = Published(weight=5.0)

# Kaiming's uniform distribution for a linear layer, U(+-sqrt(3 / fan_in)).
fan_in_uniform = nn.initializers.variance_scaling(1.0, 'fan_in', 'uniform')

POOLED = 'pooled'
MAX_WIDTH = 512  # channels of the fused features


class Fusion(nn.Module):
  """Attention based fusion (ABF) of a level with the deeper ones.

  Attributes:
    width: channels of the fused features.
    target: of the guide's map, (H, W, C).
  """

  width: int
  target: tuple[int, ...]

  @nn.compact
  def __call__(self, x: Array, deeper: Array | None) -> tuple[Array, Array]:
    """Returns a map to compare, [B, *target], and the fused features.

    Args:
      x: the learner's map, [B, H, W, C].
      deeper: the fused features of the next deeper level; None at the
        deepest.
    """
    x = _layer(x, 'in', self.width, 1)
    if deeper is not None:
      y = nearest(deeper, (x.shape[1], x.shape[2]))
      both = jnp.concatenate([x, y], axis=-1)
      weights = jax.nn.sigmoid(
        regressors.convolution(both, 2, name='attention')
      )
      x = x * weights[..., :1] + y * weights[..., 1:]
    height, width, channels = self.target
    x = nearest(x, (height, width))
    return _layer(x, 'out', channels, 3), x


class Review(nn.Module):
  """Fuses all levels, starting from the deepest.

  Attributes:
    width: channels of the fused features.
    targets: of the guide's maps, (H, W, C), the deepest last.
  """

  width: int
  targets: tuple[tuple[int, ...], ...]

  @nn.compact
  def __call__(self, *maps: Array) -> list[Array]:
    """Returns [B, *target] for each of the learner's maps [B, H, W, C]."""
    results, fused = [], None
    levels = list(enumerate(zip(maps, self.targets, strict=True), start=1))
    for level, (x, target) in reversed(levels):
      fusion = Fusion(self.width, target, name=f'level{level}')
      result, fused = fusion(x, fused)
      results.append(result)
    return results[::-1]


def _layer(x: Array, name: str, features: int, size: int) -> Array:
  return normed(
    x, True, name, features, size, kernel_init=fan_in_uniform, dtype=x.dtype
  )


def reviewkd(
  stages: Sequence[str] = (),
  guide_stages: Sequence[str] = (),
  before_activation: bool = False,
) -> Objective:
  """Compares each stage of the guide with fused stages of the learner.

  The guide's stages are taken before their activation, and pooled features are
  the deepest level. Levels are compared by `losses.hcl` and summed.

  The transfer's weight is 5 for CIFAR-100, warmed up over 20 epochs; on
  ImageNet 1, or 8 for MobileNet, warmed up over one.

  Args:
    stages: taps of the learner, without the pooled features; () takes all
      stages that both networks have, counted from the last.
    guide_stages: of the guide, as many; () takes the same names.
    before_activation: takes the learner's stages before their activation, too,
      where stages are not named, as published for ImageNet.

  References:
    https://arxiv.org/abs/2104.09044, section 3; sizes, initial values and
    weights are the published code's (https://github.com/dvlab-research/ReviewKD)
    and the CIFAR-100 benchmark's (https://github.com/megvii-research/mdistiller).
  """

  def ends(learner: Outputs, guide: Outputs | None):
    guide = taps.network(guide)
    names = taps.named(
      learner,
      guide,
      stages,
      guide_stages,
      suffix=taps.PRE if before_activation else '',
      guide_suffix=taps.PRE,
      from_last=True,
    )
    pooled = taps.named(learner, guide, (POOLED,))
    return zip(*taps.maps(learner, guide, [*names, *pooled]), strict=True)

  def review(sources: Sequence[Array], targets: Sequence[Array]) -> Review:
    width = min(MAX_WIDTH, sources[-1].shape[-1])
    return Review(width, tuple(x.shape[1:] for x in targets))

  def init(key, *, learner, guide, **_):
    sources, targets = ends(learner, guide)
    return regressors.init(review(sources, targets), key, *sources), {}

  def loss(params, memory, *, learner, guide, **_):
    sources, targets = ends(learner, guide)
    students = regressors.apply(review(sources, targets), params, *sources)
    levels = map(losses.hcl, students, targets)
    return jnp.sum(jnp.stack([*levels]), axis=0), memory

  settings: dict[str, object] = dict(
    stages=stages,
    guide_stages=guide_stages,
    before_activation=before_activation,
  )
  return Objective('reviewkd', settings, init, loss)
