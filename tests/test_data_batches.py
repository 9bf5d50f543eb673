"""Order, batches, gathering, and the decoding threads."""

import itertools
import threading
import time

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd import data

sizes = st.integers(1, 300)
seeds = st.integers(0, 2**31 - 1)


@hypothesis.given(sizes, seeds, st.integers(0, 1000))
def test_order_is_a_permutation(n, seed, epoch):
  order = data.order(seed, epoch, n)
  assert order.dtype == np.int32
  np.testing.assert_array_equal(np.sort(order), np.arange(n))
  np.testing.assert_array_equal(order, data.order(seed, epoch, n))


def test_order_depends_on_seed_and_epoch():
  orders = [data.order(s, e, 100) for s in range(3) for e in range(3)]
  assert len({tuple(order) for order in orders}) == 9


def test_every_place_is_as_likely_as_any_other():
  n, epochs = 5, 4000
  first = [int(data.order(0, epoch, n)[0]) for epoch in range(epochs)]
  counts = np.bincount(first, minlength=n)
  # Binomial: mean 800, deviation 25.
  assert np.abs(counts - epochs / n).max() < 125


def test_order_does_not_change_between_releases():
  assert data.order(0, 0, 8).tolist() == [4, 1, 2, 0, 6, 3, 5, 7]
  assert data.example_seeds(0, 0, np.arange(2)).tolist() == [
    12372913325178223054,
    3539530606298228247,
  ]


