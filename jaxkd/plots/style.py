"""How every figure looks: colours, legend, and how it is saved."""

import os
import pathlib
from typing import Any

# Okabe and Ito's palette: distinct for the colour-blind, and in print.
STUDENT_COLOUR = '#0072B2'
COLOURS = ('#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#7F7F7F')
INK, GRID = '#333333', '#DDDDDD'


def legend(figure: Any, panel: Any) -> None:
  """Puts one legend, the panel's, below all panels."""
  handles, labels = panel.get_legend_handles_labels()
  figure.legend(
    handles,
    labels,
    loc='outside lower center',
    ncols=min(len(labels), 5),
    frameon=False,
    fontsize=11,
  )


def two_axes(axes: Any, grid: bool = True) -> None:
  """Leaves nothing on a panel but two axes and, if asked, a horizontal grid."""
  axes.tick_params(labelsize=10, colors=INK, length=3)
  if grid:
    axes.grid(axis='y', color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
  axes.spines[['top', 'right']].set_visible(False)
  axes.spines[['left', 'bottom']].set_color(INK)


def save(figure: Any, path: str | os.PathLike[str]) -> pathlib.Path:
  """Writes a figure as a PNG and returns its path; its folder exists."""
  path = pathlib.Path(path)
  figure.savefig(path, dpi=150, format='png')
  return path
