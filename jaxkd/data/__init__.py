"""Data sets: `load` by name, batches by index, views on the device.

`load` reads a data set; `order`, `train_batches` and `eval_batches` return the
indices of each batch; `gather` picks its examples out of arrays on the device,
or `prefetch` decodes them on the host; `train_view` and `eval_view` turn their
pixels into a network's input, inside the jitted step.
"""

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

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
from jaxkd.data.augment import (
  eval_view,
  train_view,
  view_count,
  view_number,
  view_offsets,
)
from jaxkd.data.base import Dataset, Split, View
from jaxkd.data.batches import (
  eval_batches,
  example_seeds,
  gather,
  order,
  prefetch,
  train_batches,
)

__all__ = [
  'AUGMENTATIONS',
  'CATALOG',
  'Dataset',
  'Spec',
  'Split',
  'View',
  'eval_batches',
  'eval_view',
  'example_seeds',
  'gather',
  'load',
  'order',
  'prefetch',
  'spec',
  'train_batches',
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
  """

  image_shape: tuple[int, int, int]
  num_classes: int
  problem: str = 'classification'
  view: View | None = None


SPECS = {
  'digits': Spec((8, 8, 1), 10, view=digits.VIEW),
  'cifar10': Spec((32, 32, 3), 10, view=cifar.VIEW10),
  'cifar100': Spec((32, 32, 3), 100, view=cifar.VIEW100),
  # At its default size.
  'tfds:imagenet2012': Spec((224, 224, 3), 1000),
}


def spec(name: str, settings: Mapping[str, Any]) -> Spec | None:
  """Returns the sizes of a data set without reading it, None if it has to be.

  Args:
    name: as `load` takes it.
    settings: further arguments of the loader.
  """
  if name == 'gaussian_mixture':
    signature = inspect.signature(gaussian_mixture.gaussian_mixture)
    sizes = {k: p.default for k, p in signature.parameters.items()}
    sizes |= settings
    return Spec((1, 1, sizes['dimensions']), sizes['num_classes'])
  return SPECS.get(name)


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
    hold_out: a part of the training split that replaces the test split, or is
      one where there is none: below 1 a fraction of each class, else a number
      of examples of each class, see `select.held_out`; 0 holds out nothing
      where there is a test split.
    hold_out_seed: of the choice of that part.
    **settings: further arguments of the loader.

  Raises:
    KeyError: no such data set or augmentation.
    ValueError: a setting that the loader does not take or the data do not
      allow; a corrupt file; a path with an unknown home or variable.
    FileNotFoundError: the data set is not there.
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
  dir = str(disk.expanded(dir)) if dir else dir
  _check_held_out(hold_out, validation)
  # In a config, an empty value leaves a setting at the loader's default.
  common = {'source': place, 'dir': dir, 'image_size': image_size}
  takes = inspect.signature(loader).parameters
  if 'hold_out' in takes:  # it knows whether there is a test split
    common |= {'hold_out': hold_out, 'hold_out_seed': hold_out_seed}
  common = {key: value for key, value in common.items() if value}
  dataset = catalog.call(f'data set {kind!r}', loader, {**common, **settings})
  if place != source:
    dataset = dataclasses.replace(dataset, name=name)
  rest = 0.0 if 'hold_out' in takes else hold_out
  dataset = _selected(dataset, rest, hold_out_seed, validation, few_shot)
  return _augmented(dataset, augment)


def _check_held_out(hold_out: float, validation: int) -> None:
  """Refuses two parts of the training split in the test split's place."""
  if hold_out and validation:
    raise ValueError(
      f'data.hold_out={hold_out:g} and data.validation={validation} both'
      ' replace the test split: set one of them to 0'
    )


def _selected(
  dataset: Dataset,
  hold_out: float,
  hold_out_seed: int,
  validation: int,
  few_shot: int,
) -> Dataset:
  """Returns parts of a data set; the arguments are those of `load`."""
  if hold_out:
    dataset = select.hold_out(dataset, hold_out, hold_out_seed)
  if validation:
    dataset = select.validation(dataset, validation)
  if few_shot:
    dataset = select.few_shot(dataset, few_shot)
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
