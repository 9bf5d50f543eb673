"""Tables of images: paths and labels, and maybe splits and weights."""

import collections
import io
import json
import math
import os
import pathlib
import stat
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxkd import disk
from jaxkd.catalog import UnknownNameError, lookup, suggestion
from jaxkd.data import records
from jaxkd.data.assemble import MEMORY
from jaxkd.data.base import Dataset
from jaxkd.data.decode import File, Rules
from jaxkd.data.examples import PROBLEMS, ByIndex, Examples, Options, dataset_of
from jaxkd.data.records import Record, text

SEVERAL = 'multi_label'
MARKS = {
  '1': True,
  '1.0': True,
  'true': True,
  '0': False,
  '0.0': False,
  'false': False,
}


def table(
  source: str,
  dir: str | None = None,
  path: str = 'path',
  label: str | Sequence[str] = 'label',
  split: str | None = None,
  weight: str | None = None,
  problem: str = 'classification',
  separator: str = '|',
  delimiter: str = '',
  classes: Sequence[str] = (),
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
  """Reads a table with a row for each image; without a split, see `Options`.

  Args:
    source: a file .csv or .tsv (whose first line names the columns), .jsonl (an
      object in each line), or .parquet.
    dir: the folder that paths are relative to; by default the table's.
    path: the column of image files; see `_files`.
    label: the column of labels, or a list of columns; see `_labels`.
    split: the column of splits, see `examples.TRAIN_NAMES` and `TEST_NAMES`;
      None is 'split' if there is such a column; '' ignores it.
    weight: likewise, of weights of training examples, at least 0.
    problem: see `examples.Options`, as the arguments from `test` on.
    separator: of several labels in one cell.
    delimiter: of CSV and TSV; '' is a comma or a tab.
    classes: all labels in the order of their numbers; () takes those of the
      training split, sorted.

  Raises:
    FileNotFoundError: no such table.
    ImportError: Parquet, and no pyarrow.
    KeyError: no such problem or column.
    ValueError: rows of a split that is used, by their lines: a missing file, an
      unknown split, an empty label, a weight that is negative or not finite.
  """
  lookup('problem', PROBLEMS, problem)
  file = disk.expanded(source)
  rows = records.read(file, delimiter)
  columns = _columns(file, rows, path, label, split, weight)
  root = disk.expanded(dir) if dir else file.parent
  names = _given('classes', classes or ())
  names = names or (() if isinstance(label, str) else _given('label', label))
  options = problem, test, image_size, channels, memory
  rules = Rules(exif, white, background, max_pixels)
  return dataset_of(
    _examples(source, rows, columns, root, problem, separator, names),
    Options(*options, hold_out, hold_out_seed, rules, skip_unreadable),
  )


def _given(setting: str, names: Sequence[str]) -> tuple[str, ...]:
  """Returns a setting's list of names as text.

  Raises:
    ValueError: it is no list, or a name is in it twice.
  """
  if not isinstance(names, list | tuple):
    raise ValueError(
      f'data.settings.{setting} must be a list of names like'
      f" ('cat', 'dog'), got {names!r}"
    )
  found = tuple(map(text, names))
  double = [name for name, n in collections.Counter(found).items() if n > 1]
  if double:
    raise ValueError(
      f'data.settings.{setting} has {double[0]!r} more than once: name each one'
      ' once'
    )
  return found


class Columns(NamedTuple):
  """The columns of a table; '' for one that is absent or not used.

  label: a name, or those of several columns.
  """

  path: str
  label: str | Sequence[str]
  split: str
  weight: str


def _columns(
  file: pathlib.Path,
  rows: Sequence[Record],
  path: str,
  label: str | Sequence[str],
  split: str | None,
  weight: str | None,
) -> Columns:
  """Returns the columns that are used; raises KeyError if one is missing."""
  if not label:
    raise ValueError('data.settings.label must name at least one column')
  known = list(dict.fromkeys(name for row in rows for name in row.values))
  for setting, name in [
    ('path', path),
    *(('label', x) for x in ([label] if isinstance(label, str) else label)),
    ('split', split),
    ('weight', weight),
  ]:
    if name and name not in known:
      text = _missing(file, setting, str(name), known, rows)
      raise UnknownNameError(text)
  split, weight = (
    (usual if usual in known else '') if name is None else name
    for usual, name in (('split', split), ('weight', weight))
  )
  return Columns(path, label, split, weight)


def _examples(
  source: str,
  rows: Sequence[Record],
  columns: Columns,
  root: pathlib.Path,
  problem: str,
  separator: str,
  class_names: tuple[str, ...],
) -> Examples:
  """Returns the rows as examples."""
  split = columns.split
  images, bad_files = _files(rows, columns.path, root)
  several = problem == SEVERAL
  labels, bad_labels = _labels(rows, columns.label, several, separator)
  weights, bad_weights = None, {}
  if columns.weight:
    weights, bad_weights = _weights(rows, columns.weight)
  return Examples(
    name=f'table:{source}',
    places=[row.where for row in rows],
    labels=labels,
    fetch=lambda index: [_opened(images[i]) for i in index],
    identity=[f'{image.name} {image.size}' for image in images],
    splits=[text(row.values.get(split)) for row in rows] if split else None,
    weights=weights,
    class_names=class_names,
    mistakes=(bad_files, bad_labels),
    training_mistakes=bad_weights,
  )


def _missing(
  file: pathlib.Path,
  setting: str,
  name: str,
  columns: Sequence[str],
  rows: Sequence[Record],
) -> str:
  """Returns the message for a column that is not there."""
  for delimiter in ';\t,|':
    if len(columns) == 1 and delimiter in columns[0]:
      return (
        f'{file}: line 1: the only column is {columns[0]!r}, so its columns are'
        f' separated by {delimiter!r}: set'
        f' --config.data.settings.delimiter={delimiter!r}'
      )
  first = 'line 1 names the columns' if file.suffix in ('.csv', '.tsv') else ''
  return (
    f'{file} has no column {name!r} ({first or rows[0].where}).'
    f' {suggestion(name, columns)}. Set --config.data.settings.{setting} to'
    ' the one that is meant'
  )


class Image(NamedTuple):
  """An encoded image: a name for messages, what it is, and its bytes."""

  name: str
  content: pathlib.Path | bytes
  size: int


def _files(
  rows: Sequence[Record], column: str, root: pathlib.Path
) -> tuple[list[Image], ByIndex]:
  """Returns the image of each row, a file, and what is wrong with some.

  In Parquet, a cell may also hold an encoded image, as bytes or as
  {'bytes': ...}.
  """
  images, mistakes = [], {}
  for i, row in enumerate(rows):
    value = row.values.get(column)
    if isinstance(value, Mapping) and value.get('bytes') is not None:
      value = value['bytes']
    elif isinstance(value, Mapping):
      value = value.get('path')
    if isinstance(value, bytes):
      images.append(Image(f'the image of {row.where}', value, len(value)))
      continue
    name = text(value)
    # A name that begins with ~ and is no user's home is that of a file.
    place, size = root / os.path.expanduser(name), 0
    try:
      status = os.stat(place)
    except (OSError, ValueError) as error:  # ValueError: a zero byte
      missing = isinstance(error, FileNotFoundError | NotADirectoryError)
      what = 'is not there' if missing else f'cannot be read ({error})'
    else:
      what = '' if stat.S_ISREG(status.st_mode) else 'is not a file'
      if stat.S_ISDIR(status.st_mode):
        what = 'is a folder'
      size = status.st_size
    if not name:
      mistakes[i] = f'the column {column!r} is empty'
    elif what:
      mistakes[i] = (
        f'{place} {what} (paths are relative to data.dir, or else to the table)'
      )
    images.append(Image(str(place), place, size))
  return images, mistakes


def _opened(image: Image) -> File:
  if isinstance(image.content, bytes):
    return image.name, io.BytesIO(image.content)
  return image.name, image.content


def _labels(
  rows: Sequence[Record],
  column: str | Sequence[str],
  several: bool,
  separator: str,
) -> tuple[list[list[str]], ByIndex]:
  """Returns the labels of each row, and what is wrong with some.

  With several labels for an image, a cell has any number of them, separated or
  as a list; or each column is a class, with 1 where an image has it and 0
  elsewhere.
  """
  if not isinstance(column, str):
    if not several:
      raise ValueError(
        f'label={list(column)} are several columns: set'
        f' --config.data.settings.problem={SEVERAL}'
      )
    return _marked(rows, column)
  labels, mistakes = [], {}
  for i, row in enumerate(rows):
    value = row.values.get(column)
    values = _list_of(value, separator) if several else [value]
    if isinstance(value, list) and not several:
      mistakes[i] = (
        f'the label {value} is a list: an image has several labels with'
        f' --config.data.settings.problem={SEVERAL}'
      )
    elif any(isinstance(x, list | Mapping | bytes) for x in values):
      mistakes[i] = f'the label {value} is neither text nor a number'
    names = list(filter(None, map(text, values)))
    if not (names or several):
      mistakes[i] = f'the column {column!r} is empty'
    labels.append(names)
  return labels, mistakes


def _list_of(value: Any, separator: str) -> list[Any]:
  """Returns the labels of a cell: a list, one written in JSON, or text."""
  if isinstance(value, list):
    return value
  if isinstance(value, Mapping):
    return [value]
  cell = text(value)
  if cell.startswith('['):
    try:
      return json.loads(cell)
    except ValueError:
      pass  # a label that begins with a bracket
  return [x.strip() for x in cell.split(separator or None)]


def _marked(
  rows: Sequence[Record], columns: Sequence[str]
) -> tuple[list[list[str]], ByIndex]:
  """Returns the columns of classes in which each row has 1, and mistakes."""
  labels, mistakes = [], {}
  for i, row in enumerate(rows):
    cells = {name: text(row.values.get(name)) for name in columns}
    marks = {name: MARKS.get(cell.lower()) for name, cell in cells.items()}
    for name, mark in marks.items():
      if mark is None:
        mistakes.setdefault(
          i, f'the column {name!r} must be 0 or 1, got {cells[name]!r}'
        )
    labels.append([name for name, mark in marks.items() if mark])
  return labels, mistakes


def _weights(rows: Sequence[Record], column: str) -> tuple[np.ndarray, ByIndex]:
  """Returns the weight of each row, float64 [N], and mistakes."""
  weights, mistakes = [], {}
  for i, row in enumerate(rows):
    cell = text(row.values.get(column))
    try:
      value = float(cell)
    except ValueError:
      value = math.nan
    if not (math.isfinite(value) and value >= 0):
      mistakes[i] = (
        f'the weight must be a number of at least 0, got {cell!r} in the column'
        f' {column!r}'
      )
    weights.append(value)
  return np.array(weights), mistakes
