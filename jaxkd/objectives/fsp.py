"""Flow of solution procedure (Yim et al., CVPR 2017).

https://openaccess.thecvf.com/content_cvpr_2017/html/Yim_A_Gift_From_CVPR_2017_paper.html,
"A Gift from Knowledge Distillation: Fast Optimization, Network Minimization and
Transfer Learning". There it is what the student learns first, before the
labels: see the method `pretrained`.
"""

from collections.abc import Sequence
from itertools import pairwise

import jax.numpy as jnp

from jaxkd import losses
from jaxkd.objectives.base import Objective, Published
from jaxkd.objectives.connected import connected
from jaxkd.types import Array

# It comes in a phase of its own, before the labels.
PUBLISHED = Published(weight=1.0, label_weight=0.0)
EXAMPLE = {'connect': True}


def fsp(
  stages: Sequence[str] = (),
  guide_stages: Sequence[str] = (),
  connect: bool = False,
) -> Objective:
  """How each stage becomes the next one: products of their channels.

  Summed over the pairs of consecutive taps. In the stage before the training
  the transfer's weight is 1; together with labels, the paper has none.

  Args:
    stages: taps of the learner, two or more; () takes its stem and its stages,
      as far as both networks have them.
    guide_stages: taps of the guide, as many; () are those of the same names, or
      its stem and stages.
    connect: where the learner's map has other channels than the guide's, a
      learned 1 x 1 convolution and BatchNorm lead to as many. Without, the
      paper's definition ends there.

  Raises:
    ValueError: in the loss: other channels, and `connect` is false; one tap.

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
