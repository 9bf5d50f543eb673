"""Reliability diagrams: accuracy by confidence, and how often each occurs.

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
  legend,
  save,
  two_axes,
)

Bins = Mapping[str, np.ndarray]
OVER, UNDER = '#EAAF80', '#56B4E9'  # the first is light vermilion
COLUMNS = 4  # at most, side by side
LEGEND = 6.8  # inches that it needs


def reliability(
  networks: Mapping[str, Bins],
  path: str | os.PathLike[str],
  *,
  title: str = '',
) -> pathlib.Path:
  """Draws a reliability diagram for each network as a PNG.

  Bars reach up to the accuracy of each bin of confidence: to the diagonal where
  a network is calibrated. Coloured is the gap to the bin's mean confidence: on
  top of the bar where the network is over-confident, the bar's upper end where
  it is under-confident. The expected calibration error is the mean gap, by the
  shares of the histogram below.

  Args:
    networks: name -> 'confidence', 'accuracy' and 'share' of all examples by
      bin, [num_bins] each; bins have equal widths over (0, 1], and empty ones a
      share of 0. Networks may have different numbers of bins.
    path: of the PNG; its folder exists.
    title: above the diagrams; '' for none.

  Returns:
    The path.

  Raises:
    ValueError: there is no network.
  """
  from matplotlib.figure import Figure

  if not networks:
    raise ValueError('no network to draw: give its bins under its name')
  columns = min(len(networks), COLUMNS)
  rows = -(-len(networks) // columns)
  size = max(3.6 * columns, LEGEND), 5.2 * rows
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
      diagram.set_ylabel('accuracy', fontsize=11, color=INK)
      histogram.set_ylabel('share (%)', fontsize=11, color=INK)
  for n in range(len(networks), rows * columns):
    row, column = divmod(n, columns)
    for empty in panels[2 * row : 2 * row + 2, column]:
      empty.set_axis_off()
  legend(figure, panels[0, 0])
  if title:
    figure.suptitle(title, fontsize=14, color=INK)
  return save(figure, path)


def _draw_diagram(axes: Any, name: str, bins: Bins) -> None:
  """Draws accuracy, gap and diagonal of one network."""
  left, width = _places(bins)
  filled = bins['share'] > 0
  accuracy, confidence = (bins[k][filled] for k in ('accuracy', 'confidence'))
  both = np.minimum(accuracy, confidence)
  for label, bottom, top, colour in (
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
      label=label,
    )
  axes.plot([0, 1], [0, 1], '--', color=INK, linewidth=1.2, label='calibrated')
  gap = np.abs(accuracy - confidence)
  error = 100 * np.sum(bins['share'][filled] * gap)
  axes.set_title(
    f'{name}: ECE {error:.2f} %', fontsize=12, loc='left', color=INK
  )
  axes.set(xlim=(0, 1), ylim=(0, 1))
  two_axes(axes)


def _draw_histogram(axes: Any, bins: Bins, most: float) -> None:
  """Draws how often each confidence occurs.

  Args:
    axes: the panel.
    bins: of the network.
    most: the largest share of a bin in any panel: all have one scale.
  """
  left, width = _places(bins)
  axes.bar(left, 100 * bins['share'], width, align='edge', color=COLOURS[-1])
  axes.set(xlim=(0, 1), ylim=(0, 105 * most))
  axes.set_xlabel('confidence', fontsize=11, color=INK)
  two_axes(axes)


def _places(bins: Bins) -> tuple[np.ndarray, float]:
  """Returns the left edges of the bins and their width."""
  edges = np.linspace(0, 1, len(bins['share']) + 1)
  return edges[:-1], float(edges[1])
