"""Neuron selectivity transfer (Huang and Wang, 2017).

https://arxiv.org/abs/1707.01219
"""

from collections.abc import Sequence

from jaxkd import losses
from jaxkd.objectives.base import Objective, Published
from jaxkd.objectives.compared import at_stages

PUBLISHED = Published(weight=50.0)


def nst(
  stages: Sequence[str] = (), guide_stages: Sequence[str] = ()
) -> Objective:
  """Matches the patterns that channels respond to, summed over stages.

  The larger map is averaged to the size of the smaller one. The benchmark's
  weight of the transfer is 50.

  Args:
    stages: taps of the learner; () takes the stages that both networks have.
    guide_stages: as many taps of the guide; () takes the same names, or the
      guide's stages.

  References:
    See `losses.nst`; stages and weight are the CIFAR-100 benchmark's,
    https://arxiv.org/abs/1910.10699.
  """
  return at_stages('nst', losses.nst, stages, guide_stages)
