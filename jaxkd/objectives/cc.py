"""Correlation congruence (Peng et al., ICCV 2019).

https://arxiv.org/abs/1904.01802
"""

import jax

from jaxkd import losses
from jaxkd.catalog import check_whole
from jaxkd.objectives import regressors, taps
from jaxkd.objectives.base import Objective, Published

PUBLISHED = Published(weight=0.02)


def cc(
  width: int = 128, stage: str = 'pooled', guide_stage: str = ''
) -> Objective:
  """Correlations of the gaps between the networks, in neighbours of the batch.

  Both networks' features are embedded linearly, and both embeddings are
  learned, so that the loss can also fall without the learner. This is as in the
  benchmark, whose weight of the transfer is 0.02.

  Args:
    width: of the embeddings.
    stage: the tap of the learner, or 'last', its deepest stage.
    guide_stage: the tap of the guide, likewise; '' takes the same name.

  Raises:
    ValueError: a width below 1.

  References:
    See `losses.correlation_congruence`; embeddings, tap and weight are the
    CIFAR-100 benchmark's, https://arxiv.org/abs/1910.10699.
  """
  check_whole('cc', 'width', width)
  embedding = regressors.Embedding(width)

  def init(key, *, learner, guide, **_):
    pair = taps.pair(learner, guide, stage, guide_stage)
    keys = jax.random.split(key)
    own = [
      regressors.init(embedding, k, x) for k, x in zip(keys, pair, strict=True)
    ]
    return dict(zip(('learner', 'guide'), own, strict=True)), {}

  def loss(params, memory, *, learner, guide, **_):
    s, t = taps.pair(learner, guide, stage, guide_stage)
    s = regressors.apply(embedding, params['learner'], s)
    t = regressors.apply(embedding, params['guide'], t)
    return losses.correlation_congruence(s, t), memory

  settings: dict[str, object] = dict(
    width=width, stage=stage, guide_stage=guide_stage
  )
  return Objective('cc', settings, init, loss)
