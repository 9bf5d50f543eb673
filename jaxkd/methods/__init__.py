"""Methods: the topology of each paper, as a list of phases."""

from jaxkd.methods.assistants import dgkd, takd
from jaxkd.methods.born_again import ban
from jaxkd.methods.following import pro_kd
from jaxkd.methods.gpd import gpd
from jaxkd.methods.mutual import dml
from jaxkd.methods.offline import (
  baseline,
  distil,
  kd,
  kd_baseline,
  plain,
  teacher,
)
from jaxkd.methods.pretrain import ft, pretrained
from jaxkd.methods.simkd import simkd
from jaxkd.methods.slkd import slkd

CATALOG = {
  'ban': ban,
  'dgkd': dgkd,
  'distil': distil,
  'dml': dml,
  'ft': ft,
  'gpd': gpd,
  'kd': kd,
  'plain': plain,
  'pretrained': pretrained,
  'pro_kd': pro_kd,
  'simkd': simkd,
  'slkd': slkd,
  'takd': takd,
  'teacher': teacher,
}

__all__ = [
  'CATALOG',
  'ban',
  'baseline',
  'dgkd',
  'distil',
  'dml',
  'ft',
  'gpd',
  'kd',
  'kd_baseline',
  'plain',
  'pretrained',
  'pro_kd',
  'simkd',
  'slkd',
  'takd',
  'teacher',
]
