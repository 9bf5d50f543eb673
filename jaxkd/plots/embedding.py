"""Visualisation of features by t-SNE, and their nearest-neighbour accuracy.

t-SNE: van der Maaten, Hinton, 2008,
https://www.jmlr.org/papers/v9/vandermaaten08a.html. Papers on distillation show
the features of the penultimate layer, coloured by class.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import chex
import numpy as np

from jaxkd.plots.style import (
  COLOURS,
  GRID,
  STUDENT_COLOUR,
  figure_title,
  label,
  legend,
  save,
)

PERPLEXITY = 30.0
NEIGHBOURS = 10
# The palette of the other figures without its grey, and four colours of other
# lightness. Further classes have the same colours and another marker.
CLASS_COLOURS = (
  *(STUDENT_COLOUR, *COLOURS[:-1]),
  *('#332288', '#882255', '#999933', '#000000'),
)
MARKERS = ('o', '^')
COLOURED = len(CLASS_COLOURS)  # the default number of coloured classes


def embed(
  features: np.ndarray, seed: int = 0, perplexity: float = PERPLEXITY
) -> np.ndarray:
  """Embeds features in the plane by t-SNE, which preserves neighbourhoods.

  Barnes-Hut t-SNE, initialised with the first two principal components.
  Distances between clusters and sizes of clusters are not meaningful.

  Args:
    features: [N, D] with D > 1.
    seed: random seed; the same seed gives the same points.
    perplexity: effective number of neighbours; below N.

  Returns:
    [N, 2], float32.

  Raises:
    ValueError: too few examples; features that are not finite, or equal for all
      examples.
  """
  from sklearn.manifold import TSNE
  from threadpoolctl import threadpool_limits  # scikit-learn depends on it

  chex.assert_rank(features, 2)
  if not 0 < perplexity < len(features):
    raise ValueError(
      f'perplexity {perplexity:g} must be above 0 and below the number of'
      f' examples, {len(features)}: take more examples or a lower perplexity'
    )
  if not np.isfinite(features).all() or not np.ptp(features, axis=0).any():
    raise ValueError(
      f'the features of {len(features)} examples are not finite, or all the'
      ' same: has the training of this network diverged?'
    )
  method = TSNE(init='pca', perplexity=perplexity, random_state=seed)
  # It has thousands of short parallel loops, each of which waits for the
  # slowest thread: on a busy machine, one thread is several times faster.
  with threadpool_limits(1):
    return method.fit_transform(features)


def neighbour_accuracy(
  features: np.ndarray, labels: np.ndarray, neighbours: int = NEIGHBOURS
) -> float:
  """Returns the leave-one-out k-nearest-neighbour accuracy of features.

  Neighbours are determined by the Euclidean distance of the features, not of
  the embedding, which depends on seed and perplexity and distorts distances.
  Unlike the silhouette coefficient, the accuracy does not assume round
  clusters; it is invariant to the scale of the features and comparable to the
  top-1 accuracy, also between networks of different widths.

  Args:
    features: [N, D].
    labels: int [N].
    neighbours: k, below N; the nearest neighbours break ties.

  Returns:
    A fraction.

  Raises:
    ValueError: too few examples.
  """
  from sklearn.neighbors import NearestNeighbors

  chex.assert_equal_shape_prefix([features, labels], 1)
  if not 0 < neighbours < len(features):
    raise ValueError(
      f'{neighbours} neighbours must be above 0 and below the number of'
      f' examples, {len(features)}: take more examples or fewer neighbours'
    )
  # Without an argument, kneighbors excludes each point from its neighbours.
  search = NearestNeighbors(n_neighbors=neighbours).fit(features)
  nearest = labels[search.kneighbors(return_distance=False)]
  # Each weight exceeds 1 by more than those of all farther neighbours together,
  # and all excesses together are below 1: they only break ties.
  weight = 1 + 0.5 ** np.arange(2, neighbours + 2)
  votes = weight @ (nearest[..., None] == np.unique(labels))
  return float(np.mean(np.unique(labels)[votes.argmax(-1)] == labels))


def scatter(
  panels: Sequence[tuple[str, np.ndarray]],
  labels: np.ndarray,
  class_names: Sequence[str],
  path: str | os.PathLike[str],
  *,
  classes: Sequence[int] = (),
  title: str = '',
) -> pathlib.Path:
  """Draws points in panels side by side, coloured by class.

  Args:
    panels: title and points [N, 2] of each panel.
    labels: int [N], of the points of every panel.
    class_names: K names.
    path: of the PNG; its folder exists.
    classes: the coloured classes, at most 20; by default the first ten. The
      points of other classes are grey.
    title: above the panels; '' for none.

  Returns:
    The path of the PNG.

  Raises:
    ValueError: more than 20 classes, or a class that does not exist.
  """
  from matplotlib.figure import Figure

  coloured = classes or range(min(COLOURED, len(class_names)))
  styles = _styles(coloured, class_names)
  figure = Figure(figsize=(5.6 * len(panels), 6.9), layout='constrained')
  row = figure.subplots(1, len(panels), squeeze=False)[0]
  for axes, (name, points) in zip(row, panels, strict=True):
    for index, style in styles.items():
      axes.scatter(*points[labels == index].T, s=16, linewidths=0, **style)
    others = points[~np.isin(labels, list(styles))]
    if len(others):
      style = {'color': GRID, 'label': 'other classes', 'zorder': 0.5}
      axes.scatter(*others.T, s=6, linewidths=0, **style)
    _frame(axes, points)
    label(axes, name)
  legend(figure, row[0])
  figure_title(figure, title)
  return save(figure, path)


def _frame(axes: Any, points: np.ndarray) -> None:
  """Makes a panel a square around the points, without ticks."""
  low, high = points.min(0), points.max(0)
  middle, half = (low + high) / 2, 0.54 * np.max(high - low)
  (left, bottom), (right, top) = middle - half, middle + half
  axes.set(xticks=[], yticks=[], xlim=(left, right), ylim=(bottom, top))
  axes.set_aspect('equal')
  axes.spines[:].set_color(GRID)


def _styles(
  classes: Sequence[int], class_names: Sequence[str]
) -> dict[int, dict[str, Any]]:
  """Returns label, colour and marker of each coloured class."""
  last, most = len(class_names) - 1, len(CLASS_COLOURS) * len(MARKERS)
  if len(classes) > most or not 0 <= min(classes) <= max(classes) <= last:
    raise ValueError(
      f'classes must be at most {most}, and each from 0 to {last}, got'
      f' {list(classes)}'
    )
  return {
    index: {
      'label': class_names[index],
      'color': CLASS_COLOURS[n % len(CLASS_COLOURS)],
      'marker': MARKERS[n // len(CLASS_COLOURS)],
    }
    for n, index in enumerate(classes)
  }
