"""Crop, flip, normalise: against NumPy, one view at a time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from data_files import pixels
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxkd import data
from jaxkd.data import augment
from jaxkd.data.cifar import VIEW100

SMALL = data.View((0.2, 0.5, 0.7), (0.3, 0.25, 0.2), pad=2, flip=True)


def train_view(image, index, epoch, seed=0, view=SMALL):
  """The function as a train step calls it: jitted, with traced arrays."""
  f = jax.jit(data.train_view, static_argnames=('seed', 'view'))
  index = jnp.asarray(index, jnp.int32)
  return np.asarray(f(image, index, epoch, seed=seed, view=view))


def all_views(image, view):
  """Every training view of one uint8 [H, W, C], by slicing, in float64."""
  height, width, _ = image.shape
  padded = np.pad(image, ((view.pad, view.pad), (view.pad, view.pad), (0, 0)))
  views = []
  for mirror in (False, True) if view.flip else (False,):
    for dy in range(2 * view.pad + 1):
      for dx in range(2 * view.pad + 1):
        crop = padded[dy : dy + height, dx : dx + width]
        crop = crop[:, ::-1] if mirror else crop
        views.append((crop / 255 - np.array(view.mean)) / np.array(view.std))
  return np.stack(views)


@pytest.mark.parametrize('pad', [0, 1, 2])
@pytest.mark.parametrize('flip', [False, True])
def test_every_view_occurs_and_no_other(pad, flip):
  view = data.View(SMALL.mean, SMALL.std, pad, flip)
  (image,) = pixels(1, 6)
  want = all_views(image, view)
  n = 40 * len(want)
  images = np.broadcast_to(image, (n, *image.shape))
  got = train_view(images, np.arange(n), 0, view=view)
  distance = np.abs(got[:, None] - want[None]).max((2, 3, 4))
  assert distance.min(1).max() < 1e-5
  times = np.bincount(distance.argmin(1), minlength=len(want))
  assert len(want) == data.view_count(view)
  # Binomial with mean 40: five standard deviations either way.
  assert times.min() > 8 and times.max() < 72


def test_view_numbers_name_the_views_in_a_fixed_order():
  view = SMALL
  (image,) = pixels(1, 6)
  n = 64
  index = jnp.arange(n, dtype=jnp.int32)
  drawn = np.asarray(data.view_number(index, 3, seed=1, view=view))
  images = np.broadcast_to(image, (n, *image.shape))
  got = train_view(images, index, 3, seed=1)
  np.testing.assert_allclose(got, all_views(image, view)[drawn], atol=1e-5)


def test_rectangles_keep_their_shape():
  view = SMALL
  image = np.random.default_rng(0).integers(0, 256, (1, 5, 9, 3), np.uint8)
  got = train_view(image, [4], 0)
  distance = np.abs(got - all_views(image[0], view)).max((1, 2, 3))
  assert distance.min() < 1e-5


def test_a_view_does_not_depend_on_the_batch():
  image, index = pixels(12), np.arange(100, 112)
  whole = train_view(image, index, 2)
  pick = np.array([7, 0, 11])
  np.testing.assert_array_equal(
    train_view(image[pick], index[pick], 2), whole[pick]
  )


def test_seed_epoch_and_index_each_change_the_views():
  index = jnp.arange(200, dtype=jnp.int32)
  drawn = [
    np.asarray(data.view_number(i, e, seed=s, view=VIEW100))
    for s, e, i in [(0, 0, index), (1, 0, index), (0, 1, index)]
    + [(0, 0, index + 200)]
  ]
  for a in range(4):
    for b in range(a):
      assert np.mean(drawn[a] == drawn[b]) < 0.05


def test_draws_do_not_change_between_releases():
  index = jnp.arange(6, dtype=jnp.int32)
  drawn = data.view_number(index, 1, seed=0, view=VIEW100)
  assert drawn.tolist() == [126, 34, 154, 77, 39, 40]


def test_padding_is_black_before_normalisation():
  image = np.full((256, 32, 32, 3), 255, np.uint8)
  got = train_view(image, np.arange(256), 0, view=VIEW100)
  black = [-1.8957, -1.8975, -1.5965]
  corners = got[:, 0, 0]
  dark = np.abs(corners - np.array(black)).max(1) < 1e-4
  white = (1 - np.array(VIEW100.mean)) / np.array(VIEW100.std)
  light = np.abs(corners - white).max(1) < 1e-4
  assert np.all(dark | light) and dark.sum() > 100 and light.any()


def test_eval_view_normalises_only():
  image = pixels(3)
  got = data.eval_view(jnp.asarray(image), view=SMALL)
  want = (image / 255 - np.array(SMALL.mean)) / np.array(SMALL.std)
  np.testing.assert_allclose(got, want, atol=1e-5)
  half = data.eval_view(jnp.asarray(image), view=SMALL, dtype=jnp.bfloat16)
  assert half.dtype == jnp.bfloat16


def test_sharding_does_not_change_views_or_move_pixels():
  mesh = jax.make_mesh((4,), ('data',), axis_types=(AxisType.Auto,))
  split = NamedSharding(mesh, P('data'))
  image, index = pixels(16), np.arange(16, dtype=np.int32)
  f = jax.jit(
    functools.partial(data.train_view, seed=0, view=SMALL),
    in_shardings=(split, split, NamedSharding(mesh, P())),
    out_shardings=split,
  )
  arguments = image, index, jnp.int32(5)
  np.testing.assert_array_equal(f(*arguments), train_view(image, index, 5))
  program = f.lower(*arguments).compile().as_text()
  assert 'all-gather' not in program and 'all-reduce' not in program


def crops(n, dtype, pad=2):
  """Images of extreme and random values, with every kind of view."""
  rng = np.random.default_rng(1)
  if dtype == np.uint8:
    image = rng.integers(0, 256, (n, 5, 9, 3), np.uint8)
  else:
    exponent = rng.integers(-30, 31, (n, 5, 9, 3))
    image = np.ldexp(rng.normal(size=exponent.shape), exponent).astype(dtype)
  dy, dx = rng.integers(0, 2 * pad + 1, (2, n)).astype(np.int32)
  return image, dy, dx, rng.integers(0, 2, n).astype(bool)


@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
def test_a_crop_by_products_has_the_bits_of_a_crop_by_gather(dtype):
  image, dy, dx, flip = crops(60, dtype)
  rows = dy[:, None] + np.arange(5, dtype=np.int32)
  x = np.arange(9, dtype=np.int32)
  columns = dx[:, None] + np.where(flip[:, None], x[::-1], x)
  gathered = augment.crop_by_gather(image, rows, columns, pad=2)
  products = augment.crop_by_products(image, rows, columns, pad=2)
  assert products.dtype == gathered.dtype == dtype
  np.testing.assert_array_equal(products, gathered)
  np.testing.assert_array_equal(augment.crop(image, dy, dx, flip, 2), gathered)


@pytest.mark.parametrize('dtype', [np.uint8, np.float32, np.int32])
def test_pixels_are_gathered_except_on_tpus(dtype):
  image, dy, dx, flip = crops(4, np.uint8)
  f = jax.jit(functools.partial(augment.crop, pad=2))
  for platform in ('cpu', 'cuda', 'tpu'):
    lowered = jax.export.export(f, platforms=[platform])
    program = lowered(image.astype(dtype), dy, dx, flip).mlir_module()
    by_products = platform == 'tpu' and dtype != np.int32
    assert program.count('stablehlo.dot_general') == 2 * by_products
    assert ('stablehlo.gather' in program) != by_products


def test_wrong_channel_count_is_refused():
  with pytest.raises(AssertionError):
    augment.eval_view(jnp.zeros((2, 4, 4, 1), jnp.uint8), view=SMALL)
