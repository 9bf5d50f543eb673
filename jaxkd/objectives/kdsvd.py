"""Distillation by singular value decomposition (Lee, Kim, Song, ECCV 2018).

https://arxiv.org/abs/1807.06819. Two losses have this name, since published
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
  """Compares the relation of each stage's main singular vectors to the next's.

  The benchmark's weight of the transfer is 1.

  Args:
    reading: of a map as a matrix. 'channels': positions by channels, which
      needs equal numbers of channels (RepDistiller's code); 'rows': the rows of
      all channels by columns, for any maps (mdistiller's). Deviation: where
      maps differ in size, 'rows' averages them to the smaller one.
    stages: taps of the learner, two or more; () takes the stages that both
      networks have.
    guide_stages: as many taps of the guide; () takes the same names, or the
      guide's stages.
    connect: where the numbers of channels differ, a learned 1 x 1 convolution
      and BatchNorm map the learner's to the guide's.

  Raises:
    KeyError: no such reading.

  The loss raises:
    ValueError: the numbers of channels differ, and `connect` is false; a single
      tap; the reading 'rows' of maps with a single column.

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
      "kdsvd with reading='rows' compares the columns of maps, and these have a"
      " single one: set reading to 'channels', or name taps of maps"
    )
  return losses.svd_rows(*zip(*pairs, strict=True))


# The loss, and an alternative to `connect` where it needs equal channels.
READINGS = {
  'channels': (
    losses.svd_channels,
    "reading to 'rows', which compares maps of any channels",
  ),
  'rows': (_rows, ''),
}
