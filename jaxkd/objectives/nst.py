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
  """Which patterns the networks' channels respond to, summed over stages.

  Maps meet in the smaller size. The benchmark's weight of the transfer is 50.

  Args:
    stages: taps of the learner; () takes its stages, as far as both networks
      have them.
    guide_stages: taps of the guide, as many; () are those of the same names, or
      its stages.

  References:
    See `losses.nst`; stages and weight are the CIFAR-100 benchmark's,
    https://arxiv.org/abs/1910.10699.
  """
  return at_stages('nst', losses.nst, stages, guide_stages)
