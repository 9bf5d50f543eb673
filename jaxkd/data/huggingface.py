"""Folders of Hugging Face's `datasets`, written by `save_to_disk`.

https://huggingface.co/docs/datasets/process#save
"""

import io
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from jaxkd import disk
from jaxkd.data.assemble import MEMORY
from jaxkd.data.base import Dataset
from jaxkd.data.decode import File, Rules
from jaxkd.data.examples import PROBLEMS, Examples, Options, dataset_of
from jaxkd.data.records import text

ALL = 'train'  # the split of a folder that is not divided
CHUNK = 1000  # rows in memory at once


def huggingface(
  source: str,
  image: str = '',
  label: str = '',
  problem: str = 'classification',
  test: str = '',
  image_size: int | None = None,
  channels: int = 0,
  memory: int = MEMORY,
  hold_out: float = 0.0,
  hold_out_seed: int = 0,
  exif: bool = True,
  white: float = 0.0,
  background: str = '',
  max_pixels: int = 0,
  skip_unreadable: bool = False,
) -> Dataset:
  """Reads a saved `Dataset`, or a `DatasetDict` with a part for each split.

  Args:
    source: the folder.
    image: the column of images; '' takes the only one of the type Image.
    label: the column of labels, of the type ClassLabel, strings or whole
      numbers, or lists of one of them with problem='multi_label'; '' takes
      'label', or else the only ClassLabel.
    problem: see `examples.Options`, as the arguments below.

  Raises:
    FileNotFoundError: no such folder, or another one.
    ImportError: the library `datasets` is absent.
    ValueError: no such column, or not the only one of its type; a label that is
      missing.
  """
  parts = _load(disk.expanded(source))
  options = problem, test, image_size, channels, memory
  rules = Rules(exif, white, background, max_pixels)
  return dataset_of(
    _examples(f'huggingface:{source}', parts, image, label, problem),
    Options(*options, hold_out, hold_out_seed, rules, skip_unreadable),
  )


def _examples(
  name: str, parts: dict[str, Any], image: str, label: str, problem: str
) -> Examples:
  """Returns the rows of all splits as examples."""
  features = next(iter(parts.values())).features
  image = image or _only(name, features, 'Image', 'image')
  label = label or _only(name, features, 'ClassLabel', 'label')
  for setting, column in (('image', image), ('label', label)):
    if column not in features:
      raise ValueError(_no_column(name, column, setting, features))
  _check_types(name, image, label, features)
  places, labels, splits, identity, mistakes = [], [], [], [], {}
  for split, part in parts.items():
    where = [f'{split}, row {i + 1}' for i in range(len(part))]
    more, wrong = _labels(part, label, problem)
    mistakes |= {len(labels) + i: what for i, what in wrong.items()}
    labels += more
    identity += [f'{part._fingerprint} {i}' for i in range(len(part))]
    places += where
    splits += [split] * len(part)
  encoded = [_undecoded(part, image) for part in parts.values()]
  starts = np.cumsum([0, *map(len, encoded)])

  def fetch(index: np.ndarray) -> list[File]:
    return [_file(encoded, starts, i, image, places[i]) for i in index]

  return Examples(
    name=name,
    places=places,
    labels=labels,
    fetch=fetch,
    identity=identity,
    splits=splits if tuple(parts) != (ALL,) else None,
    class_names=_names(features[label]),
    mistakes=(mistakes,),
  )


def _load(folder: pathlib.Path) -> dict[str, Any]:
  """Returns split -> `datasets.Dataset`."""
  try:
    import datasets
  except ImportError as error:
    raise ImportError(
      f'huggingface:{folder} needs the library datasets:'
      " pip install 'jaxkd[datasets]'"
    ) from error
  if not folder.is_dir():
    raise FileNotFoundError(f'there is no folder {folder}')
  try:
    loaded = datasets.load_from_disk(str(folder))
  except FileNotFoundError as error:
    raise FileNotFoundError(
      f'{folder} is not a folder that save_to_disk of the library datasets has'
      ' written: in Python, datasets.load_dataset(NAME).save_to_disk(FOLDER)'
    ) from error
  if isinstance(loaded, datasets.DatasetDict):
    return dict(loaded)
  return {ALL: loaded}


def _only(name: str, features: Any, kind: str, usual: str) -> str:
  """Returns the usual column, or else the only one of a type."""
  found = [key for key, x in features.items() if type(x).__name__ == kind]
  if usual in features:
    return usual
  if len(found) == 1:
    return found[0]
  raise ValueError(_no_column(name, usual, usual, features))


def _no_column(name: str, column: str, setting: str, features: Any) -> str:
  columns = ', '.join(f'{k} ({type(x).__name__})' for k, x in features.items())
  return (
    f'{name} has no column {column!r}, but {columns}: set'
    f' --config.data.settings.{setting} to the one that is meant'
  )


def _check_types(name: str, image: str, label: str, features: Any) -> None:
  """Raises ValueError for columns that cannot be images or labels."""
  if type(features[image]).__name__ != 'Image' and (
    getattr(features[image], 'dtype', '') != 'string'  # paths
  ):
    raise ValueError(
      f'{name}: the column {image!r} has no images, but {features[image]}: set'
      ' --config.data.settings.image to another one'
    )
  inner = getattr(features[label], 'feature', features[label])
  if type(inner).__name__ not in ('ClassLabel', 'Value'):
    raise ValueError(
      f'{name}: the column {label!r} has no labels, but {features[label]}: set'
      ' --config.data.settings.label to another one'
    )


def _names(feature: Any) -> tuple[str, ...]:
  """Returns the classes of a ClassLabel or of a list of them, or ()."""
  inner = getattr(feature, 'feature', feature)
  return tuple(getattr(inner, 'names', None) or ())


def _labels(
  part: Any, column: str, problem: str
) -> tuple[list[list[str]], dict[int, str]]:
  """Returns the labels of each row of a split, and what is wrong with some."""
  names = _names(part.features[column])
  several = PROBLEMS.get(problem, False)
  labels, mistakes = [], {}
  for i, value in enumerate(_column(part, column)):
    if isinstance(value, list) and not several:
      mistakes[i] = (
        f'the label {value} is a list: an image has several labels with'
        ' --config.data.settings.problem=multi_label'
      )
    values = value if isinstance(value, list) else [value]
    own = []
    for x in values:
      if x is None or x == '' or (names and x == -1):  # -1 marks hidden labels
        mistakes[i] = f'no label in the column {column!r}'
      else:
        own.append(names[x] if names else text(x))
    labels.append(own)
  return labels, mistakes


def _column(part: Any, column: str) -> Iterable[Any]:
  """Yields a column's values without reading the images."""
  narrow = part.select_columns([column])
  for start in range(0, len(narrow), CHUNK):
    yield from narrow[start : start + CHUNK][column]


def _undecoded(part: Any, column: str) -> Any:
  """Returns a split whose images are {'bytes': ..., 'path': ...}."""
  import datasets

  narrow = part.select_columns([column])
  return narrow.cast_column(column, datasets.Image(decode=False))


def _file(
  parts: list[Any], starts: np.ndarray, i: int, column: str, place: str
) -> File:
  """Returns image i of all splits: its bytes, or the file that it names."""
  k = int(np.searchsorted(starts, i, 'right')) - 1
  value = parts[k][int(i - starts[k])][column] or {}  # None: no image
  if value.get('bytes') is None and value.get('path'):
    return value['path'], pathlib.Path(value['path'])
  return place, io.BytesIO(value.get('bytes') or b'')
