"""The Python API: what `import jaxkd` offers.

The same engine as the command line: a call builds the config that the command
would take, and runs it.
"""

from jaxkd.api.catalogues import (
  list_data,
  list_methods,
  list_models,
  list_objectives,
)
from jaxkd.api.evaluation import evaluate
from jaxkd.api.functional import Functional, functional
from jaxkd.api.networks import Network, load_network
from jaxkd.api.results import Result, load
from jaxkd.api.training import distill, train
from jaxkd.training.loop import Epoch

__all__ = [
  'Epoch',
  'Functional',
  'Network',
  'Result',
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
