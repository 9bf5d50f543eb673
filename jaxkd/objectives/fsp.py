"""Flow of solution procedure (Yim et al., CVPR 2017).

https://openaccess.thecvf.com/content_cvpr_2017/html/Yim_A_Gift_From_CVPR_2017_paper.html,
"A Gift from Knowledge Distillation: Fast Optimization, Network Minimization and
Transfer Learning". In the paper the student learns it first, before the
labels: see the method `pretrained`.
"""

from collections.abc import Sequence
from itertools import pairwise

import jax.numpy as jnp

from jaxkd import losses
from jaxkd.objectives.base import Objective, Published
from jaxkd.objectives.connected import connected
from jaxkd.types import Array

# In a phase of its own, before the labels.
PUBLISHED = Published(weight=1.0, label_weight=0.0)
EXAMPLE = {'connect': True}


def fsp(
  stages: Sequence[str] = (),
  guide_stages: Sequence[str] = (),
  connect: bool = False,
) -> Objective:
  """Squared error of the flow from each stage to the next.

  A flow is the matrix of products of the two stages' channels; the loss is the
  sum over the pairs of consecutive taps. In a phase before the labels the
  transfer's weight is 1; the paper does not combine it with labels.

  Args:
    stages: taps of the learner, two or more; () takes the stem and the stages
      that both networks have.
    guide_stages: as many taps of the guide; () takes the same names, or the
      guide's stem and stages.
    connect: where the numbers of channels differ, a learned 1 x 1 convolution
      and BatchNorm map the learner's to the guide's. The paper's definition
      has none, and needs equal numbers.

  The loss raises:
    ValueError: the numbers of channels differ, and `connect` is false; a single
      tap.

  References:
    See `losses.fsp`; the taps are the CIFAR-100 benchmark's,
    https://arxiv.org/abs/1910.10699.
  """

  return connected(
    'fsp',
    _flows,
    stages,
    guide_stages,
    connect,
    stem=True,
    remedy='name stages that have as many',
  )


def _flows(own: list[Array], others: list[Array]) -> Array:
  flows = zip(pairwise(own), pairwise(others), strict=True)
  return sum((losses.fsp(*flow) for flow in flows), start=jnp.zeros(()))
