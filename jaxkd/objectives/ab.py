"""Activation boundaries (Heo et al., AAAI 2019).

https://arxiv.org/abs/1811.03233. In the paper the student learns it first,
before the labels: see the method `pretrained`.
"""

from collections.abc import Sequence

import jax.numpy as jnp

from jaxkd import losses
from jaxkd.objectives import regressors, taps
from jaxkd.objectives.base import Objective, Published
from jaxkd.types import Outputs

# In a phase of its own, before the labels.
PUBLISHED = Published(weight=1.0, label_weight=0.0)


def ab(
  stages: Sequence[str] = (),
  guide_stages: Sequence[str] = (),
  margin: float = 1.0,
  scale: float = 3e-3,
) -> Objective:
  """Matches which neurons of the guide are active, summed over stages.

  Maps are taken before their activation. Each stage has half the weight of the
  next, the last one a weight of 1. Where the learner's map has another shape
  than the guide's, a learned convolution and BatchNorm transform it. In a phase
  before the labels the transfer's weight is 1; the paper does not combine it
  with labels.

  Args:
    stages: taps of the learner; () takes the stages that both networks have,
      before their activation.
    guide_stages: as many taps of the guide; () takes the same names, or the
      guide's stages.
    margin: of the hinge, in units of features.
    scale: of the hinge's sum over a map.

  References:
    See `losses.activation_boundary`; stages, connectors, their weights and the
    scale are the CIFAR-100 benchmark's, https://arxiv.org/abs/1910.10699.
  """

  def ends(learner: Outputs, guide: Outputs | None) -> list[taps.Maps]:
    pairs = taps.pairs(learner, guide, stages, guide_stages, suffix='_pre')
    return [regressors.connectable(*pair) for pair in pairs]

  def connectors(pairs: list[taps.Maps]) -> regressors.Connectors:
    return regressors.Connectors(tuple(t.shape[1:] for _, t in pairs))

  def init(key, *, learner, guide, **_):
    pairs = ends(learner, guide)
    return regressors.init(connectors(pairs), key, *(s for s, _ in pairs)), {}

  def loss(params, memory, *, learner, guide, **_):
    pairs = ends(learner, guide)
    own = regressors.apply(connectors(pairs), params, *(s for s, _ in pairs))
    total = jnp.zeros(())
    for s, (_, t) in zip(own, pairs, strict=True):
      total = total / 2 + losses.activation_boundary(s, t, margin)
    return scale * total, memory

  settings: dict[str, object] = dict(
    stages=stages, guide_stages=guide_stages, margin=margin, scale=scale
  )
  return Objective('ab', settings, init, loss)
