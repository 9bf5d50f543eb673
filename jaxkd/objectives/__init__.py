"""Objectives: what an arrow of the graph asks of its learner."""

from jaxkd.objectives.base import Objective, pointwise
from jaxkd.objectives.kd import kd
from jaxkd.objectives.labels import brier, cross_entropy

CATALOG = {
  'brier': brier,
  'cross_entropy': cross_entropy,
  'kd': kd,
}

__all__ = ['CATALOG', 'Objective', 'brier', 'cross_entropy', 'kd', 'pointwise']
