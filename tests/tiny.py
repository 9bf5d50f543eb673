"""Experiments small enough to be trained in a test."""

from jaxkd.config import default
from jaxkd.runs.experiment import Experiment, build


def config(**changes):
  """A run of seconds: a synthetic data set, two networks without convolutions.

  Its batches have one size, so that each phase compiles one step.

  Args:
    **changes: values by key, with dots written as two underscores.
  """
  tiny = default()
  tiny.epochs = 2
  tiny.batch_size = 8
  tiny.data.name = 'synthetic'
  tiny.data.image_size = 8
  tiny.data.settings = dict(
    num_classes=3, channels=1, train_size=40, test_size=21
  )
  tiny.student.name = 'mlp'
  tiny.teacher.name = 'mlp'
  tiny.method = dict(name='kd')
  for key, value in changes.items():
    *parents, last = key.split('__')
    node = tiny
    for parent in parents:
      node = node[parent]
    node[last] = value
  return tiny


def experiment(**changes) -> Experiment:
  """The experiment of `config(**changes)`."""
  return build(config(**changes))
