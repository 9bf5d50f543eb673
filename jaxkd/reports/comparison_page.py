"""A comparison as a page: tables, seeds as dots, settings, sources, commits."""

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxkd.reports import comparison_text as texts
from jaxkd.reports import page as pages
from jaxkd.runs import recipes

if TYPE_CHECKING:
  from jaxkd.reports.comparison import Comparison, Row, Table

TICKS = 5  # about so many on the axis
MARGIN = 0.06  # of the width, left and right of the values


class Dot(NamedTuple):
  """A run in the plot: its seed, its place in per cent, its value as text."""

  seed: str
  x: float
  value: str


class Strip(NamedTuple):
  """A recipe in the plot; places are per cent of the width.

  label: of the recipe.
  dots: its runs.
  mean: place of the mean, None if it is not finite.
  low: place of the lower end of the interval of the mean, None without one.
  high: of the upper end.
  text: the numbers, for those who do not see the picture.
  """

  label: str
  dots: tuple[Dot, ...]
  mean: float | None
  low: float | None
  high: float | None
  text: str


class Plot(NamedTuple):
  """The seeds of all recipes on one axis.

  strips: one for each recipe.
  ticks: place and text of each tick of the axis.
  """

  strips: tuple[Strip, ...]
  ticks: tuple[tuple[float, str], ...]


def page(comparison: 'Comparison') -> str:
  """Returns the page."""
  return pages.render(
    'comparison.html.j2',
    several=texts.several(comparison),
    tables=[_view(table) for table in comparison.tables],
    left_out=[(str(k), x) for k, x in comparison.left_out.items()],
  )


def _view(table: 'Table') -> dict[str, Any]:
  """Returns what the template shows of a table."""
  return {
    'data': table.data,
    'metric': texts.metric(table),
    'baseline': table.baseline,
    'rows': [
      {'number': n, **_row(table, row)} for n, row in enumerate(table.rows)
    ],
    'plot': plot(table),
    'published': any(row.published for row in table.rows),
    'one_seed': any(row.spread.n == 1 for row in table.rows),
    'settings': [
      (key, [recipes.show(row.settings[key]) for row in table.rows])
      for key in table.differing
    ],
    'commits': [
      (commit, [row.label for row in table.rows if commit in row.commits])
      for commit in table.commits
    ],
    'figures': [
      (row.label, each) for row in table.rows for each in row.published
    ],
    'runs': [
      (row.label, seed, str(run.path), run.commit or 'unknown', run.notes)
      for row in table.rows
      for seed, run in row.runs.items()
    ],
  }


def _row(table: 'Table', row: 'Row') -> dict[str, Any]:
  return {
    'label': row.label,
    'n': row.spread.n,
    'spread': texts.spread(table, row),
    'difference': texts.difference(table, row),
    'interval': texts.interval(table, row),
    'pairs': texts.pairs(row),
    'published': [
      (f'{x.figure.top1:.2f}', bool(x.differences)) for x in row.published
    ],
  }


def plot(table: 'Table') -> Plot | None:
  """Returns the plot of a table, None if no value is finite."""
  ends = [
    x for row in table.rows for x in (*row.values.values(), *_ends(table, row))
  ]
  finite = [table.factor * x for x in ends if math.isfinite(x)]
  if not finite:
    return None
  low, high = min(finite), max(finite)
  width = (high - low) or abs(high) or 1.0
  left, right = low - MARGIN * width, high + MARGIN * width

  def place(value: float) -> float | None:
    if not math.isfinite(value):
      return None
    return round(100 * (table.factor * value - left) / (right - left), 3)

  strips = []
  for row in table.rows:
    dots = tuple(
      Dot(seed, x, texts.number(table, value))
      for seed, value in row.values.items()
      if (x := place(value)) is not None
    )
    low_end, high_end = map(place, _ends(table, row) or (math.nan, math.nan))
    mean, words = place(row.spread.mean), _words(table, row)
    strips.append(Strip(row.label, dots, mean, low_end, high_end, words))
  ticks = tuple(
    (round(100 * (x - left) / (right - left), 3), f'{x:g}')
    for x in nice_ticks(left, right)
  )
  return Plot(tuple(strips), ticks)


def _ends(table: 'Table', row: 'Row') -> tuple[float, ...]:
  """Returns the ends of the interval of a mean as drawn, or nothing.

  That of a fraction is cut at 0 and 1, which few seeds can exceed by far.
  """
  ends = row.interval or ()
  if not table.display.percent:
    return ends
  return tuple(min(max(end, 0.0), 1.0) for end in ends)


def _words(table: 'Table', row: 'Row') -> str:
  values = ', '.join(
    f'{texts.number(table, x)} (seed {seed})' for seed, x in row.values.items()
  )
  return f'{row.label}: {values}; mean {texts.number(table, row.spread.mean)}'


def nice_ticks(low: float, high: float) -> list[float]:
  """Returns round numbers between two others, about `TICKS` of them.

  >>> nice_ticks(93.2, 98.1)
  [94.0, 95.0, 96.0, 97.0, 98.0]
  """
  rough = (high - low) / TICKS
  power = 10.0 ** math.floor(math.log10(rough))
  step = power * min((1, 2, 5, 10), key=lambda x: abs(x - rough / power))
  first, last = math.ceil(low / step), math.floor(high / step)
  digits = max(0, 1 - math.floor(math.log10(step)))
  return [round(n * step, digits) for n in range(first, last + 1)]
