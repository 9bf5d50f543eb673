"""What an outcome depends on: recipes as points, over several seeds."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxkd.plots.style import COLOURS, GRID, INK, STUDENT_COLOUR, save, two_axes

PALETTE = (STUDENT_COLOUR, *COLOURS)
MARKERS = 'os^D'  # one after another, where there are more recipes than colours
Pairs = Mapping[str, tuple[Sequence[float], Sequence[float]]]


def dependence(
  groups: Mapping[str, Pairs],
  path: str | os.PathLike[str],
  x_name: str,
  y_name: str,
) -> pathlib.Path:
  """Draws one figure against another as a PNG, a panel for each group.

  A large point is a recipe's mean, small ones its seeds; a line joins what one
  seed gives with all recipes of the group.

  Args:
    groups: group -> recipe -> its values of both figures, one for each seed.
    path: of the PNG; its folder exists.
    x_name: of the horizontal axis.
    y_name: of the vertical axis.

  Returns:
    The path.
  """
  from matplotlib.figure import Figure

  figure = Figure(figsize=(6 * len(groups), 6), layout='constrained')
  panels = figure.subplots(1, len(groups), squeeze=False)[0]
  for panel, (group, recipes) in zip(panels, groups.items(), strict=True):
    for points in zip(
      *(zip(*xy, strict=True) for xy in recipes.values()), strict=True
    ):
      panel.plot(*zip(*sorted(points), strict=True), color=GRID, zorder=1)
    for n, (name, (x, y)) in enumerate(recipes.items()):
      style = dict(
        color=PALETTE[n % len(PALETTE)], marker=MARKERS[n // len(PALETTE) % 4]
      )
      panel.scatter(x, y, s=12, alpha=0.5, zorder=2, **style)
      mean = [np.mean(x)], [np.mean(y)]
      panel.scatter(
        *mean, s=80, edgecolor='white', zorder=3, label=name, **style
      )
    _decorate(panel, group, x_name, y_name)
  return save(figure, path)


def _decorate(panel: Any, title: str, x_name: str, y_name: str) -> None:
  """Titles a panel and puts its legend below it."""
  panel.set_title(title, fontsize=12, loc='left', color=INK)
  panel.set_xlabel(x_name, fontsize=11, color=INK)
  panel.set_ylabel(y_name, fontsize=11, color=INK)
  two_axes(panel, grid=False)
  panel.legend(
    loc='upper center',
    bbox_to_anchor=(0.5, -0.13),
    ncols=3,
    frameon=False,
    fontsize=10,
  )
