"""Reliability diagrams: their content, and the file."""

import importlib

import numpy as np
import PIL.Image
import pytest

from jaxkd import plots


def bins(num_bins=15, filled=None, gap=0.0):
  """A network whose accuracy is `gap` below its confidence."""
  confidence = (np.arange(num_bins) + 0.5) / num_bins
  share = (np.arange(num_bins) < (filled or num_bins)).astype(float)
  empty = np.where(share > 0, 0, np.nan)
  return {
    'confidence': confidence + empty,
    'accuracy': np.clip(confidence - gap, 0, 1) + empty,
    'share': share / share.sum(),
  }


@pytest.fixture
def figures(monkeypatch):
  """The matplotlib figures that are saved."""
  saved = []

  def save(figure, path):
    saved.append(figure)
    return path

  # The function has the name of its module.
  module = importlib.import_module('jaxkd.plots.reliability')
  monkeypatch.setattr(module, 'save', save)
  return saved


def heights(axes):
  """Label of the bars -> bottom and top of each."""
  return {
    bars.get_label(): [(b.get_y(), b.get_y() + b.get_height()) for b in bars]
    for bars in axes.containers
  }


def test_bars_end_at_accuracy_and_mean_confidence(figures, tmp_path):
  network = {
    'confidence': np.array([np.nan, 0.4, 0.5, 0.9]),
    'accuracy': np.array([np.nan, 0.1, 0.75, 0.9]),
    'share': np.array([0, 0.5, 0.25, 0.25]),
  }
  plots.reliability({'net': network}, tmp_path / 'x.png')
  diagram, histogram = figures[0].axes
  got = heights(diagram)
  np.testing.assert_allclose(got['accuracy'], [[0, 0.1], [0, 0.75], [0, 0.9]])
  over = [[0.1, 0.4], [0.5, 0.5], [0.9, 0.9]]
  under = [[0.1, 0.1], [0.5, 0.75], [0.9, 0.9]]
  np.testing.assert_allclose(got['over-confident'], over)
  np.testing.assert_allclose(got['under-confident'], under)
  bars = diagram.containers[0]
  assert [bar.get_x() for bar in bars] == [0.25, 0.5, 0.75]
  assert {bar.get_width() for bar in bars} == {0.25}
  (shares,) = heights(histogram).values()
  np.testing.assert_allclose(shares, [[0, 0], [0, 50], [0, 25], [0, 25]])
  title = diagram.get_title(loc='left')
  assert title == 'net: ECE 21.25 %'  # 0.5 x 0.3 + 0.25 x 0.25


def test_each_network_has_its_panels_on_common_scales(figures, tmp_path):
  networks = {f'net{n}': bins(filled=9 + n, gap=n / 10) for n in range(6)}
  plots.reliability(networks, tmp_path / 'x.png', title='A title')
  panels = [axes for axes in figures[0].axes if axes.axison]
  titles = [axes.get_title(loc='left') for axes in panels]
  assert [x.split(':')[0] for x in titles if x] == list(networks)
  assert len(panels) == 12
  limits = {a.get_ylim() for a in panels if not a.get_title(loc='left')}
  assert len(limits) == 1


@pytest.mark.parametrize(
  ('networks', 'size'),
  [
    ({'student': bins()}, (1020, 780)),
    ({'student': bins(filled=1)}, (1020, 780)),
    ({f'{n} bins': bins(n, gap=0.1) for n in (1, 10, 100)}, (1620, 780)),
    ({f'net{n}': bins(filled=9) for n in range(5)}, (2160, 1560)),
  ],
  ids=['one', 'one bin', 'three', 'five'],
)
def test_a_png_is_drawn(tmp_path, networks, size):
  path = tmp_path / 'reliability.png'
  assert plots.reliability(networks, str(path), title='A title') == path
  with PIL.Image.open(path) as image:
    assert image.format == 'PNG'
    assert image.size == size
    pixels = np.asarray(image.convert('L'))
  assert 0.01 < np.mean(pixels < 200) < 0.6  # neither empty nor full
  assert path.stat().st_size < 500_000


def test_a_diagram_without_networks_is_refused(tmp_path):
  with pytest.raises(ValueError, match='at least one entry'):
    plots.reliability({}, tmp_path / 'x.png')
  assert not list(tmp_path.iterdir())
