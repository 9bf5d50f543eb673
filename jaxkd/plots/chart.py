"""Line charts of values by epoch, as SVG for pages and as PNG."""

import dataclasses
import functools
import json
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from jaxkd.plots import scales
from jaxkd.plots.style import (
  COLOURS,
  INK,
  STUDENT_COLOUR,
  label,
  save,
  two_axes,
)

PALETTE = (STUDENT_COLOUR, *COLOURS)  # the first is that of the result
WIDTH, HEIGHT = 360, 214
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 34  # margins around the curves
MARKED = 12  # the most points of a curve that are drawn as dots
COLUMNS = 3  # of the PNG


@dataclasses.dataclass(frozen=True)
class Series:
  """A curve.

  name: of it.
  x: epochs.
  y: values; NaN where there is none.
  colour: its place in `PALETTE`, which is repeated.
  dashed: its line is.
  bold: its line is thick.
  """

  name: str
  x: Sequence[float]
  y: Sequence[float]
  colour: int = 0
  dashed: bool = False
  bold: bool = False


@dataclasses.dataclass(frozen=True)
class Chart:
  """Curves in one frame.

  title: of the values.
  series: the curves.
  unit: behind values, such as ' %'.
  logarithmic: the vertical axis is, where all values are above 0.
  zero: whether there is a line at 0.
  """

  title: str
  series: Sequence[Series]
  unit: str = ''
  logarithmic: bool = False
  zero: bool = False

  @property
  def values(self) -> list[float]:
    """All values that are finite."""
    return [y for x in self.series for y in x.y if math.isfinite(y)]

  @functools.cached_property
  def is_logarithmic(self) -> bool:
    """Whether the vertical axis is: where this can be seen, and is possible."""
    values = self.values
    possible = self.logarithmic and values and min(values) > 0
    return bool(possible and max(values) > 5 * min(values))

  @functools.cached_property
  def ticks(self) -> list[float]:
    """Values with a line; the first and the last are the frame's."""
    values = self.values
    if self.is_logarithmic:
      return scales.log_ticks(min(values), max(values))
    low, high = scales.robust_limits(values, len(self.series))
    if self.zero:
      low, high = min(low, 0), max(high, 0)
    return scales.ticks(low, high)

  @functools.cached_property
  def epochs(self) -> tuple[float, float]:
    """The first epoch and the last."""
    every = [x for series in self.series for x in series.x] or [0, 1]
    return min(every), max(every)

  @functools.cached_property
  def outside(self) -> list[tuple[Series, float, float]]:
    """The curve, the epoch and the value of each point outside the frame."""
    low, high = self.ticks[0], self.ticks[-1]
    return [
      (series, x, y)
      for series in self.series
      for x, y in zip(series.x, series.y, strict=True)
      if math.isfinite(y) and not low <= y <= high
    ]

  @property
  def note(self) -> str:
    """Which values are outside the frame; '' if none is."""
    if not self.outside:
      return ''
    parts = []
    for name in dict.fromkeys(series.name for series, _, _ in self.outside):
      own = [(x, y) for s, x, y in self.outside if s.name == name]
      far = max(own, key=lambda point: abs(point[1] - self.ticks[0]))
      more = f' and {len(own) - 1} more' if len(own) > 1 else ''
      value = f'{scales.shown(far[1])}{self.unit}'
      parts.append(f'{name} {value} in epoch {far[0]:g}{more}')
    return f'Outside the frame: {"; ".join(parts)}'


def chart_svg(chart: Chart) -> str:
  """Returns a chart as an SVG element, without its title and legend.

  Curves have the classes s0, s1, ... of their colour; a page may set others for
  dark backgrounds. `data-chart` has the values, for a script that shows them.
  """
  place = _Frame(chart)
  lines = [
    f'<svg xmlns="http://www.w3.org/2000/svg" role="img"'
    f' aria-label={quoteattr(_spoken(chart))}'
    f' viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    ' font-family="system-ui, sans-serif" font-size="11"'
    f' fill="currentColor" data-chart={quoteattr(_data(chart))}>',
    *_axes(chart, place),
    # An inner element clips what is outside of it.
    f'<svg x="{LEFT}" y="{TOP - 4}" width="{place.width}"'
    f' height="{place.height + 8}"'
    f' viewBox="{LEFT} {TOP - 4} {place.width} {place.height + 8}">',
  ]
  for series in sorted(chart.series, key=lambda x: x.bold):
    lines += _curve(series, place)
  lines.append('</svg>')
  taken: dict[tuple[float, bool], int] = {}  # marks at the same place
  for series, x, y in chart.outside:
    up = y > chart.ticks[-1]
    number = taken.setdefault((x, up), 0)
    taken[x, up] += 1
    lines.append(_arrow_head(series, place.x(x) + 10 * number, up, place))
  return '\n'.join([*lines, '</svg>'])


