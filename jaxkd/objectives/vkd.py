"""Orthogonal projections, VkD (Miles et al., CVPR 2024).

https://arxiv.org/abs/2403.06213. Deviation: the published code parametrises the
projection by PyTorch's `orthogonal`; here it is the factor Q of a learned
matrix.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from jaxkd import losses
from jaxkd.objectives import regressors, taps
from jaxkd.objectives.base import Objective
from jaxkd.types import Array, Outputs


class Orthogonal(nn.Module):
  """A linear map with orthonormal rows or columns, whichever are fewer.

  Attributes:
    features: the output's width.
  """

  features: int

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Returns [B, features] of features [B, D]."""
    wide, narrow = sorted((x.shape[-1], self.features), reverse=True)
    matrix = self.param(
      'matrix', nn.initializers.orthogonal(), (wide, narrow), jnp.float32
    )
    q, r = jnp.linalg.qr(matrix)
    # Of the possible Q, the one that is continuous in the matrix.
    q = q * jnp.where(jnp.diagonal(r) < 0, -1, 1)[None]
    kernel = q if len(q) == x.shape[-1] else q.T
    precision = lax.Precision.HIGHEST
    return jnp.matmul(x, kernel.astype(x.dtype), precision=precision)


def vkd(stage: str = 'pooled', guide_stage: str = '') -> Objective:
  """Smooth L1 of orthogonally projected features and normalised ones.

  The guide's features have mean 0 and variance 1 over the channels of each
  example (LayerNorm without parameters), and the learner's are projected to
  their width. Maps are averaged over space first. The published weight is 1 on
  ImageNet, for DeiT; on CIFAR-100 there is none.

  Args:
    stage: the tap of the learner, or 'last', its deepest stage.
    guide_stage: the tap of the guide, likewise; '' takes the same name.
  """

  def ends(learner: Outputs, guide: Outputs | None) -> tuple[Array, Array]:
    maps = taps.pair(learner, guide, stage, guide_stage)
    source, target = (jnp.mean(x, axis=(1, 2)) for x in maps)
    return source, _normalised(target)

  def init(key, *, learner, guide, **_):
    source, target = ends(learner, guide)
    return regressors.init(Orthogonal(target.shape[-1]), key, source), {}

  def loss(params, memory, *, learner, guide, **_):
    source, target = ends(learner, guide)
    projected = regressors.apply(Orthogonal(target.shape[-1]), params, source)
    return losses.smooth_l1(projected, target), memory

  settings: dict[str, object] = dict(stage=stage, guide_stage=guide_stage)
  return Objective('vkd', settings, init, loss)


def _normalised(x: Array) -> Array:
  """Returns LayerNorm of features [B, D], with PyTorch's epsilon."""
  centred = x - jnp.mean(x, axis=-1, keepdims=True)
  variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
  return centred / jnp.sqrt(variance + 1e-5)
