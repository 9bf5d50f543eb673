"""Which examples make up a batch, and how their pixels are fetched.

Data order is a pure function of (seed, epoch): a resumed run sees the same
batches, and nothing about the order is stored. It is drawn from NumPy's PCG64
words, whose stream NumPy promises to keep, and not from `Generator` methods,
which may change between releases.
"""

import collections
import dataclasses
import zlib
from collections.abc import Iterable, Iterator
from concurrent import futures
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxkd.data.base import Split
from jaxkd.types import Array


def permutation(n: int, *words: int | str) -> np.ndarray:
  """Returns int32 [n], a permutation that is a function of `words` alone."""
  keys = np.random.PCG64(entropy(*words)).random_raw(n)
  return np.argsort(keys, kind='stable').astype(np.int32)


def order(seed: int, epoch: int, n: int) -> np.ndarray:
  """Returns int32 [n]: the order in which an epoch visits the examples."""
  return permutation(n, 'order', seed, epoch)


def example_seeds(seed: int, epoch: int, index: np.ndarray) -> np.ndarray:
  """Returns uint64 [B], one seed for each example's view in an epoch.

  Example i gets output i of SplitMix64 (Steele et al., OOPSLA 2014) started at
  a state drawn from (seed, epoch): its neighbours in the batch do not matter.
  """
  start = entropy('view', seed, epoch).generate_state(1, np.uint64)
  z = start + (np.asarray(index, np.uint64) + np.uint64(1)) * _WEYL
  for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
    z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
  return z ^ (z >> np.uint64(31))


def train_batches(
  n: int, batch_size: int, seed: int, epoch: int
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the indices of one epoch.

  Args:
    n: examples in the split.
    batch_size: B.
    seed: the run's seed, at least 0.
    epoch: counted from 0.

  Returns:
    int32 [n // B, B], the full batches; int32 [n % B], the last, smaller one,
    which trainings on CIFAR keep.
  """
  indices = order(seed, epoch, n)
  full = n - n % batch_size
  return indices[:full].reshape(-1, batch_size), indices[full:]


def eval_batches(
  n: int, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Yields every example once, in order, in batches of one size.

  Args:
    n: examples in the split.
    batch_size: B.

  Yields:
    index int32 [B] and mask float32 [B]: the last batch is filled up with
    example 0 under mask 0.
  """
  for start in range(0, n, batch_size):
    index = np.arange(start, start + batch_size, dtype=np.int32)
    real = index < n
    yield np.where(real, index, np.int32(0)), real.astype(np.float32)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StoredSplit:
  """A split in memory, as devices store it: a row of numbers for each image.

  A TPU lays [N, H, W, C] out with the examples innermost, and lays the whole
  split out anew in every call that gathers a batch of it. Rows stay as they
  are.

  rows: 'image' uint8 or float32 [N, H W C], 'label' int32 [N], and any further
    arrays by example, see `Split.rows`.
  image_shape: (H, W, C).
  """

  rows: dict[str, Any]
  image_shape: tuple[int, int, int] = dataclasses.field(
    metadata=dict(static=True)
  )


def stored_split(split: Split) -> StoredSplit | None:
  """Returns a split's arrays as devices store them; None if not in memory."""
  if split.image is None:
    return None
  image = split.image.reshape(len(split), -1)
  return StoredSplit({'image': image, **split.rows}, split.shape)


def gather(stored: StoredSplit, index: Array) -> dict[str, Array]:
  """Picks a batch out of a split on the device.

  Args:
    stored: of N examples.
    index: int32 [B].

  Returns:
    The rows `index` of every array, 'image' [B, H, W, C] among them, and
    'index' int32 [B].
  """
  picked = {
    name: jnp.take(array, index, axis=0, mode='clip')
    for name, array in stored.rows.items()
  }
  shape = (*index.shape, *stored.image_shape)
  image = picked['image'].reshape(shape)
  return {**picked, 'image': image, 'index': index}


def prefetch(
  split: Split,
  indices: Iterable[np.ndarray],
  seed: int,
  epoch: int | None,
  workers: int = 8,
  depth: int = 3,
) -> Iterator[dict[str, np.ndarray]]:
  """Decodes batches of a lazy split in threads, ahead of their use.

  A batch is shared out among all workers, so that `depth` can stay small: it is
  the number of decoded batches that memory must hold. An exception of `load` is
  raised where its batch is due. Threads end with the iterator, also when the
  consumer closes it early.

  Args:
    split: a split with `load`.
    indices: int32 [B] for each batch.
    seed: the run's seed, at least 0.
    epoch: for training views; None for test views.
    workers: decoding threads.
    depth: batches in flight, at least 1.

  Yields:
    'image' uint8 [B, H, W, C], 'index' int32 [B] and those of the split's
    `rows`, in the order of `indices`.
  """
  load = split.load
  assert load is not None, 'a split in memory needs gather, not prefetch'
  pool = futures.ThreadPoolExecutor(workers, thread_name_prefix='jaxkd-decode')

  def submit(index):
    seeds = None if epoch is None else example_seeds(seed, epoch, index)
    parts = np.array_split(np.arange(len(index)), min(workers, len(index)))
    return index, [
      pool.submit(load, index[p], None if seeds is None else seeds[p])
      for p in parts
    ]

  def collect(index, parts):
    image = np.concatenate([part.result() for part in parts])
    rows = {name: x[index] for name, x in split.rows.items()}
    return {'image': image, **rows, 'index': index}

  try:
    ahead = collections.deque()
    for index in indices:
      ahead.append(submit(index))
      if len(ahead) >= depth:
        yield collect(*ahead.popleft())
    while ahead:
      yield collect(*ahead.popleft())
  finally:
    pool.shutdown(cancel_futures=True)


_WEYL = np.uint64(0x9E3779B97F4A7C15)


def entropy(*words: int | str) -> np.random.SeedSequence:
  """Mixes numbers and names of purposes into PCG64's initial state."""
  return np.random.SeedSequence(
    [zlib.crc32(w.encode()) if isinstance(w, str) else int(w) for w in words]
  )
