"""jaxkd: knowledge distillation of image classifiers in JAX and Flax.

Symbols, used in every docstring of the project:

  B  batch             H W C  height, width, channels of a map (NHWC)
  K  classes           N  tokens, or examples of a data set
  D  feature width     M  members of an ensemble, or branches
  T  temperature       s, t  student and teacher (learner and guide)
  p, q  probabilities of the teacher and of the student

Arrays are NHWC and float32 unless stated otherwise. Every loss takes the
learner first and the guide second.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from jaxkd.api import (
    Comparison,
    Epoch,
    Functional,
    Network,
    Result,
    compare,
    distill,
    evaluate,
    functional,
    list_data,
    list_methods,
    list_models,
    list_objectives,
    load,
    load_network,
    train,
  )

__version__ = '0.2.0'
__all__ = [
  'Comparison',
  'Epoch',
  'Functional',
  'Network',
  'Result',
  'compare',
  'distill',
  'evaluate',
  'functional',
  'list_data',
  'list_methods',
  'list_models',
  'list_objectives',
  'load',
  'load_network',
  'train',
]


def __getattr__(name: str) -> Any:
  """Imports the Python API when it is first used, since it imports all else."""
  if name not in __all__:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  from jaxkd import api

  return getattr(api, name)
