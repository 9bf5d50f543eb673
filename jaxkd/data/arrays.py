"""A data set of arrays in memory."""

from collections.abc import Sequence

import numpy as np

from jaxkd.data.assemble import statistics
from jaxkd.data.base import Dataset, Split, View, digest_splits
from jaxkd.data.select import choose, rest

Pair = tuple[np.ndarray, np.ndarray]  # images and labels


def arrays(
  train: Pair,
  test: Pair | None = None,
  class_names: Sequence[str] = (),
  name: str = 'arrays',
) -> Dataset:
  """Returns a data set of images and labels that are in memory.

  Training views are random crops of the padded image, half of them mirrored.
  Images are normalised by the mean and deviation of each channel.

  Args:
    train: images, uint8 [N, H, W, C] or [N, H, W], and integer labels [N], in
      0..K-1.
    test: likewise; None holds out a fixed fifth of each class.
    class_names: K names; by default '0', '1', ...
    name: of the data set, in tables and on cards.

  Raises:
    ValueError: other types or shapes, labels outside of 0..K-1, or a class that
      is too small to hold a fifth out.
  """
  image, label = _checked('train', train)
  num_classes = len(class_names) or int(label.max()) + 1
  names = tuple(map(str, class_names or range(num_classes)))
  notes = ()
  if test is None:
    splits = _held_out(image, label, names)
    notes = (
      f'{len(splits[1])} of the {len(label)} training images, a fixed fifth of'
      ' each class, are the test split.',
    )
  else:
    test_image, test_label = _checked('test', test)
    splits = Split(label, image), Split(test_label, test_image)
  for which, split in zip(('train', 'test'), splits, strict=True):
    if split.label.max() >= num_classes:
      raise ValueError(
        f'the labels of {which} must be below the number of classes,'
        f' {num_classes}, got {split.label.max()}'
      )
    if split.shape != splits[0].shape:
      raise ValueError(
        f'the test images must have the shape of the training images,'
        f' {list(splits[0].shape)}, got {list(split.shape)}'
      )
  mean, std = statistics(splits[0])
  pad = max(1, image.shape[1] // 8)
  return Dataset(
    name,
    *splits,
    names,
    View(mean, std, pad=pad, flip=True),
    digest_splits(*splits),
    notes,
  )


def _held_out(
  image: np.ndarray, label: np.ndarray, names: Sequence[str]
) -> tuple[Split, Split]:
  """Returns four fifths of each class, and the rest.

  Raises:
    ValueError: a class has fewer than two images.
  """
  counts = np.bincount(label, minlength=len(names))
  if min(counts) < 2:
    raise ValueError(
      f'class {names[int(np.argmin(counts))]!r} has {min(counts)} training'
      ' images, which leaves none to hold out: pass test images, too'
    )
  held = choose(label, np.maximum(1, counts // 5), 'arrays')
  kept = rest(len(label), held)
  return Split(label[kept], image[kept]), Split(label[held], image[held])


def _checked(which: str, pair: Pair) -> tuple[np.ndarray, np.ndarray]:
  """Returns images [N, H, W, C] and int32 labels [N] of a split.

  Raises:
    ValueError: other types or shapes.
  """
  if not isinstance(pair, tuple | list) or len(pair) != 2:
    raise ValueError(f'{which} must be a pair (images, labels), got {pair!r}')
  image, label = (np.asarray(x) for x in pair)
  if image.ndim == 3:
    image = image[..., None]
  if image.dtype != np.uint8 or image.ndim != 4:
    raise ValueError(
      f'the images of {which} must be uint8 [N, H, W, C] or [N, H, W], got'
      f' {image.dtype} {list(image.shape)}. Scale real numbers to 0..255'
    )
  integer = np.issubdtype(label.dtype, np.integer)
  if not integer or label.shape != image.shape[:1] or not label.size:
    raise ValueError(
      f'the labels of {which} must be integers [{len(image)}], one for each'
      f' image, got {label.dtype} {list(label.shape)}'
    )
  if label.min() < 0:
    raise ValueError(f'the labels of {which} must be at least 0')
  return image, label.astype(np.int32)