class _Frame:
  """Where values are in the picture."""

  def __init__(self, chart: Chart):
    self._log = chart.is_logarithmic
    self._first, self._last = chart.epochs
    self._low, self._high = map(self._scaled, (chart.ticks[0], chart.ticks[-1]))
    self.width = WIDTH - LEFT - RIGHT
    self.height = HEIGHT - TOP - BOTTOM

  def _scaled(self, value: float) -> float:
    return math.log10(value) if self._log else value

  def x(self, epoch: float) -> float:
    """The horizontal position of an epoch."""
    span = self._last - self._first
    share = (epoch - self._first) / span if span else 0.5
    inset = 8
    return LEFT + inset + share * (self.width - 2 * inset)

  def y(self, value: float) -> float:
    """The vertical position of a value."""
    share = (self._scaled(value) - self._low) / (self._high - self._low)
    return TOP + (1 - share) * self.height


def _spoken(chart: Chart) -> str:
  """Returns the last value of each curve, for readers who do not see them."""
  ends = [
    f'{s.name} {scales.shown(s.y[-1])}{chart.unit}' for s in chart.series if s.y
  ]
  return f'{chart.title} by epoch; last: {", ".join(ends)}'


def _value(value: float) -> str:
  """Returns a value for a reader, a dash where there is none."""
  return _minus(scales.shown(value)) if math.isfinite(value) else '–'


def _minus(number: str) -> str:
  """Returns a number with a minus that is as wide as a plus."""
  return number.replace('-', '−')


def _data(chart: Chart) -> str:
  place = _Frame(chart)
  series = [
    {
      'name': s.name,
      'colour': s.colour % len(PALETTE),
      'x': list(s.x),
      'y': [_value(y) for y in s.y],
      'at': [round(place.y(y), 1) if math.isfinite(y) else None for y in s.y],
    }
    for s in chart.series
  ]
  first, last = chart.epochs
  frame = [place.x(first), place.x(last), TOP, TOP + place.height]
  content = {'unit': chart.unit, 'epochs': [first, last], 'frame': frame}
  return json.dumps({**content, 'series': series})


def _axes(chart: Chart, place: _Frame) -> list[str]:
  """Returns grid, numbers and the name of the horizontal axis."""
  lines = ['<g class="axes">']
  right, bottom = LEFT + place.width, TOP + place.height
  for value, number in zip(chart.ticks, _numbers(chart.ticks), strict=True):
    y = place.y(value)
    strong = ' class="zero"' if value == 0 and chart.zero else ''
    opacity = 0.6 if strong else 0.13
    lines.append(
      f'<line x1="{LEFT}" x2="{right}" y1="{y:.5g}" y2="{y:.5g}"'
      f' stroke="currentColor" stroke-opacity="{opacity}"{strong}/>'
      f'<text x="{LEFT - 6}" y="{y + 4:.5g}" text-anchor="end"'
      f' fill-opacity="0.75">{escape(number)}</text>'
    )
  for epoch in scales.epoch_ticks(*map(round, chart.epochs)):
    lines.append(
      f'<text x="{place.x(epoch):.5g}" y="{bottom + 15}" text-anchor="middle"'
      f' fill-opacity="0.75">{epoch}</text>'
    )
  lines.append(
    f'<text x="{right}" y="{HEIGHT - 4}" text-anchor="end"'
    ' fill-opacity="0.75">epoch</text>'
  )
  return [*lines, '</g>']


def _numbers(ticks: Sequence[float]) -> list[str]:
  """Returns the numbers of ticks, in thousands where there are many digits."""
  if max(map(abs, ticks)) >= 10_000:
    return [_minus(f'{x / 1000:g}k') for x in ticks]
  return [_minus(scales.shown(x)) for x in ticks]


