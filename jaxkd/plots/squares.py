"""Square figures as SVG: reliability diagrams, one accuracy against another."""

from collections.abc import Callable, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from jaxkd.plots import scales
from jaxkd.plots.reliability import OVER, UNDER, Bins
from jaxkd.plots.style import STUDENT_COLOUR

WIDTH, SIDE = 300, 240  # of the picture; of the square in it
LEFT, TOP, BELOW = 48, 8, 36
LEAST = 0.02  # the range of an axis, a fraction
HISTOGRAM = 52  # the height of the one below a diagram


class Point(NamedTuple):
  """A point of a scatter plot: its name and its two values, fractions."""

  name: str
  x: float
  y: float


def reliability_svg(name: str, bins: Bins) -> str:
  """Returns a network's reliability diagram; see `plots.reliability`.

  Args:
    name: of the network.
    bins: of it.
  """
  share = np.asarray(bins['share'])
  edges = np.linspace(0, 1, len(share) + 1)
  lines = _frame(TOP, 'accuracy (%)', 0, 1)
  for n in np.flatnonzero(share > 0):
    accuracy, confidence = bins['accuracy'][n], bins['confidence'][n]
    both = min(accuracy, confidence)
    text = (
      f'confidence {100 * confidence:.1f} %, accuracy {100 * accuracy:.1f} %,'
      f' {100 * share[n]:.1f} % of the images'
    )
    over = confidence > accuracy
    parts = (
      ('s0', STUDENT_COLOUR, 0, accuracy if over else both, 0.75),
      ('over', OVER, both, confidence, 1)
      if over
      else ('under', UNDER, both, accuracy, 1),
    )
    x, width = LEFT + SIDE * edges[n], SIDE / len(share)
    lines.append(f'<g><title>{text}</title>')
    lines += [
      f'<rect class="{kind} dot" x="{x + 0.5:.5g}" width="{width - 1:.5g}"'
      f' y="{TOP + SIDE * (1 - high):.5g}" height="{SIDE * (high - low):.5g}"'
      f' fill="{colour}" fill-opacity="{opacity}"/>'
      for kind, colour, low, high, opacity in parts
    ]
    lines.append('</g>')
  lines.append(_diagonal())
  bottom = TOP + SIDE + 14 + HISTOGRAM
  most = max(float(share.max()), 1e-9)
  for n in np.flatnonzero(share > 0):
    height = HISTOGRAM * share[n] / most
    lines.append(
      f'<rect x="{LEFT + SIDE * edges[n] + 0.5:.5g}"'
      f' width="{SIDE / len(share) - 1:.5g}" y="{bottom - height:.5g}"'
      f' height="{height:.5g}" fill="currentColor" fill-opacity="0.35">'
      f'<title>{100 * share[n]:.1f} % of the images</title></rect>'
    )
  lines += _numbers_below(bottom, 'confidence (%)', 0, 1)
  lines += [
    f'<text x="{LEFT - 6}" y="{bottom - HISTOGRAM + 8}" text-anchor="end"'
    f' fill-opacity="0.75">{100 * most:.0f} %</text>',
    f'<text x="{LEFT - 6}" y="{bottom - HISTOGRAM + 21}" text-anchor="end"'
    ' fill-opacity="0.75">share</text>',
  ]
  return _svg(f'Reliability of {name}', lines, bottom + BELOW)


def scatter_svg(points: Sequence[Point], x_name: str, y_name: str) -> str:
  """Returns points in a square with its diagonal.

  Args:
    points: at least one.
    x_name: name of their first values.
    y_name: of the second.
  """
  both = [value for point in points for value in point[1:]]
  low, high = min(both), max(both)
  if high - low < LEAST:
    low, high = max(0, low - LEAST), min(1, high + LEAST)
  marks = scales.ticks(low, high)
  low, high = max(0, marks[0]), min(1, marks[-1])
  lines = _frame(TOP, f'{y_name} (%)', low, high)
  lines.append(_diagonal())
  span = high - low
  for name, x, y in points:
    text = f'{name}: {x_name} {100 * x:.1f} %, {y_name} {100 * y:.1f} %'
    lines.append(
      f'<circle class="s0 dot" cx="{LEFT + SIDE * (x - low) / span:.5g}"'
      f' cy="{TOP + SIDE * (high - y) / span:.5g}" r="4" fill-opacity="0.6"'
      f' fill="{STUDENT_COLOUR}"><title>{escape(text)}</title></circle>'
    )
  lines += _numbers_below(TOP + SIDE, f'{x_name} (%)', low, high)
  title = f'{y_name} against {x_name}, by class'
  return _svg(title, lines, TOP + SIDE + BELOW)


def _svg(title: str, lines: Sequence[str], height: float) -> str:
  head = (
    f'<svg xmlns="http://www.w3.org/2000/svg" role="img"'
    f' aria-label={quoteattr(title)} viewBox="0 0 {WIDTH} {height}"'
    f' width="{WIDTH}" height="{height}" font-family="system-ui, sans-serif"'
    ' font-size="11" fill="currentColor">'
  )
  return '\n'.join([head, *lines, '</svg>'])


def _diagonal() -> str:
  return (
    f'<line x1="{LEFT}" y1="{TOP + SIDE}" x2="{LEFT + SIDE}" y2="{TOP}"'
    ' stroke="currentColor" stroke-opacity="0.6" stroke-dasharray="5 4"/>'
  )


def _marks(low: float, high: float) -> list[float]:
  return [x for x in scales.ticks(low, high) if low - 1e-9 <= x <= high + 1e-9]


def _frame(top: float, name: str, low: float, high: float) -> list[str]:
  """Returns horizontal lines with their numbers, and the name of the axis."""
  lines, place = [], _across(low, high)
  for value in _marks(low, high):
    y = top + SIDE - (place(value) - LEFT)
    lines.append(
      f'<line x1="{LEFT}" x2="{LEFT + SIDE}" y1="{y:.5g}" y2="{y:.5g}"'
      ' stroke="currentColor" stroke-opacity="0.13"/>'
      f'<text x="{LEFT - 6}" y="{y + 4:.5g}" text-anchor="end"'
      f' fill-opacity="0.75">{100 * value:.4g}</text>'
    )
  middle = top + SIDE / 2
  lines.append(
    f'<text x="12" y="{middle}" text-anchor="middle" fill-opacity="0.75"'
    f' transform="rotate(-90 12 {middle})">{escape(name)}</text>'
  )
  return lines


def _numbers_below(
  bottom: float, name: str, low: float, high: float
) -> list[str]:
  place = _across(low, high)
  lines = [
    f'<text x="{place(value):.5g}" y="{bottom + 15}" text-anchor="middle"'
    f' fill-opacity="0.75">{100 * value:.4g}</text>'
    for value in _marks(low, high)
  ]
  lines.append(
    f'<text x="{LEFT + SIDE / 2}" y="{bottom + 31}" text-anchor="middle"'
    f' fill-opacity="0.75">{escape(name)}</text>'
  )
  return lines


def _across(low: float, high: float) -> Callable[[float], float]:
  """Returns the map from values to horizontal positions."""
  return lambda value: LEFT + SIDE * (value - low) / (high - low)
