"""Prepared TensorFlow Datasets in array_record files, without TensorFlow.

Reading needs tensorflow-datasets alone. Preparing a data set (downloading it
and writing the files) needs TensorFlow too: `pip install jaxkd[prepare]`.
https://www.tensorflow.org/datasets/data_source
"""

import io
from typing import Any

import numpy as np

from jaxkd.data.assemble import MEMORY, SMALL, Source, assemble, check_channels
from jaxkd.data.base import Dataset
from jaxkd.data.decode import File, Rules

CHUNK = 256  # records per read while labels are collected


def tfds(
  source: str,
  dir: str | None = None,
  image_size: int | None = None,
  channels: int = 0,
  test: str = '',
  memory: int = MEMORY,
  exif: bool = False,
) -> Dataset:
  """Reads the train and the test (or else validation) split of a data set.

  Every record is read once to learn its label: minutes for ImageNet.

  Args:
    source: a TFDS name, 'cifar100' or 'name/config:version'.
    dir: TFDS's data_dir; by default its own, ~/tensorflow_datasets.
    image_size: pixels; by default the images' own size if TFDS declares one
      that is square and at most 64, else 224.
    channels: 3 for RGB, 1 for grey, 0: as TFDS declares them.
    test: the name of the split that is the test split; '': test, or else
      validation.
    memory: bytes of decoded images to keep in memory; a larger data set is
      decoded batch by batch.
    exif: whether pictures are turned as their EXIF orientation says, which
      TensorFlow does not do.

  Raises:
    FileNotFoundError: the data set is not prepared in array_record files.
    ValueError: a setting is wrong, or the data set has no image and label, or
      lacks a split.
  """
  check_channels(channels)
  splits = _open(source, dir)
  if 'train' not in splits:
    raise ValueError(
      f'tfds:{source} has no train split, only {", ".join(splits)}: choose a '
      'data set that has one'
    )
  info = splits['train'].dataset_info
  if not {'image', 'label'} <= set(info.features):
    raise ValueError(
      f'tfds:{source} has the features {", ".join(info.features)}, but not '
      'both image and label: choose an image classification data set'
    )
  natural, declared = _shape(info.features['image'].shape)
  chosen = {'channels': channels, 'test': test, 'exif': exif}
  default = {'channels': declared, 'test': '', 'exif': False}
  lines = [f'{k} {v}' for k, v in chosen.items() if v and v != default[k]]
  return assemble(
    f'tfds:{source}',
    _source(source, splits['train']),
    _test_source(source, splits, test),
    tuple(info.features['label'].names),
    size=image_size or natural,
    channels=channels or declared,
    memory=memory,
    identity='\n'.join([info.full_name, *lines]),
    rules=Rules(exif=exif),
  )


def _shape(shape: tuple[int | None, ...]) -> tuple[int, int]:
  """Returns the natural size and the channels of images as TFDS declares."""
  height, width, channels = shape
  natural = 224
  if height is not None and height == width and height <= SMALL:
    natural = height
  return natural, 1 if channels == 1 else 3


def _open(source: str, dir: str | None) -> dict[str, Any]:
  """Returns split name -> sequence of examples with undecoded images."""
  import tensorflow_datasets

  try:
    splits = tensorflow_datasets.data_source(
      source,
      data_dir=dir,
      download=False,
      decoders={'image': tensorflow_datasets.decode.SkipDecoding()},
    )
    if not splits:  # of a data set that TFDS knows, like imagenet2012
      raise ValueError('no split of it is there')
  # Unknown name, other file format, not prepared: TFDS has one class for each.
  except (ValueError, NotImplementedError, AssertionError, OSError) as error:
    where = dir or '~/tensorflow_datasets'
    reason = (str(error).splitlines() or [''])[0]
    raise FileNotFoundError(
      f'tfds:{source} is not prepared in {where} ({reason}). Once, on any '
      'machine with TensorFlow (`pip install jaxkd[prepare]`), run\n'
      '  import tensorflow_datasets as tfds\n'
      f'  tfds.builder({source!r}, data_dir={where!r}, '
      "file_format='array_record').download_and_prepare()\n"
      f'or `tfds build {source} --data_dir={where} '
      '--file_format=array_record`, and set --config.data.dir to that folder'
    ) from error
  assert isinstance(splits, dict), 'TFDS returns a dict unless given a split'
  return splits


def _test_source(source: str, splits: dict[str, Any], chosen: str) -> Source:
  """Returns the test split, or validation where test has no labels."""
  if chosen and chosen not in splits:
    raise ValueError(
      f'data.test={chosen!r} is not a split of tfds:{source}: set it to one of'
      f' {", ".join(splits)}'
    )
  for name in (chosen,) if chosen else ('test', 'validation'):
    if name in splits:
      test = _source(source, splits[name])
      # TFDS marks hidden labels, such as those of ImageNet's test set, by -1.
      if test.label.min() >= 0:
        return test
  raise ValueError(
    f'tfds:{source} has no test or validation split with labels, only '
    f'{", ".join(splits)}: choose a data set that has one'
  )


def _source(source: str, split: Any) -> Source:
  """Reads the labels of a split; leaves the images in their files."""

  def read(index):
    return split.__getitems__([int(i) for i in index])

  def fetch(index: np.ndarray) -> list[File]:
    return [
      (f'tfds:{source} example {i}', io.BytesIO(example['image']))
      for i, example in zip(index, read(index), strict=True)
    ]

  label = [
    example['label']
    for start in range(0, len(split), CHUNK)
    for example in read(range(start, min(start + CHUNK, len(split))))
  ]
  return Source(np.array(label, np.int32), fetch)
