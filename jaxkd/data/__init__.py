"""Data sets: `load` by name, batches by index, views on the device.

`load` reads a data set; `order`, `train_batches` and `eval_batches` return the
indices of each batch; `gather` picks its examples out of a split on the device,
which `stored_split` lays out, or `prefetch` decodes them on the host;
`train_view` and `eval_view` turn their pixels into a network's input, inside
the jitted step.
"""

import dataclasses
import inspect
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxkd import catalog, disk
from jaxkd.data import (
  cifar,
  digits,
  folder,
  gaussian_mixture,
  huggingface,
  select,
  synthetic,
  table,
  tfds_source,
)
from jaxkd.data.arrays import arrays
from jaxkd.data.augment import (
  eval_view,
  train_view,
  view_count,
  view_number,
  view_offsets,
)
from jaxkd.data.base import Dataset, Split, View
from jaxkd.data.batches import (
  StoredSplit,
  eval_batches,
  example_seeds,
  gather,
  order,
  prefetch,
  stored_split,
  train_batches,
)

__all__ = [
  'AUGMENTATIONS',
  'CATALOG',
  'Dataset',
  'Spec',
  'Split',
  'StoredSplit',
  'View',
  'arrays',
  'eval_batches',
  'eval_view',
  'example_seeds',
  'gather',
  'load',
  'order',
  'prefetch',
  'spec',
  'stored_split',
  'train_batches',
  'train_size',
  'train_view',
  'view_count',
  'view_number',
  'view_offsets',
]

CATALOG = {
  'digits': digits.digits,
  'cifar10': cifar.cifar10,
  'cifar100': cifar.cifar100,
  'synthetic': synthetic.synthetic,
  'gaussian_mixture': gaussian_mixture.gaussian_mixture,
  'tfds': tfds_source.tfds,
  'folder': folder.folder,
  'table': table.table,
  'huggingface': huggingface.huggingface,
}


class Spec(NamedTuple):
  """Sizes of a data set, and the problem that it poses.

  image_shape: (H, W, C).
  num_classes: K.
  problem: see `Dataset`.
  view: of its images; None if it depends on the files.
  train: training images, before some are chosen or held out; 0: unknown.
  """

  image_shape: tuple[int, int, int]
  num_classes: int
  problem: str = 'classification'
  view: View | None = None
  train: int = 0


SPECS = {
  'digits': Spec((8, 8, 1), 10, view=digits.VIEW),
  'cifar10': Spec((32, 32, 3), 10, view=cifar.VIEW10, train=50_000),
  'cifar100': Spec((32, 32, 3), 100, view=cifar.VIEW100, train=50_000),
  # At its default size.
  'tfds:imagenet2012': Spec((224, 224, 3), 1000, train=1_281_167),
}


def spec(
  name: str, settings: Mapping[str, Any], channels: int = 0
) -> Spec | None:
  """Returns the sizes of a data set without reading it, None if it has to be.

  Args:
    name: as `load` takes it.
    settings: further arguments of the loader.
    channels: of the images, if they are set, else 0.

  Raises:
    ValueError: the data set has another number of channels, always.
  """
  if name == 'gaussian_mixture':
    signature = inspect.signature(gaussian_mixture.gaussian_mixture)
    sizes = {k: p.default for k, p in signature.parameters.items()}
    sizes |= settings
    shape, train = (1, 1, sizes['dimensions']), sizes['train_size']
    spec = Spec(shape, sizes['num_classes'], train=train)
  else:
    spec = SPECS.get(name)
  if spec is None or not channels:
    return spec
  height, width, fixed = spec.image_shape
  if channels != fixed and not _takes(name, 'channels'):
    raise ValueError(
      f'data.channels={channels} does not fit {name}, whose images have always'
      f' {fixed}: set it to 0'
    )
  return spec._replace(image_shape=(height, width, channels))


def train_size(
  spec: Spec, few_shot: int, validation: int, hold_out: float
) -> int:
  """Returns how many training images are left, without reading them.

  It is exact where all classes have equally many.

  Args:
    spec: of the data set, with the number of its training images.
    few_shot: see `load`, as the other arguments.
    validation: examples of each class.
    hold_out: a part.
  """
  each = spec.train / spec.num_classes
  part = math.floor(each * hold_out + 0.5) if hold_out < 1 else hold_out
  part = min(max(part, 1), each - 1) if hold_out else 0
  left = few_shot or each - validation - part
  return round(left * spec.num_classes)


def _takes(name: str, setting: str) -> bool:
  """Returns whether the loader of a data set has a setting."""
  loader = CATALOG.get(name.partition(':')[0])
  return loader is not None and setting in inspect.signature(loader).parameters


# What follows the colon in the names of loaders that read a named source.
SOURCES = {
  'tfds': 'NAME',
  'folder': 'PATH',
  'table': 'FILE',
  'huggingface': 'FOLDER',
}

