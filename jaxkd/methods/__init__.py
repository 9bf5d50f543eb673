"""Methods: the topology of each paper, as a list of phases."""

from jaxkd.methods.assistants import dgkd, takd
from jaxkd.methods.born_again import ban
from jaxkd.methods.catalog import CATALOG, phases, renamed
from jaxkd.methods.distil import distil, kd
from jaxkd.methods.factor_transfer import ft
from jaxkd.methods.gpd import gpd
from jaxkd.methods.mutual import dml
from jaxkd.methods.plain import baseline, kd_baseline, plain
from jaxkd.methods.pretrained import pretrained
from jaxkd.methods.pro_kd import pro_kd
from jaxkd.methods.simkd import simkd
from jaxkd.methods.slkd import slkd
from jaxkd.methods.teacher import TEACHER_LOSSES, teacher

__all__ = [
  'CATALOG',
  'TEACHER_LOSSES',
  'ban',
  'baseline',
  'dgkd',
  'distil',
  'dml',
  'ft',
  'gpd',
  'kd',
  'kd_baseline',
  'phases',
  'plain',
  'pretrained',
  'pro_kd',
  'renamed',
  'simkd',
  'slkd',
  'takd',
  'teacher',
]
