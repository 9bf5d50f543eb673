"""Attention transfer (Zagoruyko and Komodakis, ICLR 2017).

https://arxiv.org/abs/1612.03928
"""

from collections.abc import Sequence

from jaxkd import losses
from jaxkd.objectives.base import Objective, Published
from jaxkd.objectives.compared import at_stages

PUBLISHED = Published(weight=1000.0)


def at(
  stages: Sequence[str] = (), guide_stages: Sequence[str] = ()
) -> Objective:
  """Matches where the networks' maps have their energy, summed over stages.

  The larger map is averaged to the size of the smaller one. The benchmark's
  weight of the transfer is 1000.

  Args:
    stages: taps of the learner; () takes the stages that both networks have.
    guide_stages: as many taps of the guide; () takes the same names, or the
      guide's stages.

  References:
    See `losses.attention`; stages and weight are the CIFAR-100 benchmark's,
    https://arxiv.org/abs/1910.10699.
  """
  return at_stages('at', losses.attention, stages, guide_stages)
