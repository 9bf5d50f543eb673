"""Distillation by singular value decomposition (Lee, Kim, Song, ECCV 2018).

https://arxiv.org/abs/1807.06819. Two losses go by this name, since published
codes read the paper's matrix in two ways.
"""

from collections.abc import Sequence

from jaxkd import losses
from jaxkd.catalog import lookup
from jaxkd.losses import sizes
from jaxkd.objectives.base import Objective, Published
from jaxkd.objectives.connected import connected
from jaxkd.types import Array

PUBLISHED = Published(weight=1.0)
EXAMPLE = {'connect': True}


def kdsvd(
  reading: str = 'channels',
  stages: Sequence[str] = (),
  guide_stages: Sequence[str] = (),
  connect: bool = False,
) -> Objective:
  """How the main singular vectors of each stage become those of the next.

  The benchmark's weight of the transfer is 1.

  Args:
    reading: of a map as a matrix. 'channels' takes its positions by its
      channels, of which both networks need as many (RepDistiller's code);
      'rows' takes its rows, of all channels, by its columns, of any maps
      (mdistiller's). Deviation: where maps differ in size, 'rows' averages them
      to the smaller one.
    stages: taps of the learner, two or more; () takes its stages, as far as
      both networks have them.
    guide_stages: taps of the guide, as many; () are those of the same names, or
      its stages.
    connect: where the learner's map has other channels than the guide's, a
      learned 1 x 1 convolution and BatchNorm lead to as many.

  Raises:
    KeyError: no such reading.
    ValueError: in the loss: other channels, and `connect` is false; one tap;
      columns of maps that have a single one.

  References:
    See `losses.svd_channels` and `losses.svd_rows`.
  """
  compare, remedy = lookup('reading', READINGS, reading)
  return connected(
    'kdsvd',
    compare,
    stages,
    guide_stages,
    connect,
    remedy=remedy,
    reading=reading,
  )


def _rows(own: list[Array], others: list[Array]) -> Array:
  pairs = [sizes.match(*maps) for maps in zip(own, others, strict=True)]
  if all(s.shape[2] == 1 for s, _ in pairs):
    raise ValueError(
      "kdsvd with reading='rows' compares the columns of maps, and these have"
      " one: set reading to 'channels', or name taps of maps"
    )
  return losses.svd_rows(*zip(*pairs, strict=True))


# The loss, and what else to do where it needs as many channels.
READINGS = {
  'channels': (
    losses.svd_channels,
    "reading to 'rows', which compares maps of any channels",
  ),
  'rows': (_rows, ''),
}
