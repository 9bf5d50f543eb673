"""Turns two lists of image files and labels into a data set."""

from collections.abc import Callable
from concurrent import futures
from typing import NamedTuple

import numpy as np

from jaxkd.data import images
from jaxkd.data.base import Dataset, Split, View, digest, digest_splits

SMALL = 64  # pixels: up to here images are icons, beyond it photographs
MEMORY = 2 * 1024**3  # bytes of decoded images that are kept in memory
IMAGENET = View((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), flip=True)


class Source(NamedTuple):
  """Where the images of a split come from.

  label: see `Split`.
  fetch: the files of examples, given their indices [B].
  weight: see `Split`.
  """

  label: np.ndarray
  fetch: Callable[[np.ndarray], list[images.File]]
  weight: np.ndarray | None = None


def assemble(
  name: str,
  train: Source,
  test: Source,
  class_names: tuple[str, ...],
  *,
  size: int,
  channels: int,
  memory: int,
  identity: str,
  notes: tuple[str, ...] = (),
  problem: str = 'classification',
) -> Dataset:
  """Decodes everything if it fits into `memory`, else makes lazy splits.

  In memory, both splits hold each image's largest central square, and training
  views are padded crops made on the device. Lazy splits have the views that are
  usual for ImageNet, cropped on the host and flipped on the device.

  Args:
    name: of the data set.
    train: training images.
    test: test images.
    class_names: K names.
    size: height and width of the result, in pixels.
    channels: 3 for RGB, 1 for grey.
    memory: bytes.
    identity: names and sizes of the files, for a lazy set's fingerprint.
    notes: sentences for the user.
    problem: that the labels pose, see `Dataset`.
  """
  needed = (len(train.label) + len(test.label)) * size * size * channels
  if needed <= memory:
    splits = [_read(source, size, channels) for source in (train, test)]
    fingerprint = digest_splits(*splits)
    pad = max(1, size // 8)
  else:
    splits = [_lazy(source, size, channels) for source in (train, test)]
    fingerprint = digest(identity, str(size), train.label, test.label)
    pad = 0
    notes += (
      f'{needed / 1024**3:.1f} GiB of images exceed the limit of '
      f'{memory / 1024**3:.1f} GiB: they are decoded batch by batch, and '
      'training views are random resized crops.',
    )
  if train.weight is not None:
    fingerprint = digest(fingerprint, 'weight', train.weight)
  if size > SMALL and channels == 3:
    mean, std = IMAGENET.mean, IMAGENET.std
  else:
    mean, std = _statistics(splits[0])
  view = View(mean, std, pad=pad, flip=True)
  own, other = splits
  return Dataset(
    name, own, other, class_names, view, fingerprint, notes, problem=problem
  )


def _lazy(source: Source, size: int, channels: int) -> Split:
  load = images.loader(source.fetch, size, channels)
  return Split(source.label, load=load, weight=source.weight)


def _read(source: Source, size: int, channels: int) -> Split:
  """Decodes a whole split in threads (Pillow releases Python's lock)."""
  n = len(source.label)
  image = np.empty((n, size, size, channels), np.uint8)

  def fill(index):
    image[index] = images.whole(source.fetch, index, size, channels)

  chunks = np.array_split(np.arange(n), -(-n // 256))
  with futures.ThreadPoolExecutor(thread_name_prefix='jaxkd-read') as pool:
    for done in [pool.submit(fill, chunk) for chunk in chunks]:
      done.result()
  return Split(source.label, image, weight=source.weight)


def _statistics(train: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Returns each channel's mean and deviation over up to 1000 images.

  The images are evenly spaced in the split, so that every class takes part
  also where examples are sorted by class. Rounded to four decimals, so that the
  order of summation cannot show.
  """
  index = np.linspace(0, len(train) - 1, min(len(train), 1000)).astype(int)
  if train.image is not None:
    image = train.image[index]
  else:
    assert train.load is not None, 'one of image and load'
    image = train.load(index, None)
  image = image / 255
  mean, std = image.mean((0, 1, 2)), image.std((0, 1, 2))
  # A channel without variation is left as it is.
  std = np.where(std > 1e-3, std, 1.0)
  return tuple(mean.round(4).tolist()), tuple(std.round(4).tolist())
