"""Methods: the topology of each paper, as a list of stages."""

from jaxkd.methods.gpd import gpd
from jaxkd.methods.offline import baseline, kd, kd_baseline, plain, teacher

CATALOG = {
  'gpd': gpd,
  'kd': kd,
  'plain': plain,
  'teacher': teacher,
}

__all__ = [
  'CATALOG',
  'baseline',
  'gpd',
  'kd',
  'kd_baseline',
  'plain',
  'teacher',
]
