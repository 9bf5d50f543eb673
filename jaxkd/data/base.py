"""What a data set is: two splits, and how their pixels become input."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
  """Labelled images, either in memory or decoded on request.

  Exactly one of `image` and `load` is given.

  Attributes:
    label: int32 [N], in 0..K-1.
    image: uint8 [N, H, W, C], or None for a split too large for memory.
    load: `load(index [B], seeds) -> uint8 [B, H, W, C]`, decoded and resized
      on the host. With `seeds=None` it gives the test view; with integer seeds
      [B] a random training view, a pure function of each example's seed.
  """

  label: np.ndarray = dataclasses.field(repr=False)
  image: np.ndarray | None = dataclasses.field(default=None, repr=False)
  load: Callable[[np.ndarray, np.ndarray | None], np.ndarray] | None = None

  def __post_init__(self):
    assert (self.image is None) != (self.load is None), 'one of image and load'
    assert self.image is None or len(self.image) == len(self.label)

  def __len__(self) -> int:
    return len(self.label)

  @functools.cached_property
  def shape(self) -> tuple[int, int, int]:
    """(H, W, C) of every image; a lazy split decodes one to find out."""
    if self.image is not None:
      return self.image.shape[1:]
    assert self.load is not None, 'one of image and load'
    return self.load(np.zeros(1, np.int32), None).shape[1:]

  def take(self, keep: np.ndarray) -> 'Split':
    """Returns the examples `keep` (int [M]), renumbered 0..M-1."""
    if self.image is not None:
      return Split(self.label[keep], self.image[keep])
    whole = self.load
    assert whole is not None, 'one of image and load'

    def load(index, seeds):
      return whole(keep[index], seeds)

    return Split(self.label[keep], load=load)


@dataclasses.dataclass(frozen=True)
class View:
  """How raw uint8 pixels become a network's input.

  Attributes:
    mean: per channel, on the [0, 1] scale.
    std: per channel, on the [0, 1] scale.
    pad: zero pixels added on each side before a random crop back to the
      original size; 0 means no crop.
    flip: whether half of the training views are mirrored left to right.
  """

  mean: tuple[float, ...]
  std: tuple[float, ...]
  pad: int = 0
  flip: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
  """A training and a test split with everything a run needs to know.

  Attributes:
    name: as given to `load`.
    train: what is learnt from.
    test: what is measured on.
    class_names: K names; label k is `class_names[k]`.
    view: normalisation and augmentation.
    fingerprint: hex digest of images and labels of both splits (for lazy
      splits: of names, sizes and labels). A part of a data set has the digest
      of the whole set's fingerprint and the chosen indices.
    notes: sentences that a user of the data should read.
  """

  name: str
  train: Split
  test: Split
  class_names: tuple[str, ...]
  view: View
  fingerprint: str
  notes: tuple[str, ...] = ()

  @property
  def num_classes(self) -> int:
    """K."""
    return len(self.class_names)

  @property
  def image_shape(self) -> tuple[int, int, int]:
    """(H, W, C)."""
    return self.train.shape


def digest(*parts: np.ndarray | str) -> str:
  """Returns the sha256 of arrays and strings, 64 hexadecimal digits.

  Dtype and shape are hashed with an array's bytes, and the length with a
  string's, so that no two different lists of parts run together.
  """
  sha = hashlib.sha256()
  for part in parts:
    if isinstance(part, str):
      part = np.frombuffer(part.encode(), np.uint8)
    part = np.ascontiguousarray(part)
    sha.update(f'{part.dtype.str}{part.shape}'.encode())
    sha.update(part.data)
  return sha.hexdigest()


def digest_splits(train: Split, test: Split) -> str:
  """Returns the digest of two splits that are in memory."""
  assert train.image is not None, 'a lazy training split has no pixels to hash'
  assert test.image is not None, 'a lazy test split has no pixels to hash'
  return digest(train.image, train.label, test.image, test.label)