# Whether each augmentation crops, and whether it flips.
AUGMENTATIONS = {
  'none': (False, False),
  'flip': (False, True),
  'crop': (True, False),
  'crop_flip': (True, True),
}


def load(
  name: str,
  dir: str | None = None,
  few_shot: int = 0,
  image_size: int | None = None,
  augment: str = 'default',
  validation: int = 0,
  channels: int = 0,
  test: str = '',
  hold_out: float = 0.0,
  hold_out_seed: int = 0,
  **settings: Any,
) -> Dataset:
  """Reads a data set.

  Args:
    name: an entry of `CATALOG`; in 'tfds:cifar100', 'folder:PATH',
      'table:FILE.csv' and 'huggingface:FOLDER' the source follows the colon.
    dir: where the files are; see each loader.
    few_shot: training examples per class, a fixed subset; 0 keeps all.
    image_size: height and width in pixels, for loaders that can choose.
    augment: 'default' (the data set's own) or a key of `AUGMENTATIONS`.
    validation: training examples per class that replace the test split, for
      choosing hyper-parameters; held out before the few-shot subset is taken.
    channels: of the images, for loaders that can choose: 3 for RGB, 1 for grey.
    test: the name of the test split, for loaders that can choose.
    hold_out: a part of the training split that serves as the test split: below
      1 a fraction of each class, else a number of examples of each class, see
      `select.held_out`; 0 holds out nothing if the data have a test split.
    hold_out_seed: of the choice of that part.
    **settings: further arguments of the loader.

  Raises:
    KeyError: no such data set or augmentation.
    ValueError: a setting that the loader does not take or the data do not
      allow; a corrupt file; a path with an unknown home or variable.
    FileNotFoundError: the data set is not there.
  """
  common = {
    'dir': dir,
    'image_size': image_size,
    'channels': channels,
    'test': test,
    'hold_out': hold_out,
    'hold_out_seed': hold_out_seed,
  }
  if hold_out and validation:
    raise ValueError(
      f'data.hold_out={hold_out:g} and data.validation={validation} both'
      ' replace the test split: set one of them to 0'
    )
  dataset = _read(name, common, settings)
  if validation:
    dataset = select.validation(dataset, validation)
  if few_shot:
    dataset = select.few_shot(dataset, few_shot)
  _check_weights(dataset)
  return _augmented(dataset, augment)


def _check_weights(dataset: Dataset) -> None:
  """Refuses training examples that all have the weight 0."""
  weight = dataset.train.weight
  if weight is not None and not np.any(weight):
    raise ValueError(
      f'the weights of all {len(weight)} training examples that are left are 0:'
      ' give some of them a positive one, choose another subset, or set'
      " data.settings.weight='' to ignore the column"
    )


def _read(
  name: str, common: dict[str, Any], settings: dict[str, Any]
) -> Dataset:
  """Reads a data set, of which a part is held out if it has to be.

  Args:
    name: as for `load`.
    common: those arguments of `load` that many loaders take.
    settings: further arguments of the loader.
  """
  kind, _, source = name.partition(':')
  loader = catalog.lookup('data set', CATALOG, kind)
  if bool(source) != (kind in SOURCES):
    right = f'{kind}:{SOURCES[kind]}' if kind in SOURCES else kind
    raise ValueError(f'data set {name!r} should be written {right}')
  # The name of the data set stays as its user wrote it.
  place = source
  if source and SOURCES[kind] != 'NAME':
    place = str(disk.expanded(source))
  if common['dir']:
    common['dir'] = str(disk.expanded(common['dir']))
  if spec(name, settings, common['channels']) and not _takes(name, 'channels'):
    del common['channels']  # which are those of the data set
  hold_out, seed = common['hold_out'], common['hold_out_seed']
  divides = _takes(name, 'hold_out')  # it knows whether there is a test split
  if not divides:
    del common['hold_out'], common['hold_out_seed']
  # In a config, an empty value leaves a setting at the loader's default.
  common = {key: value for key, value in common.items() if value}
  if place:
    common['source'] = place
  dataset = catalog.call(f'data set {kind!r}', loader, {**common, **settings})
  if place != source:
    dataset = dataclasses.replace(dataset, name=name)
  if hold_out and not divides:
    dataset = select.hold_out(dataset, hold_out, seed)
  return dataset


def _augmented(dataset: Dataset, augment: str) -> Dataset:
  """Returns the data set with another choice of training views."""
  if augment == 'default':
    return dataset
  crops, flips = catalog.lookup('augmentation', AUGMENTATIONS, augment)
  view, train, load = dataset.view, dataset.train, dataset.train.load
  if load is not None and not crops:
    # A lazy split crops while it decodes, which the test view avoids.
    train = dataclasses.replace(train, load=lambda index, _: load(index, None))
  view = dataclasses.replace(view, pad=view.pad if crops else 0, flip=flips)
  return dataclasses.replace(dataset, view=view, train=train)
