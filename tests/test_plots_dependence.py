"""The figure of how an outcome depends on a factor."""

import numpy as np

from jaxkd.plots import dependence as module_function
from jaxkd.plots.style import save

SEEDS, RECIPES = 3, 9


def test_every_recipe_and_every_seed_is_drawn(tmp_path, monkeypatch):
  import sys

  figures = []

  def keep(figure, path):
    figures.append(figure)
    return save(figure, path)

  monkeypatch.setattr(sys.modules[module_function.__module__], 'save', keep)
  rng = np.random.default_rng(0)
  recipes = {f'r{n}': tuple(rng.random((2, SEEDS))) for n in range(RECIPES)}
  path = module_function(
    {'a': recipes, 'b': recipes}, tmp_path / 'x.png', 'x', 'y'
  )
  assert path.read_bytes()[:4] == b'\x89PNG'
  for panel, title in zip(figures[0].axes, 'ab', strict=True):
    assert panel.get_title(loc='left') == title
    labels = [text.get_text() for text in panel.get_legend().get_texts()]
    assert labels == list(recipes)
    # A line for each seed, through its points from left to right.
    assert len(panel.lines) == SEEDS
    for seed, line in enumerate(panel.lines):
      points = sorted((x[seed], y[seed]) for x, y in recipes.values())
      np.testing.assert_allclose(line.get_xydata(), points)
    means = panel.collections[1::2]
    for (x, y), mark in zip(recipes.values(), means, strict=True):
      np.testing.assert_allclose(mark.get_offsets(), [[np.mean(x), np.mean(y)]])
    looks = {
      (tuple(mark.get_facecolor()[0]), len(mark.get_paths()[0].vertices))
      for mark in means
    }
    assert len(looks) == RECIPES
