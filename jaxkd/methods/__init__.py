"""Methods: the topology of each paper, as a list of stages."""

from jaxkd.methods.gpd import gpd
from jaxkd.methods.offline import (
  baseline,
  distil,
  kd,
  kd_baseline,
  plain,
  teacher,
)
from jaxkd.methods.slkd import slkd

CATALOG = {
  'distil': distil,
  'gpd': gpd,
  'kd': kd,
  'plain': plain,
  'slkd': slkd,
  'teacher': teacher,
}

__all__ = [
  'CATALOG',
  'baseline',
  'distil',
  'gpd',
  'kd',
  'kd_baseline',
  'plain',
  'slkd',
  'teacher',
]
