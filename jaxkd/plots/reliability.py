"""Reliability diagrams: accuracy by confidence, and confidence histograms.

After Guo et al., ICML 2017, https://arxiv.org/abs/1706.04599, figures 1 and 4.
"""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxkd.plots.style import (
  COLOURS,
  INK,
  STUDENT_COLOUR,
  figure_title,
  label,
  legend,
  save,
  two_axes,
)

Bins = Mapping[str, np.ndarray]
OVER, UNDER = '#EAAF80', '#56B4E9'  # light vermilion, sky blue
MAX_COLUMNS = 4
LEGEND_WIDTH = 6.8  # inches


def reliability(
  networks: Mapping[str, Bins],
  path: str | os.PathLike[str],
  *,
  title: str = '',
) -> pathlib.Path:
  """Draws a reliability diagram for each network.

  The height of a bar is the accuracy in a bin of confidence; for a calibrated
  network it is on the diagonal. The gap to the bin's mean confidence is
  coloured: above the bar if the network is over-confident, at the upper end of
  the bar if it is under-confident. The expected calibration error (ECE) is the
  mean gap, weighted by the histogram of confidences below the diagram.

  Args:
    networks: name -> 'confidence', 'accuracy' and 'share' of all examples by
      bin, [num_bins] each; bins have equal widths over (0, 1], and the share of
      empty bins is 0. Networks may have different numbers of bins.
    path: of the PNG; its folder exists.
    title: above the diagrams; '' for none.

  Returns:
    The path of the PNG.

  Raises:
    ValueError: no networks.
  """
  from matplotlib.figure import Figure

  if not networks:
    raise ValueError('networks must have at least one entry, got none')
  columns = min(len(networks), MAX_COLUMNS)
  rows = -(-len(networks) // columns)
  size = max(3.6 * columns, LEGEND_WIDTH), 5.2 * rows
  figure = Figure(figsize=size, layout='constrained')
  panels = figure.subplots(
    2 * rows, columns, squeeze=False, height_ratios=[3, 1] * rows
  )
  most = max(float(np.max(bins['share'])) for bins in networks.values())
  for n, (name, bins) in enumerate(networks.items()):
    row, column = divmod(n, columns)
    diagram, histogram = panels[2 * row : 2 * row + 2, column]
    _draw_diagram(diagram, name, bins)
    _draw_histogram(histogram, bins, most)
    if column == 0:
      label(diagram, y='Accuracy')
      label(histogram, y='Share (%)')
  for n in range(len(networks), rows * columns):
    row, column = divmod(n, columns)
    for empty in panels[2 * row : 2 * row + 2, column]:
      empty.set_axis_off()
  legend(figure, panels[0, 0])
  figure_title(figure, title)
  return save(figure, path)


def _draw_diagram(axes: Any, name: str, bins: Bins) -> None:
  """Draws accuracy, gap and diagonal of one network."""
  left, width = _edges(bins)
  filled = bins['share'] > 0
  accuracy, confidence = (bins[k][filled] for k in ('accuracy', 'confidence'))
  both = np.minimum(accuracy, confidence)
  for part, bottom, top, colour in (
    ('accuracy', np.zeros_like(both), accuracy, STUDENT_COLOUR),
    ('over-confident', both, confidence, OVER),
    ('under-confident', both, accuracy, UNDER),
  ):
    axes.bar(
      left[filled],
      top - bottom,
      width,
      bottom=bottom,
      align='edge',
      color=colour,
      edgecolor='white',
      linewidth=min(0.8, 12 * width),
      label=part,
    )
  style = dict(color=INK, linewidth=1.2, label='calibrated')
  axes.plot([0, 1], [0, 1], '--', **style)
  gap = np.abs(accuracy - confidence)
  error = 100 * np.sum(bins['share'][filled] * gap)
  label(axes, f'{name}: ECE {error:.2f} %')
  axes.set(xlim=(0, 1), ylim=(0, 1))
  two_axes(axes)


def _draw_histogram(axes: Any, bins: Bins, most: float) -> None:
  """Draws the histogram of the confidences.

  Args:
    axes: the panel.
    bins: of the network.
    most: the largest share of a bin of any network, for a common scale.
  """
  left, width = _edges(bins)
  axes.bar(left, 100 * bins['share'], width, align='edge', color=COLOURS[-1])
  axes.set(xlim=(0, 1), ylim=(0, 105 * most))
  label(axes, x='Confidence')
  two_axes(axes)


def _edges(bins: Bins) -> tuple[np.ndarray, float]:
  """Returns the left edges of the bins and their width."""
  edges = np.linspace(0, 1, len(bins['share']) + 1)
  return edges[:-1], float(edges[1])
