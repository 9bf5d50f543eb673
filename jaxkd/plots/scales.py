"""Axes that can be read: round ticks, and limits that most values fit."""

import math
from collections.abc import Iterable, Sequence

STEPS = (1, 2, 5, 10)  # times a power of ten
CUT = 0.1  # the largest share of values outside of the limits
FEWEST = 4  # values of a curve, so that one may be outside
WORTH = 2.0  # by which the range must shrink for that


def robust_limits(
  values: Iterable[float], curves: int = 1
) -> tuple[float, float]:
  """Returns limits of an axis that show most values well.

  The values of the first epochs can be so far off that they flatten the rest.
  Up to a tenth of the values, or one for each curve, are left out at the top or
  at the bottom where this halves the range at least. Curves need four values.

  Args:
    values: of all curves; those that are not finite are ignored.
    curves: their number.

  Returns:
    (0, 1) without any value; equal values have limits on both sides of them.

  >>> robust_limits([7.0, 1.2, 1.0, 0.9, 0.8])
  (0.8, 1.2)
  >>> robust_limits([2.0, 1.5, 1.0, 0.9, 0.8])
  (0.8, 2.0)
  """
  kept = sorted(x for x in values if math.isfinite(x))
  if not kept:
    return 0.0, 1.0
  enough = len(kept) >= FEWEST * curves
  spare = max(curves, int(CUT * len(kept))) if enough else 0
  while cut := _worth_cutting(kept, spare):
    spare -= len(kept) - len(cut)
    kept = cut
  low, high = kept[0], kept[-1]
  if low == high:
    margin = abs(low) / 10 or 0.5
    return low - margin, high + margin
  return low, high


def _worth_cutting(ordered: Sequence[float], spare: int) -> Sequence[float]:
  """Returns the values without some at one end, [] if all are to be kept.

  Args:
    ordered: all of them.
    spare: how many may be left out, at most.
  """
  whole = ordered[-1] - ordered[0]
  for count in range(1, spare + 1):
    ends = ordered[:-count], ordered[count:]
    narrow = min(ends, key=lambda kept: kept[-1] - kept[0])
    if 0 < narrow[-1] - narrow[0] <= whole / WORTH:
      return narrow
  return []


def ticks(low: float, high: float, most: int = 5) -> list[float]:
  """Returns round numbers that cover a range, evenly spaced.

  Args:
    low: the lower end.
    high: the upper end, above it.
    most: of the numbers within the range, about.

  Returns:
    The first is at most `low`, and the last is at least `high`.

  >>> ticks(0.8, 1.23)
  [0.8, 0.9, 1.0, 1.1, 1.2, 1.3]
  >>> ticks(0, 100)
  [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]
  """
  step = _step((high - low) / most)
  start, end = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
  digits = max(0, 1 - math.floor(math.log10(step)))
  return [round(n * step, digits) for n in range(start, end + 1)]


def epoch_ticks(first: int, last: int, most: int = 6) -> list[int]:
  """Returns round numbers of epochs within a range.

  >>> epoch_ticks(1, 8)
  [2, 4, 6, 8]
  >>> epoch_ticks(1, 3)
  [1, 2, 3]
  """
  step = max(1, round(_step((last - first) / most))) if last > first else 1
  return [x for x in range(first, last + 1) if x % step == 0] or [first]


def _step(rough: float) -> float:
  """Returns the least round step that is at least a rough one."""
  power = 10.0 ** math.floor(math.log10(rough))
  return next(x * power for x in STEPS if x * power >= rough * (1 - 1e-9))


def log_ticks(low: float, high: float) -> list[float]:
  """Returns powers of ten that cover a range of positive numbers.

  >>> log_ticks(0.0005, 0.05)
  [0.0001, 0.001, 0.01, 0.1]
  """
  first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
  return [float(f'1e{n}') for n in range(first, max(last, first + 1) + 1)]


def shown(value: float) -> str:
  """Returns a number of an axis or a curve as text, of four digits at most.

  >>> shown(2570.3), shown(0.05), shown(97.222), shown(1e-05), shown(12.0)
  ('2,570', '0.05', '97.22', '1e-05', '12')
  """
  if abs(value) >= 1000:
    return f'{value:,.0f}'
  return f'{value:.4g}'
