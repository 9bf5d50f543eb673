"""Distillation methods as graphs: the description, and modules bound to it."""

from jaxkd.graph.description import (
  LABELS,
  OBJECTIVES,
  Fusion,
  Graph,
  Phase,
  Transfer,
  Update,
  Weight,
)
from jaxkd.graph.networks import (
  Expander,
  Expansion,
  Frozen,
  Learner,
  Model,
  Network,
  ReusedHead,
  Shared,
  Sharing,
  role,
  same,
)
from jaxkd.graph.picture import graph_svg

__all__ = [
  'LABELS',
  'OBJECTIVES',
  'Expander',
  'Expansion',
  'Frozen',
  'Fusion',
  'Graph',
  'Learner',
  'Model',
  'Network',
  'Phase',
  'ReusedHead',
  'Shared',
  'Sharing',
  'Transfer',
  'Update',
  'Weight',
  'graph_svg',
  'role',
  'same',
]
