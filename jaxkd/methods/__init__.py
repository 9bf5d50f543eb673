"""Methods: the topology of each paper, as a list of stages."""

from jaxkd.methods.offline import baseline, kd, plain, teacher

CATALOG = {
  'kd': kd,
  'plain': plain,
  'teacher': teacher,
}

__all__ = ['CATALOG', 'baseline', 'kd', 'plain', 'teacher']
