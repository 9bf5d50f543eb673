"""The recipes of a study side by side: means over seeds, paired differences.

The results of a recipe are network -> metric -> a list with a value for each
seed. The same place in two lists is the same seed, so differences are taken
seed by seed before they are averaged. A metric of a network is written
NETWORK/METRIC.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxkd import problems
from jaxkd.catalog import lookup
from jaxkd.text import table

Results = Mapping[str, Mapping[str, Sequence[float | None]]]  # of one recipe


def grouped(recipes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
  """Returns recipes called GROUP/NAME as group -> name -> recipe.

  >>> grouped({'a/x': 1, 'a/y': 2, 'z': 3})
  {'a': {'x': 1, 'y': 2}, '': {'z': 3}}
  """
  groups: dict[str, dict[str, Any]] = {}
  for path, recipe in recipes.items():
    group, _, name = path.rpartition('/')
    groups.setdefault(group, {})[name] = recipe
  return groups


def values_of(results: Results, key: str) -> list[float]:
  """Returns the values of NETWORK/METRIC of a recipe, for each seed.

  A value that is not finite, which is null on disk, is NaN.

  Raises:
    KeyError: no such network or metric, with suggestions.
  """
  network, _, metric = key.partition('/')
  values = lookup('metric', lookup('network', results, network), metric)
  return [math.nan if value is None else value for value in values]


def differences(
  recipes: Mapping[str, Results], outcome: str, baseline: str = ''
) -> dict[str, list[float]]:
  """Returns the outcome of each other recipe minus the baseline's, by seed.

  Args:
    recipes: their results, by name.
    outcome: NETWORK/METRIC.
    baseline: name of a recipe; the first recipe, if none has that name.
  """
  first = baseline if baseline in recipes else next(iter(recipes))
  base = values_of(recipes[first], outcome)
  return {
    name: [x - y for x, y in zip(values_of(recipe, outcome), base, strict=True)]
    for name, recipe in recipes.items()
    if name != first
  }


def rank_correlations(
  recipes: Mapping[str, Results], x: str, y: str
) -> list[float]:
  """Returns Spearman's correlation of two metrics over recipes, by seed.

  It is NaN for a seed for which all recipes have the same value.
  """
  from scipy import stats

  values = [
    np.array([values_of(recipe, key) for recipe in recipes.values()])
    for key in (x, y)
  ]
  # Not spearmanr: it warns of equal values.
  ranks = [stats.rankdata(both, axis=0) for both in values]
  centred = [rank - rank.mean(axis=0) for rank in ranks]
  norms = [np.sqrt(np.sum(rank**2, axis=0)) for rank in centred]
  with np.errstate(invalid='ignore'):
    ratio = np.sum(centred[0] * centred[1], axis=0) / (norms[0] * norms[1])
  return ratio.tolist()


def dependence(recipes: Mapping[str, Results], x: str, y: str) -> str:
  """Returns the rank correlations of two metrics over recipes, as text."""
  values = ', '.join(f'{r:.3f}' for r in rank_correlations(recipes, x, y))
  return (
    f'\nSpearman of {x} and {y} over these {len(recipes)} recipes, by seed:'
    f' {values}'
  )


def report(
  head: str,
  recipes: Mapping[str, Results],
  *,
  columns: Sequence[str],
  outcome: str,
  baseline: str = '',
) -> str:
  """Returns recipes as a table: means over seeds ± their standard deviation.

  Args:
    head: of the column of names.
    recipes: their results, by name.
    columns: metrics, NETWORK/METRIC.
    outcome: the metric whose paired difference is in the last column.
    baseline: see `differences`.
  """
  gaps = differences(recipes, outcome, baseline)
  split = [key.partition('/') for key in columns]
  rows = [
    ('', *(network for network, _, _ in split), outcome),
    (head, *(metric for _, _, metric in split), 'difference'),
  ]
  for name, recipe in recipes.items():
    cells = [_spread(values_of(recipe, key), key) for key in columns]
    gap = _spread(gaps[name], outcome, '+') if name in gaps else ''
    rows.append((name, *cells, gap))
  return table(rows, right=tuple(range(1, len(rows[0]))))


def scaled(values: Sequence[float], key: str) -> list[float]:
  """Returns the values of a metric as they are shown: fractions in per cent."""
  factor = 100 if _in_percent(key) else 1
  return [factor * value for value in values]


def label(key: str) -> str:
  """Returns a metric's name as it is shown.

  >>> label('student/top1')
  'student top1 (%)'
  """
  words = key.replace('/', ' ').replace('_', ' ')
  return f'{words} (%)' if _in_percent(key) else words


def _in_percent(key: str) -> bool:
  return problems.display(key.rpartition('/')[2]).percent


def _spread(values: Sequence[float], key: str, sign: str = '') -> str:
  """Returns mean and deviation of a metric; fractions in per cent."""
  values, percent = scaled(values, key), _in_percent(key)
  digits = 2 if percent else 4
  text = f'{np.mean(values):{sign}.{digits}f}'
  if len(values) > 1:
    text += f' ± {np.std(values, ddof=1):.{digits}f}'
  return text + (' %' if percent else '')
