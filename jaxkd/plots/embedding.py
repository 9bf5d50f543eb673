"""What a student's features look like: t-SNE, and a number beside it.

t-SNE: van der Maaten, Hinton, 2008,
https://www.jmlr.org/papers/v9/vandermaaten08a.html. Papers on distillation show
the penultimate layer's, coloured by class.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import chex
import numpy as np

from jaxkd.plots.style import COLOURS, GRID, INK, STUDENT_COLOUR, legend, save

PERPLEXITY = 30.0
NEIGHBOURS = 10
# The other figures' palette (but its grey) and four more that differ from it
# in lightness, then the same once more with another mark.
CLASS_COLOURS = (
  *(STUDENT_COLOUR, *COLOURS[:-1]),
  *('#332288', '#882255', '#999933', '#000000'),
)
MARKS = ('o', '^')
SHOWN = len(CLASS_COLOURS)  # classes, if nothing else is asked for


def embed(
  features: np.ndarray, seed: int = 0, perplexity: float = PERPLEXITY
) -> np.ndarray:
  """Returns points in the plane whose neighbours are those of the features.

  Barnes-Hut t-SNE, started from the first two principal components. Distances
  between clusters, and their sizes, mean nothing.

  Args:
    features: [N, D] with D > 1.
    seed: of what is random; the same seed gives the same points.
    perplexity: about how many neighbours an example has; below N.

  Returns:
    [N, 2], float32.

  Raises:
    ValueError: too few examples; features that are not finite, or the same for
      all examples.
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
  # Of its thousands of short parallel loops each waits for the slowest thread:
  # beside other work, one thread is several times as fast.
  with threadpool_limits(1):
    return method.fit_transform(features)


def neighbour_accuracy(
  features: np.ndarray, labels: np.ndarray, neighbours: int = NEIGHBOURS
) -> float:
  """Returns how often the nearest other examples vote for the right class.

  Leave-one-out k-nearest-neighbour accuracy, by Euclidean distance in the
  features themselves: a picture by t-SNE depends on seed and perplexity, and
  distorts distances. Other than the silhouette it needs no round clusters, does
  not change with the features' scale, and has the unit of top-1, so that
  networks of different widths can be compared.

  Args:
    features: [N, D].
    labels: int [N].
    neighbours: k below N, that vote; the nearest decides between equal numbers
      of votes.

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
  # Asked without points, it leaves each point out of its own neighbours.
  search = NearestNeighbors(n_neighbors=neighbours).fit(features)
  nearest = labels[search.kneighbors(return_distance=False)]
  # A vote's excess is more than that of all farther ones together, and all of
  # them less than a vote.
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
  """Draws points side by side as a PNG, coloured by class.

  Args:
    panels: for each, what it shows and its points [N, 2].
    labels: int [N], of the points of every panel.
    class_names: K names.
    path: of the PNG; its folder exists.
    classes: which have a colour, at most 20; the first ten if not given. Points
      of others are grey.
    title: above the panels; '' for none.

  Returns:
    The path.

  Raises:
    ValueError: more classes than can be told apart, or one that there is not.
  """
  from matplotlib.figure import Figure

  styles = _styles(classes or range(min(SHOWN, len(class_names))), class_names)
  figure = Figure(figsize=(5.6 * len(panels), 6.9), layout='constrained')
  row = figure.subplots(1, len(panels), squeeze=False)[0]
  for axes, (name, points) in zip(row, panels, strict=True):
    for label, style in styles.items():
      axes.scatter(*points[labels == label].T, s=16, linewidths=0, **style)
    others = points[~np.isin(labels, list(styles))]
    if len(others):
      style = {'color': GRID, 'label': 'other classes', 'zorder': 0.5}
      axes.scatter(*others.T, s=6, linewidths=0, **style)
    _frame(axes, points)
    axes.set_title(name, fontsize=12, loc='left', color=INK)
  legend(figure, row[0])
  if title:
    figure.suptitle(title, fontsize=14, color=INK)
  return save(figure, path)


def _frame(axes: Any, points: np.ndarray) -> None:
  """Makes a panel the square around the points; their units mean nothing."""
  low, high = points.min(0), points.max(0)
  middle, half = (low + high) / 2, 0.54 * np.max(high - low)
  (left, bottom), (right, top) = middle - half, middle + half
  axes.set(xticks=[], yticks=[], xlim=(left, right), ylim=(bottom, top))
  axes.set_aspect('equal')
  axes.spines[:].set_color(GRID)


def _styles(
  classes: Sequence[int], class_names: Sequence[str]
) -> dict[int, dict[str, Any]]:
  """Returns how the points of each class are drawn."""
  last, most = len(class_names) - 1, len(CLASS_COLOURS) * len(MARKS)
  if len(classes) > most or not 0 <= min(classes) <= max(classes) <= last:
    raise ValueError(
      f'cannot colour the classes {list(classes)}: at most {most}, and each'
      f' from 0 to {last}'
    )
  return {
    label: {
      'label': class_names[label],
      'color': CLASS_COLOURS[n % len(CLASS_COLOURS)],
      'marker': MARKS[n // len(CLASS_COLOURS)],
    }
    for n, label in enumerate(classes)
  }
