"""Fixed parts of a training split: few-shot subsets, held-out examples.

The choice is a function of the labels, and of a seed of its own where there is
one. It does not change with the run's seed, so that runs with different seeds
are trained and evaluated on one subset.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxkd.catalog import check_whole
from jaxkd.data.base import Dataset, digest
from jaxkd.data.batches import permutation
from jaxkd.data.stratify import several_labels


def choose(
  label: np.ndarray, counts: np.ndarray, *purpose: int | str
) -> np.ndarray:
  """Chooses `counts[k]` examples of class k, or all if there are fewer.

  For one purpose, fewer examples of a class are a subset of more.

  Args:
    label: int32 [N].
    counts: int [K].
    *purpose: different words and numbers choose independently.

  Returns:
    int32 [sum of counts], ascending.
  """
  n = len(label)
  shuffled = permutation(n, *purpose)
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


def hold_out(dataset: Dataset, part: float, seed: int) -> Dataset:
  """Replaces the test split by a part of each class of the training split.

  Args:
    dataset: any.
    part: see `held_out`.
    seed: of the choice.

  Raises:
    ValueError: see `held_out`.
  """
  label = dataset.train.label
  held = held_out(label, dataset.class_names, part, seed)
  note = (
    f'The test split is {len(held)} of {len(label)} training examples, held out'
    f' with data.hold_out={part:g} and data.hold_out_seed={seed}; the real test'
    ' split is not used.'
  )
  return dataclasses.replace(
    dataset,
    train=dataset.train.take(rest(len(label), held)),
    test=dataset.train.take(held),
    fingerprint=digest(dataset.fingerprint, 'hold_out', held),
    notes=(*dataset.notes, note),
  )


def held_out(
  label: np.ndarray, names: Sequence[str], part: float, seed: int
) -> np.ndarray:
  """Chooses a stratified part of the examples, a function of labels and seed.

  Args:
    label: classes, int [N]; or a multi-hot matrix [N, K], see
      `stratify.several_labels`.
    names: of the K classes, for messages.
    part: below 1, a fraction of each class, rounded, but at least one example
      and never all; from 1 on, the number of examples of each class.
    seed: of the choice.

  Returns:
    int32 [M], ascending.

  Raises:
    ValueError: a class is too small; a part that is negative, or above 1 and
      not a whole number; examples of each class, where they have several.
  """
  if part <= 0 or (part >= 1 and part != round(part)):
    raise ValueError(
      'data.hold_out must be a fraction of each class, above 0 and below 1, or'
      f' a whole number of its examples, got {part:g}'
    )
  if label.ndim > 1:
    if part >= 1:
      raise ValueError(
        f'data.hold_out={part:g} is a number of examples of each class, but'
        ' these have several classes each: set it to a fraction below 1'
      )
    return several_labels(label, part, seed)
  sizes = np.bincount(label, minlength=len(names))
  counts = np.full(len(names), round(part))
  if part < 1:
    counts = np.maximum(1, np.floor(sizes * part + 0.5)).astype(int)
    counts = np.where(sizes > 1, np.minimum(counts, sizes - 1), counts)
    counts = np.where(sizes, counts, 0)
  small = np.flatnonzero((sizes <= counts) & (counts > 0))
  if small.size:
    k = small[0]
    raise ValueError(
      f'class {names[k]!r} has {sizes[k]} training examples, of which'
      f' data.hold_out={part:g} takes {counts[k]}, so that none is left to'
      ' train on: add examples, or lower data.hold_out'
    )
  return choose(label, counts, 'hold_out', seed)


def _require(dataset: Dataset, setting: str, n: int, needed: int) -> None:
  """Raises if a class has fewer training examples than `needed`."""
  if dataset.train.label.ndim > 1:
    raise ValueError(
      f'data.{setting}={n} is a number of examples of each class, and those of'
      f' {dataset.name!r} have several labels each: set it to 0 (a part of the'
      ' training split is held out by data.hold_out)'
    )
  check_whole('data', setting, n, least=0)
  counts = np.bincount(dataset.train.label, minlength=dataset.num_classes)
  k = int(np.argmin(counts))
  if counts[k] < needed:
    raise ValueError(
      f'class {dataset.class_names[k]!r} of {dataset.name!r} has {counts[k]} '
      f'training examples, but data.{setting}={n} needs {needed}: set '
      f'--config.data.{setting} to {max(0, counts[k] - (needed - n))} or less'
    )
