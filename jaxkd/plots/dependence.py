"""What an outcome depends on: recipes as points, over several seeds."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxkd.plots.style import COLOURS, GRID, INK, STUDENT_COLOUR, save

Pairs = Mapping[str, tuple[Sequence[float], Sequence[float]]]


def dependence(
  groups: Mapping[str, Pairs],
  path: str | os.PathLike[str],
  x_name: str,
  y_name: str,
) -> pathlib.Path:
  """Draws one figure against another as a PNG, a panel for each group.

  Args:
    groups: group -> recipe -> its values of both figures, one for each seed.
    path: of the PNG; its folder exists.
    x_name: of the horizontal axis.
    y_name: of the vertical axis.

  Returns:
    The path. Small points are seeds, a large one is a recipe's mean.
  """
  from matplotlib.figure import Figure

  figure = Figure(figsize=(6 * len(groups), 5), layout='constrained')
  panels = figure.subplots(1, len(groups), squeeze=False)[0]
  for panel, (group, recipes) in zip(panels, groups.items(), strict=True):
    for n, (name, (x, y)) in enumerate(recipes.items()):
      _draw(panel, name, x, y, (STUDENT_COLOUR, *COLOURS)[n % 7], n // 7)
    _decorate(panel, group, x_name, y_name)
    panel.legend(frameon=False, fontsize=9)
  return save(figure, path)


def _draw(
  panel: Any,
  name: str,
  x: Sequence[float],
  y: Sequence[float],
  colour: str,
  turn: int,
) -> None:
  """Draws one recipe; `turn` tells recipes of one colour apart."""
  marker = 'os^D'[turn % 4]
  panel.scatter(x, y, s=14, color=colour, marker=marker, alpha=0.35, zorder=2)
  panel.scatter(
    [np.mean(x)],
    [np.mean(y)],
    s=70,
    color=colour,
    marker=marker,
    edgecolor='white',
    zorder=3,
    label=name,
  )


def _decorate(panel: Any, title: str, x_name: str, y_name: str) -> None:
  """Titles a panel and leaves nothing else on it but two axes and a grid."""
  panel.set_title(title, fontsize=12, loc='left', color=INK)
  panel.set_xlabel(x_name, fontsize=11, color=INK)
  panel.set_ylabel(y_name, fontsize=11, color=INK)
  panel.tick_params(labelsize=10, colors=INK, length=3)
  panel.grid(color=GRID, linewidth=0.8)
  panel.set_axisbelow(True)
  panel.spines[['top', 'right']].set_visible(False)
  panel.spines[['left', 'bottom']].set_color(INK)
