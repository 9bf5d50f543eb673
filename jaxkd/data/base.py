"""Data sets: their splits, and how their pixels become a network's input."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
  """Images with labels, either in memory or decoded on request.

  Exactly one of `image` and `load` is set.

  Attributes:
    label: int32 [N], in 0..K-1; other problems have labels [N, ...].
    image: uint8 [N, H, W, C], float32 if the data are real numbers, or None for
      a split too large for memory.
    load: `load(index [B], seeds) -> uint8 [B, H, W, C]`, decoded and resized
      on the host. With `seeds=None` it returns the test view; with integer
      seeds [B] a random training view, a pure function of each example's seed.
    posterior: float32 [N, K], the Bayes posterior p*(k|x) of each example, or
      None if it is unknown.
    weight: float32 [N], at least 0 and of mean 1: how much each example counts
      in the mean of a training loss, see `Problem.train_view`; None if all
      count alike. Evaluation counts every example once.
  """

  label: np.ndarray = dataclasses.field(repr=False)
  image: np.ndarray | None = dataclasses.field(default=None, repr=False)
  load: Callable[[np.ndarray, np.ndarray | None], np.ndarray] | None = None
  posterior: np.ndarray | None = dataclasses.field(default=None, repr=False)
  weight: np.ndarray | None = dataclasses.field(default=None, repr=False)

  def __post_init__(self):
    assert (self.image is None) != (self.load is None), 'one of image and load'
    for array in (self.image, self.posterior, self.weight):
      assert array is None or len(array) == len(self.label)

  def __len__(self) -> int:
    return len(self.label)

  @functools.cached_property
  def shape(self) -> tuple[int, int, int]:
    """(H, W, C) of every image; a lazy split decodes one to find out."""
    if self.image is not None:
      return self.image.shape[1:]
    assert self.load is not None, 'one of image and load'
    return self.load(np.zeros(1, np.int32), None).shape[1:]

  @property
  def rows(self) -> dict[str, np.ndarray]:
    """Everything but the images, by name: arrays with a row per example."""
    further = {'posterior': self.posterior, 'weight': self.weight}
    known = {name: x for name, x in further.items() if x is not None}
    return {'label': self.label, **known}

  @property
  def arrays(self) -> dict[str, np.ndarray]:
    """The examples as stored, by name; {} if they are not in memory."""
    return {} if self.image is None else {'image': self.image, **self.rows}

  def take(self, keep: np.ndarray) -> 'Split':
    """Returns the examples `keep` (int [M]), renumbered 0..M-1.

    Their weights are scaled to a mean of 1 again.
    """
    rows: dict[str, Any] = {name: x[keep] for name, x in self.rows.items()}
    if 'weight' in rows:
      rows['weight'] = unit_mean(rows['weight'])
    if self.image is not None:
      return Split(image=self.image[keep], **rows)
    whole = self.load
    assert whole is not None, 'one of image and load'

    def load(index, seeds):
      return whole(keep[index], seeds)

    return Split(load=load, **rows)


@dataclasses.dataclass(frozen=True)
class View:
  """How raw pixels become a network's input: (x / scale - mean) / std.

  Attributes:
    mean: per channel, on the [0, 1] scale.
    std: per channel, on the [0, 1] scale.
    pad: zero pixels added on each side before a random crop back to the
      original size; 0 means no crop.
    flip: whether half of the training views are mirrored left to right.
    scale: what the pixels are divided by first. Real numbers have scale 1, and
      mean and std in their own unit.
  """

  mean: tuple[float, ...]
  std: tuple[float, ...]
  pad: int = 0
  flip: bool = False
  scale: float = 255.0


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
  """A training and a test split, and all that a run needs besides.

  Attributes:
    name: as `load` takes it.
    train: the training split.
    test: the split on which networks are evaluated.
    class_names: K names; label k is `class_names[k]`.
    view: normalisation and augmentation.
    fingerprint: hex digest of images and labels of both splits (for lazy
      splits: of names, sizes and labels). A part of a data set has the digest
      of the whole set's fingerprint and the part's indices.
    notes: sentences that a user of the data should read.
    validation: held out for choosing among epochs and hyper-parameters, or None
      where the data set has no such split; the fingerprint does not cover it.
    bayes: kernel [D, K] and bias [K] of the linear classifier whose softmax is
      the posterior; None if there is no such classifier, or it is unknown.
    problem: the name of the problem that the data pose, in
      `jaxkd.problems.CATALOG`.
  """

  name: str
  train: Split
  test: Split
  class_names: tuple[str, ...]
  view: View
  fingerprint: str
  notes: tuple[str, ...] = ()
  validation: Split | None = None
  bayes: tuple[np.ndarray, np.ndarray] | None = None
  problem: str = 'classification'

  @property
  def num_classes(self) -> int:
    """K."""
    return len(self.class_names)

  @property
  def image_shape(self) -> tuple[int, int, int]:
    """(H, W, C)."""
    return self.train.shape


def unit_mean(weight: np.ndarray) -> np.ndarray:
  """Returns weights of examples, scaled to a mean of 1, as float32.

  Args:
    weight: [N], finite and at least 0; if all are 0, they stay so.
  """
  greatest = np.max(weight, initial=0)
  if not greatest:
    return np.asarray(weight, np.float32)
  share = np.asarray(weight, np.float64) / greatest  # whose sum is finite
  return np.asarray(share / np.mean(share), np.float32)


def digest(*parts: np.ndarray | str) -> str:
  """Returns the sha256 of arrays and strings, 64 hexadecimal digits.

  Dtype and shape are hashed with an array's bytes, and the length with a
  string's, so that different lists of parts have different digests.
  """
  sha = hashlib.sha256()
  for part in parts:
    if isinstance(part, str):
      # Names of files may have bytes that are not UTF-8.
      part = np.frombuffer(part.encode(errors='surrogateescape'), np.uint8)
    part = np.ascontiguousarray(part)
    sha.update(f'{part.dtype.str}{part.shape}'.encode())
    sha.update(part.data)
  return sha.hexdigest()


def digest_splits(train: Split, test: Split) -> str:
  """Returns the digest of two splits that are in memory."""
  assert train.image is not None, 'a lazy training split has no pixels to hash'
  assert test.image is not None, 'a lazy test split has no pixels to hash'
  return digest(train.image, train.label, test.image, test.label)
