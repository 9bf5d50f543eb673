"""Differences of the correlations between classes of student and teacher.

The correlation of the logits of two classes over the test images shows how
similar a network considers them, which labels do not teach. The comparison of
student and teacher by a heat map is from https://arxiv.org/abs/1910.10699.
"""

import os
import pathlib
from collections.abc import Sequence

import chex
import numpy as np

from jaxkd.plots.style import INK, figure_title, label, save

COLOUR_MAP = 'viridis'


def correlation(logits: np.ndarray) -> np.ndarray:
  """Returns Pearson's correlations between classes, over the examples.

  Args:
    logits: [N, K]; computed in float64.

  Returns:
    [K, K], in [-1, 1]. If the logit of a class is constant, its correlations,
    also with itself, are 0 and not NaN.

  >>> correlation(np.array([[0, 0, 7], [1, -2, 7], [2, -4, 7]]))
  array([[ 1., -1.,  0.],
         [-1.,  1.,  0.],
         [ 0.,  0.,  0.]])
  """
  chex.assert_rank(logits, 2)
  x = np.asarray(logits, np.float64)
  # The mean of equal numbers may differ from them by a rounding error.
  varies = np.ptp(x, axis=0) != 0
  x = np.where(varies, x - x.mean(0), 0.0)
  x /= np.where(varies, np.linalg.norm(x, axis=0), 1.0)
  return np.clip(x.T @ x, -1, 1)


def correlation_difference(
  student: np.ndarray, teacher: np.ndarray
) -> np.ndarray:
  """Returns the absolute difference of two networks' correlations, |C_s - C_t|.

  Args:
    student: logits [N, K].
    teacher: logits [N, K], of the same examples.

  Returns:
    [K, K], in [0, 2]. See `correlation` for logits that are constant.
  """
  chex.assert_equal_shape([student, teacher])
  return np.abs(correlation(student) - correlation(teacher))


def mean_difference(difference: np.ndarray) -> float:
  """Returns the mean of the off-diagonal entries of a matrix [K, K], K > 1."""
  chex.assert_equal(*difference.shape)
  return float(difference[~np.eye(len(difference), dtype=bool)].mean())


def heat_maps(
  panels: Sequence[tuple[str, np.ndarray]],
  path: str | os.PathLike[str],
  *,
  title: str = '',
) -> pathlib.Path:
  """Draws differences of correlations as heat maps with one colour scale.

  Args:
    panels: title and differences [K, K] of each panel; their off-diagonal mean
      is added to the title.
    path: of the PNG; its folder exists.
    title: above the panels; '' for none.

  Returns:
    The path of the PNG.
  """
  from matplotlib.colors import Normalize
  from matplotlib.figure import Figure
  from matplotlib.ticker import MaxNLocator

  largest = max(difference.max() for _, difference in panels)
  scale = Normalize(0, largest or 1)
  figure = Figure(figsize=(5 * len(panels) + 1, 5.2), layout='constrained')
  row = figure.subplots(1, len(panels), squeeze=False)[0]
  for axes, (name, difference) in zip(row, panels, strict=True):
    image = axes.imshow(difference, norm=scale, cmap=COLOUR_MAP)
    mean = f'off-diagonal mean {mean_difference(difference):.4f}'
    label(axes, f'{name}\n{mean}', 'Class', 'Class')
    axes.tick_params(labelsize=10, colors=INK, length=3)
    for axis in (axes.xaxis, axes.yaxis):
      axis.set_major_locator(MaxNLocator(integer=True, nbins=10))
    axes.spines[:].set_visible(False)
  bar = figure.colorbar(image, ax=list(row), fraction=0.05, pad=0.02)
  bar.set_label('Absolute difference of correlations', fontsize=11, color=INK)
  bar.ax.tick_params(labelsize=10, colors=INK, length=3)
  bar.outline.set_visible(False)
  figure_title(figure, title)
  return save(figure, path)
