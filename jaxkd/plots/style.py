"""The common style of all figures: colours, labels, legend, file format."""

import os
import pathlib
from typing import Any

# Okabe and Ito's palette: distinct for colour-blind readers, and in print.
STUDENT_COLOUR = '#0072B2'
COLOURS = ('#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#7F7F7F')
INK, GRID = '#333333', '#DDDDDD'


def label(panel: Any, title: str = '', x: str = '', y: str = '') -> None:
  """Sets the title of a panel and the labels of its axes; '' for none."""
  if title:
    panel.set_title(title, fontsize=12, loc='left', color=INK)
  if x:
    panel.set_xlabel(x, fontsize=11, color=INK)
  if y:
    panel.set_ylabel(y, fontsize=11, color=INK)


def figure_title(figure: Any, title: str) -> None:
  """Sets the title above all panels; '' for none."""
  if title:
    figure.suptitle(title, fontsize=14, color=INK)


def legend(figure: Any, panel: Any) -> None:
  """Adds a single legend below all panels, with the entries of one panel."""
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
  """Removes the frame except the two axes, and adds horizontal grid lines.

  Args:
    axes: the panel.
    grid: whether to add the grid lines.
  """
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
