"""Scatter plots of two metrics over the recipes and seeds of a study."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxkd.plots.style import (
  COLOURS,
  GRID,
  STUDENT_COLOUR,
  label,
  save,
  two_axes,
)

PALETTE = (STUDENT_COLOUR, *COLOURS)
MARKERS = 'os^D'  # the next one for each round of the palette
Recipes = Mapping[str, tuple[Sequence[float], Sequence[float]]]


def dependence(
  groups: Mapping[str, Recipes],
  path: str | os.PathLike[str],
  x_name: str,
  y_name: str,
) -> pathlib.Path:
  """Draws one metric against another, with one panel for each group.

  A large marker is the mean of a recipe, small markers are its seeds; lines
  connect the recipes of the group that have the same seed.

  Args:
    groups: group -> recipe -> values of both metrics, one for each seed.
    path: of the PNG; its folder exists.
    x_name: label of the horizontal axis.
    y_name: label of the vertical axis.

  Returns:
    The path of the PNG.
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
    label(panel, group, x_name, y_name)
    two_axes(panel, grid=False)
    _legend(panel)
  return save(figure, path)


def _legend(panel: Any) -> None:
  """Adds a legend below a panel."""
  panel.legend(
    loc='upper center',
    bbox_to_anchor=(0.5, -0.13),
    ncols=3,
    frameon=False,
    fontsize=10,
  )
