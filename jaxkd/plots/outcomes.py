"""One value for each seed of each recipe: dots, means, deviations."""

import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from jaxkd.plots import scales
from jaxkd.plots.style import (
  COLOURS,
  INK,
  STUDENT_COLOUR,
  label,
  save,
  two_axes,
)

WIDTH, ROW, TOP, BOTTOM = 360, 44, 6, 34
INSET = 12  # left and right of the axis


def outcomes_svg(
  recipes: Mapping[str, Sequence[float]],
  name: str,
  unit: str = '',
  baseline: str = '',
  seeds: Sequence[int] = (),
) -> str:
  """Returns a row of dots for each recipe, with its mean and deviation.

  Args:
    recipes: name -> values by seed; NaN where there is none.
    name: of the value.
    unit: behind values, such as ' %'.
    baseline: the recipe whose mean is drawn through all rows, '' for none.
    seeds: of the values; (): 0, 1, ...

  Raises:
    ValueError: there is no value at all.
  """
  every = [y for values in recipes.values() for y in values if _is(y)]
  if not every:
    raise ValueError('no recipe has a value yet')
  low, high = min(every), max(every)
  margin = 0.03 * (high - low) or abs(high) / 50 or 0.5
  low, high = low - margin, high + margin
  height = TOP + ROW * len(recipes) + BOTTOM
  bottom = height - BOTTOM

  def place(value: float) -> float:
    return INSET + (WIDTH - 2 * INSET) * (value - low) / (high - low)

  lines = [
    f'<svg xmlns="http://www.w3.org/2000/svg" role="img"'
    f' aria-label={quoteattr(f"{name} of each seed, by recipe")}'
    f' viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    ' font-family="system-ui, sans-serif" font-size="11" fill="currentColor">'
  ]
  lines += _axis(low, high, bottom, place)
  own = [y for y in recipes.get(baseline, ()) if _is(y)]
  if own:
    x = place(float(np.mean(own)))
    lines.append(
      f'<line x1="{x:.5g}" x2="{x:.5g}" y1="{TOP}" y2="{bottom}"'
      ' stroke="currentColor" stroke-opacity="0.6" stroke-dasharray="5 4">'
      f'<title>{escape(baseline)}, mean</title></line>'
    )
  for n, (recipe, values) in enumerate(recipes.items()):
    own_seeds = seeds or range(len(values))
    lines += _row(recipe, values, own_seeds, TOP + ROW * n, place, unit)
  lines.append(
    f'<text x="{WIDTH / 2}" y="{height - 4}" text-anchor="middle"'
    f' fill-opacity="0.75">{escape(name)}</text>'
  )
  return '\n'.join([*lines, '</svg>'])


def _axis(
  low: float, high: float, bottom: float, place: Callable[[float], float]
) -> list[str]:
  """Returns vertical lines with their numbers."""
  return [
    f'<line x1="{place(value):.5g}" x2="{place(value):.5g}" y1="{TOP}"'
    f' y2="{bottom}" stroke="currentColor" stroke-opacity="0.13"/>'
    f'<text x="{place(value):.5g}" y="{bottom + 15}" fill-opacity="0.75"'
    f' text-anchor="middle">{scales.shown(value)}</text>'
    for value in scales.ticks(low, high)
    if low <= value <= high
  ]


def _is(value: float | None) -> bool:
  return value is not None and math.isfinite(value)


def _row(
  recipe: str,
  values: Sequence[float],
  seeds: Sequence[int],
  top: float,
  place: Callable[[float], float],
  unit: str,
) -> list[str]:
  """Returns a recipe's name, mean and deviation, and the dots of its seeds."""
  finite = [y for y in values if _is(y)]
  middle = top + 0.68 * ROW
  lines = [
    f'<text x="{INSET}" y="{top + 13}" font-weight="600">{escape(recipe)}'
    '</text>'
  ]
  if not finite:
    lines.append(
      f'<text x="{INSET}" y="{middle + 4}" fill-opacity="0.75">no value yet'
      '</text>'
    )
    return lines
  mean = float(np.mean(finite))
  spread = float(np.std(finite, ddof=1)) if len(finite) > 1 else 0.0
  ends = [min(max(place(mean + sign * spread), 0), WIDTH) for sign in (-1, 1)]
  text = f'{recipe}: mean {mean:.4g}{unit}' + (
    f', standard deviation {spread:.2g}' if spread else ''
  )
  lines.append(
    f'<g><title>{escape(text)}</title>'
    f'<line x1="{ends[0]:.5g}" x2="{ends[1]:.5g}" y1="{middle}"'
    f' y2="{middle}" stroke="currentColor" stroke-width="6"'
    ' stroke-opacity="0.2" stroke-linecap="round"/>'
    f'<line x1="{place(mean):.5g}" x2="{place(mean):.5g}" y1="{middle - 9}"'
    f' y2="{middle + 9}" stroke="currentColor" stroke-width="2.4"/></g>'
  )
  lines += [
    f'<circle class="s0 dot" cx="{place(y):.5g}" cy="{middle}" r="4.2"'
    f' fill="{STUDENT_COLOUR}" fill-opacity="0.75">'
    f'<title>{escape(recipe)}, seed {seed}: {y:.4g}{unit}</title>'
    '</circle>'
    for seed, y in zip(seeds, values, strict=True)
    if _is(y)
  ]
  return lines


def outcomes_png(
  recipes: Mapping[str, Sequence[float]],
  path: str | os.PathLike[str],
  name: str,
  baseline: str = '',
) -> pathlib.Path:
  """Draws the same as a PNG and returns its path; see `outcomes_svg`."""
  from matplotlib.figure import Figure

  figure = Figure(figsize=(6, 0.6 * len(recipes) + 1.2), layout='constrained')
  panel = figure.subplots()
  own = [y for y in recipes.get(baseline, ()) if _is(y)]
  if own:
    panel.axvline(float(np.mean(own)), color=COLOURS[5], linestyle='--')
  for n, values in enumerate(recipes.values()):
    finite = [y for y in values if _is(y)]
    if not finite:
      continue
    mean = float(np.mean(finite))
    spread = float(np.std(finite, ddof=1)) if len(finite) > 1 else 0.0
    panel.errorbar(mean, n, xerr=spread, fmt='|', color=INK, ms=16, capsize=4)
    panel.scatter(finite, [n] * len(finite), s=32, color=STUDENT_COLOUR)
  panel.set_yticks(range(len(recipes)), list(recipes))
  panel.set_ylim(len(recipes) - 0.5, -0.5)
  two_axes(panel, grid=False)
  label(panel, x=name)
  return save(figure, path)
