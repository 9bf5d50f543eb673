"""Whether a student has learnt which classes its teacher finds alike.

How the logits of classes correlate over the test images is what right answers
alone do not teach. Student and teacher were first compared by such a picture in
https://arxiv.org/abs/1910.10699.
"""

import os
import pathlib
from collections.abc import Sequence

import chex
import numpy as np

from jaxkd.plots.style import INK, save

COLOUR_MAP = 'viridis'


def correlation(logits: np.ndarray) -> np.ndarray:
  """Returns Pearson's correlation between classes, over the examples.

  Args:
    logits: [N, K]; computed in float64.

  Returns:
    [K, K], in [-1, 1]. A class whose logit is the same for all examples has no
    correlation: 0 with every class, itself included, and not NaN.

  >>> correlation(np.array([[0, 0, 7], [1, -2, 7], [2, -4, 7]]))
  array([[ 1., -1.,  0.],
         [-1.,  1.,  0.],
         [ 0.,  0.,  0.]])
  """
  chex.assert_rank(logits, 2)
  x = np.asarray(logits, np.float64)
  # The mean of equal numbers may differ from them in the last bit.
  varies = np.ptp(x, axis=0) != 0
  x = np.where(varies, x - x.mean(0), 0.0)
  x /= np.where(varies, np.linalg.norm(x, axis=0), 1.0)
  return np.clip(x.T @ x, -1, 1)


def correlation_difference(
  student: np.ndarray, teacher: np.ndarray
) -> np.ndarray:
  """Returns how far two networks' correlations are apart, |C_s - C_t|.

  Args:
    student: logits [N, K].
    teacher: logits [N, K], of the same examples.

  Returns:
    [K, K], in [0, 2]. See `correlation` for logits that are constant.
  """
  chex.assert_equal_shape([student, teacher])
  return np.abs(correlation(student) - correlation(teacher))


def mean_difference(difference: np.ndarray) -> float:
  """Returns the mean of a matrix [K, K] off its diagonal, for K > 1."""
  chex.assert_equal(*difference.shape)
  return float(difference[~np.eye(len(difference), dtype=bool)].mean())


def heat_maps(
  panels: Sequence[tuple[str, np.ndarray]],
  path: str | os.PathLike[str],
  *,
  title: str = '',
) -> pathlib.Path:
  """Draws differences of correlations as a PNG, on one colour scale.

  Args:
    panels: for each, what it shows and the difference [K, K]; its mean is
      written below.
    path: of the PNG; its folder exists.
    title: above the panels; '' for none.

  Returns:
    The path.
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
    mean = f'mean off the diagonal {mean_difference(difference):.4f}'
    axes.set_title(f'{name}\n{mean}', fontsize=12, loc='left', color=INK)
    axes.set_xlabel('class', fontsize=11, color=INK)
    axes.tick_params(labelsize=10, colors=INK, length=3)
    for axis in (axes.xaxis, axes.yaxis):
      axis.set_major_locator(MaxNLocator(integer=True, nbins=10))
    axes.spines[:].set_visible(False)
  bar = figure.colorbar(image, ax=list(row), fraction=0.05, pad=0.02)
  bar.set_label('|student - teacher|, correlation', fontsize=11, color=INK)
  bar.ax.tick_params(labelsize=10, colors=INK, length=3)
  bar.outline.set_visible(False)
  if title:
    figure.suptitle(title, fontsize=14, color=INK)
  return save(figure, path)
