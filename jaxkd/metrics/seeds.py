"""Statistics of a metric over seeds: spread, and differences of paired runs.

They are for a few runs of each recipe, so that intervals are Student's.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

CONFIDENCE = 0.95


class Spread(NamedTuple):
  """The values of one recipe.

  n: how many.
  mean: their mean; NaN for none.
  sd: their standard deviation, with n - 1 in its denominator; None for fewer
    than two.
  """

  n: int
  mean: float
  sd: float | None


class Difference(NamedTuple):
  """A recipe's values minus those of a baseline, over pairs of runs.

  n: number of pairs.
  mean: of the differences; NaN for no pair.
  error: standard error of that mean; None for fewer than two pairs.
  low: the lower end of the confidence interval of the mean; None likewise.
  high: the upper end.
  """

  n: int
  mean: float
  error: float | None
  low: float | None
  high: float | None


def spread(values: Sequence[float]) -> Spread:
  """Returns the mean and the standard deviation of values."""
  n = len(values)
  mean = float(np.mean(values)) if n else math.nan
  return Spread(n, mean, float(np.std(values, ddof=1)) if n > 1 else None)


def interval(
  values: Sequence[float], confidence: float = CONFIDENCE
) -> tuple[float, float] | None:
  """Returns Student's confidence interval of the mean of values.

  It is the mean ± t sd / sqrt(n), with t the quantile of Student's distribution
  with n - 1 degrees of freedom; None for fewer than two values.
  """
  from scipy import stats

  n, mean, sd = spread(values)
  if sd is None:
    return None
  quantile = float(stats.t.ppf((1 + confidence) / 2, n - 1))
  half = quantile * sd / math.sqrt(n)
  return mean - half, mean + half


def difference(
  values: Mapping[str, float],
  baseline: Mapping[str, float],
  confidence: float = CONFIDENCE,
) -> Difference:
  """Returns the paired difference of two recipes.

  Args:
    values: of a recipe, by seed.
    baseline: of another recipe, likewise. Seeds that only one of them has are
      left out.
    confidence: of the interval, between 0 and 1.
  """
  pairs = [values[seed] - baseline[seed] for seed in values if seed in baseline]
  n, mean, sd = spread(pairs)
  ends = interval(pairs, confidence)
  if sd is None or ends is None:
    return Difference(n, mean, None, None, None)
  return Difference(n, mean, sd / math.sqrt(n), *ends)
