"""Variational information distillation (Ahn et al., CVPR 2019).

https://arxiv.org/abs/1904.05835
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from jaxkd import losses
from jaxkd.losses import sizes
from jaxkd.objectives import regressors, taps
from jaxkd.objectives.base import Objective, Published
from jaxkd.types import Array, Outputs

PUBLISHED = Published(weight=1.0)


class Normal(nn.Module):
  """Normal distribution of the guide's features, conditioned on the learner's.

  The mean is computed by three 1 x 1 convolutions without biases, with ReLUs in
  between. Each channel has one variance, a parameter.

  Attributes:
    channels: of the guide.
    variance: initial, of every channel.
  """

  channels: int
  variance: float

  @nn.compact
  def __call__(self, x: Array) -> tuple[Array, Array]:
    """Returns the mean [B, H, W, channels] and `losses.vid`'s log_scale."""
    for i in range(3):
      x = nn.relu(x) if i else x
      x = regressors.convolution(
        x, self.channels, use_bias=False, name=f'conv{i}'
      )
    start = nn.initializers.constant(losses.vid_log_scale(self.variance))
    return x, self.param('log_scale', start, (self.channels,))


class Normals(nn.Module):
  """A `Normal` for each stage.

  Attributes:
    channels: of the guide, by stage.
    variance: initial, of every channel.
  """

  channels: tuple[int, ...]
  variance: float

  @nn.compact
  def __call__(self, *maps: Array) -> list[tuple[Array, Array]]:
    """Returns the mean and log_scale for each of the learner's maps."""
    return [
      Normal(channels, self.variance, name=f'normal{i}')(x)
      for i, (x, channels) in enumerate(zip(maps, self.channels, strict=True))
    ]


def vid(
  stages: Sequence[str] = (),
  guide_stages: Sequence[str] = (),
  variance: float = 5.0,
) -> Objective:
  """Negative log-likelihood of the guide's features, summed over stages.

  The distribution is conditioned on the learner's features. The larger map is
  averaged to the size of the smaller one first. The benchmark's weight of the
  transfer is 1. Variances are learned, as in the paper and in RepDistiller; in
  mdistiller's code they are constant.

  Args:
    stages: taps of the learner; () takes the stages that both networks have.
    guide_stages: as many taps of the guide; () takes the same names, or the
      guide's stages.
    variance: initial, of every channel, above 1e-5.

  Raises:
    ValueError: a variance that is not above 1e-5.

  References:
    See `losses.vid`; regressors, stages, variance and weight are the CIFAR-100
    benchmark's, https://arxiv.org/abs/1910.10699.
  """
  if variance <= 1e-5:
    raise ValueError(f'vid: variance must be above 1e-5, got {variance}')

  def ends(learner: Outputs, guide: Outputs | None) -> list[taps.Maps]:
    pairs = taps.pairs(learner, guide, stages, guide_stages)
    return [sizes.match(*pair) for pair in pairs]

  def normals(pairs: list[taps.Maps]) -> Normals:
    return Normals(tuple(t.shape[-1] for _, t in pairs), variance)

  def init(key, *, learner, guide, **_):
    pairs = ends(learner, guide)
    return regressors.init(normals(pairs), key, *(s for s, _ in pairs)), {}

  def loss(params, memory, *, learner, guide, **_):
    pairs = ends(learner, guide)
    normal = regressors.apply(normals(pairs), params, *(s for s, _ in pairs))
    each = [
      losses.vid(mean, t, log_scale)
      for (mean, log_scale), (_, t) in zip(normal, pairs, strict=True)
    ]
    return sum(each, start=jnp.zeros(())), memory

  settings: dict[str, object] = dict(
    stages=stages, guide_stages=guide_stages, variance=variance
  )
  return Objective('vid', settings, init, loss)
