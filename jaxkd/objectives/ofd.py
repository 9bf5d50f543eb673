"""Overhaul of feature distillation (Heo et al., ICCV 2019).

https://arxiv.org/abs/1904.01866. Deviation: the guide stays in eval mode, as in
every other transfer. In the published code it uses the statistics of the
batch, and its running statistics drift.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from jaxkd import losses
from jaxkd.catalog import lookup
from jaxkd.losses.sizes import adaptive_average_pool
from jaxkd.models.layers import normed
from jaxkd.objectives import regressors, taps
from jaxkd.objectives.base import Objective, Published
from jaxkd.types import Array, Outputs

PUBLISHED = Published(weight=0.001)


class Projections(nn.Module):
  """A 1 x 1 convolution and BatchNorm for each of the learner's maps.

  Attributes:
    channels: of the guide's maps.
  """

  channels: tuple[int, ...]

  @nn.compact
  def __call__(self, *maps: Array) -> list[Array]:
    """Returns the maps [B, H, W, C], with the guide's channels."""
    ends = enumerate(zip(maps, self.channels, strict=True), start=1)
    return [normed(x, True, str(i), c, dtype=x.dtype) for i, (x, c) in ends]


def _of_batch_norm(guide: Outputs, name: str, x: Array) -> Array:
  del x
  if name not in guide.norms:
    others = f'name others, of {", ".join(guide.norms)}, as guide_stages, or '
    raise ValueError(
      'ofd takes its margins from the BatchNorm in front of an activation, and'
      f' at {name!r} the guide has none:'
      f" {others if guide.norms else ''}set margins='features'"
    )
  return losses.ofd_margin(**guide.norms[name])


def _of_features(guide: Outputs, name: str, x: Array) -> Array:
  del guide, name
  total = jnp.sum(jnp.minimum(x, 0), axis=(0, 1, 2))
  return total / jnp.maximum(jnp.sum(x < 0, axis=(0, 1, 2)), 1)


# (the guide, the tap's name, its map [B, H, W, C]) -> margins [C].
MARGINS = {'batch_norm': _of_batch_norm, 'features': _of_features}


def ofd(
  stages: Sequence[str] = (),
  guide_stages: Sequence[str] = (),
  margins: str = 'batch_norm',
) -> Objective:
  """Partial distance of pre-activations, after a 1 x 1 convolution.

  The guide's map is averaged to the learner's size. A stage k stages before
  the last has a weight of 1 / 2^k. The benchmark's weight of the
  transfer is 0.001; for ImageNet it is 0.0001, and of a ResNet's stages the
  first one is left out.

  Args:
    stages: taps of the learner; () takes all stages that both networks have,
      counted from the last, before their activation, if they end in one.
    guide_stages: of the guide, as many; () takes the same names.
    margins: 'batch_norm': the expected negative response of the guide's
      BatchNorm, see `losses.ofd_margin`. 'features': its mean over
      the batch, for guides without BatchNorm; the paper names both.

  Raises:
    KeyError: no such margins, with suggestions.

  References:
    https://arxiv.org/abs/1904.01866, section 3; connectors, the stages'
    weights and that of the transfer are the published code's and the CIFAR-100
    benchmark's (https://github.com/megvii-research/mdistiller).
  """
  margin = lookup('margins', MARGINS, margins)

  def names(learner: Outputs, guide: Outputs) -> list[tuple[str, str]]:
    return taps.named(
      learner, guide, stages, guide_stages, suffix=taps.PRE, from_last=True
    )

  def init(key, *, learner, guide, **_):
    guide = taps.network(guide)
    maps = taps.maps(learner, guide, names(learner, guide))
    sources, targets = zip(*maps, strict=True)
    return regressors.init(_projections(targets), key, *sources), {}

  def loss(params, memory, *, learner, guide, **_):
    guide = taps.network(guide)
    compared = names(learner, guide)
    sources, targets = zip(*taps.maps(learner, guide, compared), strict=True)
    students = regressors.apply(_projections(targets), params, *sources)
    total = jnp.zeros(len(learner.logits))
    for (_, name), x, y in zip(compared, students, targets, strict=True):
      target = adaptive_average_pool(y, (x.shape[1], x.shape[2]))
      total = total / 2 + losses.ofd(x, target, margin(guide, name, y))
    return total, memory

  settings: dict[str, object] = dict(
    stages=stages, guide_stages=guide_stages, margins=margins
  )
  return Objective('ofd', settings, init, loss)


def _projections(targets: Sequence[Array]) -> Projections:
  return Projections(tuple(x.shape[-1] for x in targets))