def _curve(series: Series, place: _Frame) -> list[str]:
  """Returns a curve, with gaps where there are no values."""
  name = f's{series.colour % len(PALETTE)}'
  colour = PALETTE[series.colour % len(PALETTE)]
  points = [
    (place.x(x), place.y(y)) if math.isfinite(y) else None
    for x, y in zip(series.x, series.y, strict=True)
  ]
  path, move = [], True
  for point in points:
    if point:
      path.append(f'{"M" if move else "L"}{point[0]:.5g} {point[1]:.5g}')
    move = point is None
  dashes = ' stroke-dasharray="6 4"' if series.dashed else ''
  lines = [
    f'<path class="{name}" d="{"".join(path)}" fill="none" stroke="{colour}"'
    f' stroke-width="{2.4 if series.bold else 1.6}"'
    f' stroke-linejoin="round"{dashes}/>'
  ]
  if _marked(series):
    lines += [
      f'<circle class="{name} dot" cx="{x:.5g}" cy="{y:.5g}" r="2.6"'
      f' fill="{colour}"/>'
      for x, y in filter(None, points)
    ]
  return lines


def _marked(series: Series) -> bool:
  """Returns whether the points of a curve are dots: if there are few."""
  count = len(series.x)
  return count == 1 or (count <= MARKED and not series.dashed)


def _arrow_head(series: Series, x: float, up: bool, place: _Frame) -> str:
  """Returns a mark at the edge of the frame, where a value is outside."""
  colour = PALETTE[series.colour % len(PALETTE)]
  edge = TOP - 3 if up else TOP + place.height + 3
  base = edge + (7 if up else -7)
  points = f'{x:.5g},{edge} {x - 4.5:.5g},{base} {x + 4.5:.5g},{base}'
  return (
    f'<polygon class="s{series.colour % len(PALETTE)} dot outside"'
    f' points="{points}" fill="{colour}"/>'
  )


def charts_png(
  charts: Sequence[Chart], path: str | os.PathLike[str], *, title: str = ''
) -> pathlib.Path:
  """Draws charts side by side as a PNG, with the same axes as the SVG.

  Args:
    charts: at least one.
    path: of the PNG; its folder exists.
    title: above them; '' for none.

  Returns:
    The path of the PNG.
  """
  from matplotlib.figure import Figure

  columns = min(COLUMNS, len(charts))
  rows = -(-len(charts) // columns)
  figure = Figure(figsize=(4.6 * columns, 3.5 * rows), layout='constrained')
  panels = figure.subplots(rows, columns, squeeze=False).ravel()
  for panel, chart in zip(panels, charts, strict=False):
    _draw(panel, chart)
  for panel in panels[len(charts) :]:
    panel.set_axis_off()
  if title:
    figure.suptitle(title, fontsize=14, color=INK)
  return save(figure, path)


def _draw(panel: Any, chart: Chart) -> None:
  """Draws one chart in a panel of matplotlib."""
  unit = f' ({chart.unit.strip()})' if chart.unit else ''
  label(panel, f'{chart.title}{unit}', 'Epoch')
  for series in chart.series:
    panel.plot(
      series.x,
      series.y,
      label=series.name,
      color=PALETTE[series.colour % len(PALETTE)],
      linestyle='--' if series.dashed else '-',
      linewidth=2.4 if series.bold else 1.6,
      marker='o' if _marked(series) else None,
      markersize=4,
    )
  for series, x, y in chart.outside:
    up = y > chart.ticks[-1]
    panel.plot(
      [x],
      [chart.ticks[-1 if up else 0]],
      marker='^' if up else 'v',
      color=PALETTE[series.colour % len(PALETTE)],
      clip_on=False,
    )
  if chart.zero:
    panel.axhline(0, color=INK, linewidth=1)
  if chart.is_logarithmic:
    panel.set_yscale('log')
  first, last = chart.epochs
  margin = 0.03 * (last - first) or 0.5
  panel.set_xticks(scales.epoch_ticks(round(first), round(last)))
  panel.set_xlim(first - margin, last + margin)
  panel.set_yticks(chart.ticks, _numbers(chart.ticks))
  panel.minorticks_off()
  panel.set_ylim(chart.ticks[0], chart.ticks[-1])
  two_axes(panel)
  panel.legend(frameon=False, fontsize=9)
