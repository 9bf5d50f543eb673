"""The Python API: what `import jaxkd` offers.

The same engine as the command line: a call builds the config that the command
would take, and runs it.

>>> import tempfile
>>> import jaxkd
>>> folder = tempfile.mkdtemp()  # instead of the usual cache of teachers
>>> result = jaxkd.distill('mlp', 'linear', 'digits', epochs=1, cache=folder)
teacher 1/1: loss ..., test top-1 teacher ... %, ... images/s, ... left
...
>>> sorted(result.networks)
['student', 'teacher']
>>> result.student.top1 == jaxkd.evaluate(result)['top1']
True
>>> logits = result.student(jaxkd.data.load('digits').test.image)
>>> logits.shape
(360, 10)
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
from jaxkd.reports.comparison import Comparison, compare
from jaxkd.training.loop import Epoch

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
