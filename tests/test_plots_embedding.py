"""t-SNE, the accuracy of nearest neighbours, and the figure."""

import numpy as np
import PIL.Image
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from sklearn.model_selection import LeaveOneOut, cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from jaxkd import plots

LABELS = np.repeat(np.arange(3), 20)


def clusters(spread):
  """Three clusters in five dimensions, at distances of ten and more."""
  rng = np.random.default_rng(0)
  centres = 10 * np.eye(3, 5)
  noise = spread * rng.normal(size=(len(LABELS), 5))
  return (centres[LABELS] + noise).astype(np.float32)


@pytest.fixture(scope='module')
def points():
  return plots.embed(clusters(0.5), seed=0, perplexity=10)


@pytest.mark.slow
def test_the_embedding_depends_on_the_seed_alone():
  # So many that the principal components are computed by a random method.
  features = np.random.default_rng(0).normal(size=(510, 60))
  first, again, other = (plots.embed(features, seed) for seed in (0, 0, 1))
  assert first.shape == (510, 2) and first.dtype == np.float32
  np.testing.assert_array_equal(again, first)
  assert not np.allclose(other, first)


def test_clusters_remain_separated(points):
  assert plots.neighbour_accuracy(points, LABELS) == 1
  distance = np.linalg.norm(points[:, None] - points, axis=-1)
  same = LABELS[:, None] == LABELS
  assert distance[same].max() < distance[~same].min()


@pytest.mark.parametrize(
  ('features', 'perplexity', 'message'),
  [
    (clusters(0.5), 60, 'perplexity 60 .* below the number of examples, 60'),
    (clusters(0.5), 0, 'perplexity 0 must be above 0'),
    (clusters(np.nan), 10, '60 examples are not finite, or all the same'),
    (np.ones((60, 5)), 10, '60 examples are not finite, or all the same'),
  ],
  ids=['few examples', 'zero', 'not finite', 'constant'],
)
def test_features_without_an_embedding_are_explained(
  features, perplexity, message
):
  with pytest.raises(ValueError, match=message):
    plots.embed(features, perplexity=perplexity)


@pytest.mark.parametrize('spread', [1.0, 4.0, 20.0])
def test_neighbour_accuracy_equals_scikit_learn(spread):
  features = clusters(spread)
  # Two classes and an odd number of votes: there are no ties.
  labels = np.minimum(LABELS, 1)
  reference = cross_val_score(
    KNeighborsClassifier(n_neighbors=7), features, labels, cv=LeaveOneOut()
  )
  accuracy = plots.neighbour_accuracy(features, labels, neighbours=7)
  assert accuracy == pytest.approx(reference.mean())


def test_neighbour_accuracy_ignores_scale_and_class_numbers():
  features = clusters(6.0)
  accuracy = plots.neighbour_accuracy(features, LABELS)
  assert 0.4 < accuracy < 0.9
  assert plots.neighbour_accuracy(8 * features, LABELS) == accuracy
  assert plots.neighbour_accuracy(features, 7 - 3 * LABELS) == accuracy


def test_the_nearest_neighbour_breaks_a_tie():
  features = np.array([[0.0], [1.0], [3.0], [7.0], [15.0]])
  # Neighbours of each: (1, 3), (0, 3), (1, 0), (3, 1), (7, 3).
  labels = np.array([4, 4, 2, 2, 9])
  accuracy = plots.neighbour_accuracy(features, labels, neighbours=2)
  assert accuracy == pytest.approx(3 / 5)


@pytest.mark.parametrize('neighbours', [0, 60])
def test_impossible_numbers_of_neighbours_are_refused(neighbours):
  message = f'{neighbours} neighbours must be above 0 and below .*, 60'
  with pytest.raises(ValueError, match=message):
    plots.neighbour_accuracy(clusters(1.0), LABELS, neighbours=neighbours)


def scattered(monkeypatch, *args, **kwargs):
  """Panels of a scatter plot: label -> points and colour."""
  figures = []
  save = lambda figure, *_, **__: figures.append(figure)
  monkeypatch.setattr(Figure, 'savefig', save)
  plots.scatter(*args, **kwargs)
  return [
    {
      dots.get_label(): (
        np.asarray(dots.get_offsets()),
        to_hex(dots.get_facecolor()[0]),
      )
      for dots in axes.collections
    }
    for axes in figures[0].axes
  ]


def test_every_point_is_drawn_once_under_its_class(monkeypatch, points):
  panels = [('a', points), ('b', -points)]
  shown = scattered(monkeypatch, panels, LABELS, ['x', 'y', 'z'], 'path')
  for panel, (_, want) in zip(shown, panels, strict=True):
    assert list(panel) == ['x', 'y', 'z']
    for label, (dots, _) in enumerate(panel.values()):
      np.testing.assert_array_equal(dots, want[label == LABELS])
    assert len({colour for _, colour in panel.values()}) == 3


def test_other_classes_are_grey(monkeypatch, points):
  panels, names = [('a', points)], ['x', 'y', 'z']
  (panel,) = scattered(monkeypatch, panels, LABELS, names, 'path', classes=[2])
  assert list(panel) == ['z', 'other classes']
  dots, colour = panel['other classes']
  np.testing.assert_array_equal(dots, points[LABELS != 2])
  assert colour == '#dddddd'


def test_the_first_ten_of_many_classes_are_coloured(monkeypatch, points):
  labels, names = np.arange(60), [str(n) for n in range(60)]
  (panel,) = scattered(monkeypatch, [('a', points)], labels, names, 'path')
  assert list(panel) == [*names[:10], 'other classes']
  assert len({colour for _, colour in panel.values()}) == 11


@pytest.mark.parametrize('classes', [range(21), [60], [-1]])
def test_classes_that_cannot_be_coloured_are_refused(tmp_path, points, classes):
  labels, names = np.arange(60), [str(n) for n in range(60)]
  with pytest.raises(ValueError, match='at most 20, and each from 0 to 59'):
    plots.scatter(
      [('a', points)], labels, names, tmp_path / 'x.png', classes=classes
    )
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('panels', [1, 2])
def test_scatter_draws_a_png(tmp_path, points, panels):
  path = tmp_path / 'tsne.png'
  names, classes = [f'class {n}' for n in range(20)], range(20)
  many = np.arange(60) % 20
  returned = plots.scatter(
    [('a', points)] * panels, many, names, path, classes=classes, title='b'
  )
  assert returned == path
  with PIL.Image.open(path) as image:
    assert image.format == 'PNG'
    assert image.size == (840 * panels, 1035)
    pixels = np.asarray(image.convert('L'))
  assert 0.002 < np.mean(pixels < 200) < 0.2  # neither empty nor full
