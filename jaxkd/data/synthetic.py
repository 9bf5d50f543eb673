"""Seeded noise with a class signal: for benchmarks and tests, no files."""

import numpy as np

from jaxkd.data.base import Dataset, Split, View, digest_splits

PATCHES = 4  # a class is a mosaic of 4 x 4 patches, which survives a crop


def synthetic(
  num_classes: int = 10,
  image_size: int = 32,
  channels: int = 3,
  train_size: int = 5000,
  test_size: int = 1000,
  seed: int = 0,
) -> Dataset:
  """Returns images that are a mosaic of their class plus as much noise.

  Args:
    num_classes: K.
    image_size: height and width.
    channels: C.
    train_size: training images; classes take turns.
    test_size: test images, from the same mosaics.
    seed: of mosaics and noise, independent of the run's seed.

  Raises:
    ValueError: a size is below 1, or a class has no training image.
  """
  if min(num_classes, image_size, channels, test_size) < 1:
    raise ValueError(
      f'num_classes={num_classes}, image_size={image_size}, '
      f'channels={channels} and test_size={test_size} must be at least 1'
    )
  if train_size < num_classes:
    raise ValueError(
      f'train_size={train_size} leaves some of the {num_classes} classes '
      f'without an image: set it to {num_classes} or more'
    )
  rng = np.random.Generator(np.random.PCG64(seed))
  # Both terms stay below 128, so that their sum fits into uint8.
  mosaic = rng.integers(
    0, 128, (num_classes, PATCHES, PATCHES, channels), np.uint8
  )
  patch = np.arange(image_size) * PATCHES // image_size
  mosaic = mosaic[:, patch[:, None], patch[None, :]]

  def split(n):
    label = np.arange(n, dtype=np.int32) % num_classes
    image = rng.integers(0, 128, (n, *mosaic.shape[1:]), np.uint8)
    image += mosaic[label]
    return Split(label, image)

  train, test = split(train_size), split(test_size)
  names = tuple(f'class{k}' for k in range(num_classes))
  # Of the sum of two uniform variables on 0..127.
  view = View(
    mean=(0.498,) * channels,
    std=(0.205,) * channels,
    pad=max(1, image_size // 8),
    flip=True,
  )
  fingerprint = digest_splits(train, test)
  return Dataset('synthetic', train, test, names, view, fingerprint)
