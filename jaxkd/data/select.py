"""Fixed parts of a training split: few-shot subsets, held-out examples.

The choice is a function of the labels alone. It does not change with the run's
seed, so that runs with different seeds are trained and evaluated on one subset.
"""

import dataclasses

import numpy as np

from jaxkd.data.base import Dataset, digest
from jaxkd.data.batches import permutation


def choose(label: np.ndarray, counts: np.ndarray, purpose: str) -> np.ndarray:
  """Chooses `counts[k]` examples of class k, or all if there are fewer.

  For one purpose, fewer examples of a class are a subset of more.

  Args:
    label: int32 [N].
    counts: int [K].
    purpose: different words choose independently.

  Returns:
    int32 [sum of counts], ascending.
  """
  n = len(label)
  shuffled = permutation(n, purpose)
  shuffled = shuffled[np.argsort(label[shuffled], kind='stable')]
  of_class = label[shuffled]
  present = np.bincount(label, minlength=len(counts))
  first = np.cumsum(present) - present
  rank = np.arange(n) - first[of_class]
  return np.sort(shuffled[rank < counts[of_class]])


def rest(n: int, index: np.ndarray) -> np.ndarray:
  """Returns the int32 [N - M] of 0..N-1 that are not in `index` [M]."""
  return np.setdiff1d(np.arange(n, dtype=np.int32), index)


def few_shot(dataset: Dataset, n: int) -> Dataset:
  """Keeps n training examples of each class.

  Raises:
    ValueError: a class has fewer than n.
  """
  _require(dataset, 'few_shot', n, n)
  label = dataset.train.label
  keep = choose(label, np.full(dataset.num_classes, n), 'few_shot')
  return dataclasses.replace(
    dataset,
    train=dataset.train.take(keep),
    fingerprint=digest(dataset.fingerprint, 'few_shot', keep),
  )


def validation(dataset: Dataset, n: int) -> Dataset:
  """Replaces the test split by n training examples of each class.

  Raises:
    ValueError: a class has n examples or fewer, so that none would remain.
  """
  _require(dataset, 'validation', n, n + 1)
  label = dataset.train.label
  held = choose(label, np.full(dataset.num_classes, n), 'validation')
  note = (
    f'The test split is {n} training examples of each class, held out for '
    'choosing hyper-parameters; the real test split is not used.'
  )
  return dataclasses.replace(
    dataset,
    train=dataset.train.take(rest(len(label), held)),
    test=dataset.train.take(held),
    fingerprint=digest(dataset.fingerprint, 'validation', held),
    notes=(*dataset.notes, note),
  )


def _require(dataset: Dataset, setting: str, n: int, needed: int) -> None:
  """Raises if a class has fewer training examples than `needed`."""
  if n < 0:
    raise ValueError(f'data.{setting}={n} is negative: use 0 to switch it off')
  counts = np.bincount(dataset.train.label, minlength=dataset.num_classes)
  k = int(np.argmin(counts))
  if counts[k] < needed:
    raise ValueError(
      f'class {dataset.class_names[k]!r} of {dataset.name!r} has {counts[k]} '
      f'training examples, but data.{setting}={n} needs {needed}: set '
      f'--config.data.{setting} to {max(0, counts[k] - (needed - n))} or less'
    )