@hypothesis.given(sizes, st.integers(1, 70), seeds)
def test_train_batches_are_the_order_in_pieces(n, batch_size, seed):
  full, rest = data.train_batches(n, batch_size, seed, 2)
  assert full.shape == (n // batch_size, batch_size)
  assert rest.shape == (n % batch_size,)
  whole = np.concatenate([full.ravel(), rest])
  np.testing.assert_array_equal(whole, data.order(seed, 2, n))


@hypothesis.given(sizes, st.integers(1, 70))
def test_eval_batches_count_every_example_once(n, batch_size):
  counts = np.zeros(n)
  for index, mask in data.eval_batches(n, batch_size):
    assert index.shape == mask.shape == (batch_size,)
    assert index.dtype == np.int32 and mask.dtype == np.float32
    assert not index[mask == 0].any()
    np.add.at(counts, index, mask)
  np.testing.assert_array_equal(counts, 1)


def test_example_seeds_do_not_depend_on_the_batch():
  index = np.random.default_rng(0).permutation(1000)
  whole = data.example_seeds(3, 4, index)
  assert whole.dtype == np.uint64
  np.testing.assert_array_equal(
    data.example_seeds(3, 4, index[[5, 900]]), whole[[5, 900]]
  )
  others = [data.example_seeds(s, e, index) for s, e in [(3, 5), (4, 4)]]
  assert len(set(np.concatenate([whole, *others]).tolist())) == 3000


def test_example_seeds_follow_splitmix64():
  """The published generator, in Python's integers."""
  word = 2**64
  a, b = data.example_seeds(0, 0, np.array([0, 1])).tolist()

  def unshift(z, n):
    x = z
    for _ in range(64 // n + 1):
      x = z ^ (x >> n)
    return x

  def state(z):
    z = unshift(z, 31) * pow(0x94D049BB133111EB, -1, word) % word
    z = unshift(z, 27) * pow(0xBF58476D1CE4E5B9, -1, word) % word
    return unshift(z, 30)

  assert (state(b) - state(a)) % word == 0x9E3779B97F4A7C15


def test_gather_picks_images_labels_and_keeps_the_index():
  image = np.random.default_rng(0).integers(0, 256, (9, 4, 5, 3), np.uint8)
  label = np.arange(9, dtype=np.int32)[::-1].copy()
  index = jnp.array([3, 0, 8, 3], jnp.int32)
  stored = data.stored_split(data.Split(label, image))
  raw = jax.jit(data.gather)(stored, index)
  assert {k: v.dtype.name for k, v in raw.items()} == {
    'image': 'uint8',
    'label': 'int32',
    'index': 'int32',
  }
  np.testing.assert_array_equal(raw['image'], image[[3, 0, 8, 3]])
  np.testing.assert_array_equal(raw['label'], label[[3, 0, 8, 3]])
  np.testing.assert_array_equal(raw['index'], index)


def test_a_stored_split_has_a_row_for_each_image_and_copies_nothing():
  image = np.zeros((9, 4, 5, 3), np.uint8)
  stored = data.stored_split(data.Split(np.zeros(9, np.int32), image))
  assert stored.rows['image'].shape == (9, 60)
  assert np.shares_memory(stored.rows['image'], image)
  assert data.stored_split(lazy_split(3)) is None


def lazy_split(n: int, delay: float = 0.0, broken: int = -1) -> data.Split:
  """Images that spell their index, and the last digits of their seed."""

  def load(index, seeds):
    time.sleep(delay)
    if broken in index:
      raise OSError(f'example {broken} cannot be read')
    image = np.zeros((len(index), 1, 2, 1), np.uint8)
    image[:, 0, 0, 0] = index
    image[:, 0, 1, 0] = 255 if seeds is None else seeds % 255
    return image

  return data.Split(np.arange(n, dtype=np.int32) * 2, load=load)


def decoding_threads() -> list[str]:
  names = [thread.name for thread in threading.enumerate()]
  return [name for name in names if name.startswith('jaxkd-decode')]


@pytest.mark.parametrize('workers', [1, 3, 16])
@pytest.mark.parametrize('depth', [1, 2, 50])
def test_prefetch_keeps_the_order(workers, depth):
  full, rest = data.train_batches(37, 5, 0, 0)
  batches = list(
    data.prefetch(lazy_split(37), [*full, rest], 0, 4, workers, depth)
  )
  assert [len(b['index']) for b in batches] == [5] * 7 + [2]
  for batch, index in zip(batches, [*full, rest], strict=True):
    np.testing.assert_array_equal(batch['index'], index)
    np.testing.assert_array_equal(batch['label'], 2 * index)
    np.testing.assert_array_equal(batch['image'][:, 0, 0, 0], index)
    want = data.example_seeds(0, 4, index) % np.uint64(255)
    np.testing.assert_array_equal(batch['image'][:, 0, 1, 0], want)
  assert not decoding_threads()


def test_prefetch_without_an_epoch_gives_test_views():
  (batch,) = data.prefetch(lazy_split(3), [np.arange(3)], 0, None)
  assert (batch['image'][:, 0, 1, 0] == 255).all()


def test_prefetch_stays_a_few_batches_ahead():
  requested = []

  def indices():
    for i in range(100):
      requested.append(i)
      yield np.array([i], np.int32)

  batches = data.prefetch(lazy_split(100), indices(), 0, 0, depth=4)
  next(batches)
  assert len(requested) == 4
  next(batches)
  assert len(requested) == 5
  batches.close()


def test_prefetch_ends_its_threads_when_the_consumer_stops():
  split = lazy_split(100, delay=0.01)
  indices = (np.array([i], np.int32) for i in itertools.count())
  batches = data.prefetch(split, indices, 0, 0, workers=4, depth=8)
  next(batches)
  assert decoding_threads()
  batches.close()
  assert not decoding_threads()


def test_prefetch_raises_where_the_batch_is_due():
  indices = np.arange(20, dtype=np.int32).reshape(10, 2)
  batches = data.prefetch(lazy_split(20, broken=7), indices, 0, 0, 2, 5)
  good = [next(batches)['index'].tolist() for _ in range(3)]
  assert good == [[0, 1], [2, 3], [4, 5]]
  with pytest.raises(OSError, match='example 7 cannot be read'):
    next(batches)
  assert not decoding_threads()


def test_prefetch_decodes_in_parallel():
  barrier = threading.Barrier(4, timeout=10)

  def load(index, seeds):
    barrier.wait()
    return np.zeros((len(index), 1, 1, 1), np.uint8)

  split = data.Split(np.zeros(8, np.int32), load=load)
  (batch,) = data.prefetch(split, [np.arange(8)], 0, None, workers=4)
  assert len(batch['image']) == 8
