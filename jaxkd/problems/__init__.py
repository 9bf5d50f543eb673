"""Problems: what is predicted from images, and by which metrics.

`Dataset.problem` names the problem that a data set poses. Training, evaluation
and tables ask the problem, and assume nothing about labels themselves.
"""

from jaxkd.catalog import lookup
from jaxkd.data.base import Dataset
from jaxkd.problems.base import Display, Problem
from jaxkd.problems.classification import CLASSIFICATION
from jaxkd.problems.multi_label import MULTI_LABEL

__all__ = [
  'CATALOG',
  'CLASSIFICATION',
  'MULTI_LABEL',
  'Display',
  'Problem',
  'display',
  'of',
]

CATALOG = {'classification': CLASSIFICATION, 'multi_label': MULTI_LABEL}


def of(dataset: Dataset) -> Problem:
  """Returns the problem that a data set poses.

  Raises:
    KeyError: its name is not in the catalogue, with suggestions.
  """
  return lookup('problem', CATALOG, dataset.problem)


def display(metric: str) -> Display:
  """Returns how a metric is shown: the same in every problem that has it.

  A metric of no problem is a plain number under its own name.
  """
  for problem in CATALOG.values():
    if metric in problem.reported:
      return problem.reported[metric]
  return Display(metric)
