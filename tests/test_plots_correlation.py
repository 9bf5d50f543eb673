"""Correlations between classes, their differences, and the figure."""

import numpy as np
import PIL.Image
import pytest
from matplotlib.figure import Figure

from jaxkd import plots


def logits(seed, examples=40, classes=5):
  """Logits whose classes are correlated."""
  rng = np.random.default_rng(seed)
  mixed = rng.normal(size=(examples, classes)) @ rng.normal(size=(classes,) * 2)
  return mixed.astype(np.float32)


@pytest.fixture
def figures(monkeypatch):
  """The figures that are saved while a test runs."""
  figures, write = [], Figure.savefig

  def savefig(figure, *args, **kwargs):
    figures.append(figure)
    write(figure, *args, **kwargs)

  monkeypatch.setattr(Figure, 'savefig', savefig)
  return figures


@pytest.mark.parametrize('seed', range(3))
def test_correlation_equals_numpy(seed):
  x = logits(seed)
  want = np.corrcoef(x.astype(np.float64), rowvar=False)
  np.testing.assert_allclose(plots.correlation(x), want, atol=1e-12)


def test_increasing_affine_maps_of_each_class_change_nothing():
  x = logits(0).astype(np.float64)
  rng = np.random.default_rng(1)
  slope, shift = rng.uniform(0.1, 10, 5), rng.normal(size=5) * 10
  moved = plots.correlation(slope * x + shift)
  np.testing.assert_allclose(moved, plots.correlation(x), atol=1e-12)
  turned = plots.correlation(x * [-1, 1, 1, 1, 1])
  np.testing.assert_allclose(turned[0, 1:], -moved[0, 1:], atol=1e-12)


@pytest.mark.parametrize('constant', [0.0, 0.1, -1e6])
def test_a_constant_class_has_no_correlation(constant):
  x = logits(0).astype(np.float64)
  x[:, 2] = constant  # the mean of 40 times 0.1 is not quite 0.1
  got = plots.correlation(x)
  assert not got[2].any() and not got[:, 2].any()
  rest = np.delete(np.arange(5), 2)
  want = np.corrcoef(x[:, rest], rowvar=False)
  np.testing.assert_allclose(got[np.ix_(rest, rest)], want, atol=1e-12)


def test_nan_logits_have_nan_correlations():
  x = logits(0)
  x[3, 2] = np.nan
  assert np.isnan(plots.correlation(x)[2]).all()


def test_difference_is_0_for_equal_and_2_for_opposite_correlations():
  x = logits(0)
  assert not plots.correlation_difference(x, x).any()
  both = np.stack([x[:, 0], x[:, 0]], axis=1)
  difference = plots.correlation_difference(both, both * [1, -1])
  np.testing.assert_allclose(difference, [[0, 2], [2, 0]], atol=1e-6)
  assert plots.mean_difference(difference) == pytest.approx(2)


def test_the_difference_is_symmetric_and_its_mean_is_off_the_diagonal():
  x, y = logits(0), logits(1)
  difference = plots.correlation_difference(x, y)
  np.testing.assert_array_equal(difference, plots.correlation_difference(y, x))
  want = np.abs(np.corrcoef(x.T) - np.corrcoef(y.T))
  pairs = want[np.triu_indices(5, k=1)]
  assert plots.mean_difference(difference) == pytest.approx(
    pairs.mean(), rel=1e-5
  )
  assert plots.mean_difference(difference + 9 * np.eye(5)) == pytest.approx(
    plots.mean_difference(difference)
  )


def test_both_panels_have_one_scale(tmp_path, figures):
  small = plots.correlation_difference(logits(0), logits(0) + logits(1) / 9)
  large = plots.correlation_difference(logits(0), logits(1))
  assert large.max() > 2 * small.max()
  plots.heat_maps([('a', small), ('b', large)], tmp_path / 'x.png', title='c')
  first, second, bar = figures[0].axes
  limits = [axes.images[0].norm for axes in (first, second)]
  assert [(x.vmin, x.vmax) for x in limits] == [(0, large.max())] * 2
  assert bar.get_ylim() == (0, large.max())
  assert f'{plots.mean_difference(small):.4f}' in first.get_title(loc='left')
  assert f'{plots.mean_difference(large):.4f}' in second.get_title(loc='left')


@pytest.mark.parametrize('classes', [2, 10, 100])
@pytest.mark.parametrize('panels', [1, 2])
def test_heat_maps_draw_a_png(tmp_path, panels, classes):
  difference = plots.correlation_difference(
    logits(0, 200, classes), logits(1, 200, classes)
  )
  path = tmp_path / 'correlation.png'
  assert plots.heat_maps([('a', difference)] * panels, path) == path
  with PIL.Image.open(path) as image:
    assert image.format == 'PNG'
    assert image.size == (150 * (5 * panels + 1), 780)


def test_equal_networks_can_be_drawn(tmp_path, figures):
  plots.heat_maps([('a', np.zeros((3, 3)))], tmp_path / 'correlation.png')
  assert figures[0].axes[1].get_ylim() == (0, 1)
