"""Distillation methods as graphs: the description, and modules bound to it."""

from jaxkd.graph.description import (
  LABELS,
  OBJECTIVES,
  Fusion,
  Graph,
  Phase,
  Timed,
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
  Reused,
  Shared,
  Sharing,
  same,
)

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
  'Reused',
  'Shared',
  'Sharing',
  'Timed',
  'Transfer',
  'Update',
  'Weight',
  'same',
]
