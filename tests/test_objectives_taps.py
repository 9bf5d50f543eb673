"""Taps as maps: which are paired, and how their sizes meet."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objective_inputs import draw, windowed

from jaxkd.losses import sizes
from jaxkd.objectives import taps
from jaxkd.types import Outputs


def outputs_with(**shapes) -> Outputs:
  """Returns outputs with taps of such shapes, each filled with its index."""
  maps = {
    name: jnp.full(shape, float(i))
    for i, (name, shape) in enumerate(shapes.items())
  }
  return Outputs(jnp.zeros((2, 3)), maps)


def image_of(**sides) -> Outputs:
  """Outputs with square maps [1, side, side, 4] as taps."""
  return outputs_with(
    **{name: (1, side, side, 4) for name, side in sides.items()}
  )


# Sizes of maps.


each_resizing = pytest.mark.parametrize(
  ('old', 'new'),
  [  # divisors, overlapping windows, enlarged, as it is, and of each something
    ((8, 6), (4, 2)),
    ((7, 5), (3, 4)),
    ((3, 4), (5, 8)),
    ((5, 1), (5, 1)),
    ((9, 2), (1, 7)),
  ],
)


@each_resizing
def test_pooling_averages_windows(old, new):
  x = draw(1, *old, 2)
  got = jax.jit(sizes.adaptive_average_pool, static_argnums=1)(x, new)
  want = windowed(x.astype(np.float64), new)
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@each_resizing
def test_nearest_takes_whole_pixels(old, new):
  (height, width), (h, w) = old, new
  x = draw(1, height, width, 2)
  rows = [math.floor(i * height / h) for i in range(h)]
  columns = [math.floor(j * width / w) for j in range(w)]
  got = jax.jit(sizes.nearest, static_argnums=1)(x, new)
  np.testing.assert_array_equal(got, x[:, rows][:, :, columns])


def test_maps_meet_in_the_smaller_size_of_each_axis():
  x, y = draw(2, 8, 3, 4), draw(2, 4, 7, 5, seed=1)
  first, second = sizes.match(jnp.asarray(x), jnp.asarray(y))
  np.testing.assert_allclose(first, windowed(x, (4, 3)), rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(second, windowed(y, (4, 3)), rtol=1e-5, atol=1e-6)
  same, _ = sizes.match(jnp.asarray(x), jnp.asarray(x))
  np.testing.assert_array_equal(same, x)


# Taps.


def sides(pairs):
  """The height of each map of each pair."""
  return [(x.shape[1], y.shape[1]) for x, y in pairs]


THREE = image_of(stem=32, stage1=32, stage2=16, stage3=8)
FOUR = image_of(stem=31, stage1=30, stage2=15, stage3=7, stage4=3)
PLAIN = image_of(stage10=2, stage9=4, stage9_pre=5)  # counted, not sorted


def test_stages_are_paired_from_the_first_or_from_the_deepest():
  assert sides(taps.pairs(THREE, FOUR)) == [(32, 30), (16, 15), (8, 7)]
  deepest = taps.pairs(FOUR, THREE, from_last=True)
  assert sides(deepest) == [(15, 32), (7, 16), (3, 8)]
  assert sides(taps.pairs(PLAIN, THREE)) == [(4, 32), (2, 16)]


def test_taps_can_be_named():
  assert sides([taps.pair(THREE, FOUR, 'stage2')]) == [(16, 15)]
  assert sides([taps.pair(THREE, FOUR, 'stem', 'stage4')]) == [(32, 3)]
  assert sides([taps.pair(THREE, PLAIN, 'last')]) == [(8, 2)]
  named = taps.pairs(THREE, FOUR, ('stem', 'last'), ('stage1', 'stage3'))
  assert sides(named) == [(32, 30), (8, 7)]
  assert sides(taps.pairs(THREE, FOUR, ('stem', 'last'))) == [(32, 31), (8, 3)]


def test_a_stage_without_an_activation_is_its_own_pre_activation():
  before = taps.pairs(PLAIN, THREE, suffix='_pre')
  assert sides(before) == [(5, 32), (2, 16)]
  assert sides([taps.pair(THREE, PLAIN, 'last_pre')]) == [(8, 2)]


def test_a_missing_tap_is_explained():
  with pytest.raises(KeyError) as error:
    taps.pair(FOUR, THREE, 'stage4')
  message = str(error.value)
  assert "the guide has no tap 'stage4'. Did you mean 'stage3'" in message
  assert "the learner's are stage1, stage2, stage3, stage4, stem" in message
  assert 'settings stage and guide_stage' in message
  with pytest.raises(KeyError, match="the learner has no tap 'stage_2_pre'"):
    taps.pair(FOUR, THREE, 'stage_2_pre', 'stage2')
  with pytest.raises(KeyError, match='the learner has no stages, only pooled'):
    taps.pairs(outputs_with(pooled=(1, 4)), THREE)


def test_a_single_name_is_one_tap():
  assert sides(taps.pairs(THREE, FOUR, 'stage2')) == [(16, 15)]
  assert sides(taps.pairs(THREE, FOUR, 'stem', 'stage4')) == [(32, 3)]


@pytest.mark.parametrize('stages', [3, (3, (1, 2)), {'stage1': 1.0}])
def test_taps_that_are_not_names_are_refused(stages):
  message = f'taps must be names, .* got {re.escape(repr(stages))}'
  for sides in ((stages, ()), ('stage1', stages)):
    with pytest.raises(ValueError, match=message):
      taps.pairs(THREE, FOUR, *sides)


def test_a_guide_without_features_is_refused():
  with pytest.raises(ValueError, match="the guide is 'labels': let a network"):
    taps.pair(THREE, None, 'stage1')


def test_different_numbers_of_taps_are_refused():
  with pytest.raises(
    ValueError, match="2 taps of the learner's, stage1, stage2"
  ):
    taps.pairs(THREE, FOUR, ('stage1', 'stage2'), ('stage1',))


def only(x) -> Outputs:
  return Outputs(jnp.zeros((1, 3)), {'stage1': jnp.asarray(x)})


def map_of(x, beside) -> np.ndarray:
  """Returns the map of a tap x of the learner, beside one of the guide."""
  return np.asarray(taps.pair(only(x), only(beside), 'stage1')[0])


def test_tokens_are_the_map_of_their_patches():
  patches = draw(2, 3, 3, 5)
  tokens = patches.reshape(2, 9, 5)
  after_class = np.concatenate([draw(2, 1, 5, seed=1), tokens], axis=1)
  for tap in (patches, tokens, after_class):
    np.testing.assert_array_equal(map_of(tap, tokens), patches)
  vector = draw(2, 5)
  np.testing.assert_array_equal(map_of(vector, tokens)[:, 0, 0], vector)
  one = draw(2, 1, 5)  # a single patch, or a class token alone
  np.testing.assert_array_equal(map_of(one, tokens)[:, 0], one)


@pytest.mark.parametrize('first', [0, 1])
def test_tokens_get_the_aspect_ratio_of_the_other_map(first):
  patches = draw(2, 2, 8, 5)  # sixteen of them, which could be a square
  class_token = draw(2, first, 5, seed=1)
  tokens = np.concatenate([class_token, patches.reshape(2, 16, 5)], axis=1)
  np.testing.assert_array_equal(map_of(tokens, draw(2, 4, 16, 1)), patches)


def test_tokens_without_a_grid_are_explained():
  with pytest.raises(ValueError, match='9 tokens, .* not a grid .* 4:16'):
    map_of(draw(2, 9, 5), draw(2, 4, 16, 1))
  with pytest.raises(ValueError, match='8 tokens, .* not a grid .* 1:1'):
    map_of(draw(2, 8, 5), draw(2, 8, 5))


def test_maps_are_float32():
  low = jnp.ones((2, 3, 3, 5), jnp.bfloat16)
  assert map_of(low, low).dtype == jnp.float32
