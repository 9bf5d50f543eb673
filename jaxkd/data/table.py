"""Tables of images: paths and labels, and maybe splits and weights."""

import io
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxkd.catalog import UnknownNameError, lookup, suggestion
from jaxkd.data import images, records
from jaxkd.data.assemble import MEMORY
from jaxkd.data.base import Dataset
from jaxkd.data.examples import PROBLEMS, Examples, Options, dataset_of
from jaxkd.data.records import Mistakes, Record

SEVERAL = 'multi_label'


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
    ValueError: rows that cannot be used, by their lines: a missing file, an
      unknown split, an empty label, a weight that is negative or not finite.
  """
  lookup('problem', PROBLEMS, problem)
  file = pathlib.Path(source).expanduser()
  rows = records.read(file, delimiter)
  columns = _columns(file, rows, path, label, split, weight)
  root, several = pathlib.Path(dir or file.parent), problem == SEVERAL
  names = tuple(map(str, classes or (() if isinstance(label, str) else label)))
  return dataset_of(
    _examples(source, rows, columns, root, several, separator, names),
    Options(
      problem, test, image_size, channels, memory, hold_out, hold_out_seed
    ),
  )


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
  several: bool,
  separator: str,
  class_names: tuple[str, ...],
) -> Examples:
  """Returns the rows as examples, if none of them has a mistake."""
  mistakes, split = Mistakes(source), columns.split
  found = _files(rows, columns.path, root, mistakes)
  labels = _labels(rows, columns.label, several, separator, mistakes)
  weights = _weights(rows, columns.weight, mistakes) if columns.weight else None
  mistakes.check()
  return Examples(
    name=f'table:{source}',
    places=[row.where for row in rows],
    labels=labels,
    fetch=lambda index: [_opened(found[i]) for i in index],
    identity=[_identity(*image) for image in found],
    splits=[_text(row.values.get(split)) for row in rows] if split else None,
    weights=weights,
    class_names=class_names,
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


def _text(value: Any) -> str:
  """Returns a cell as text without spaces around it, '' for an empty one."""
  if value is None or (isinstance(value, float) and math.isnan(value)):
    return ''
  if isinstance(value, float) and value.is_integer():
    value = int(value)
  return str(value).strip()


Image = tuple[str, pathlib.Path | bytes]  # a name, and where it is


def _files(
  rows: Sequence[Record], column: str, root: pathlib.Path, mistakes: Mistakes
) -> list[Image]:
  """Returns the image of each row: a file, which must be there.

  In Parquet, a cell may also hold an encoded image, as bytes or as
  {'bytes': ...}.
  """
  root, found = root.expanduser(), []
  for row in rows:
    value = row.values.get(column)
    if isinstance(value, Mapping) and value.get('bytes') is not None:
      value = value['bytes']
    elif isinstance(value, Mapping):
      value = value.get('path')
    if isinstance(value, bytes):
      found.append((f'the image of {row.where}', value))
      continue
    name = _text(value)
    place = root / pathlib.Path(name).expanduser()
    if not name:
      mistakes.add(row.where, f'the column {column!r} is empty')
    elif not os.path.isfile(place):
      what = 'is a folder' if place.is_dir() else 'is not there'
      mistakes.add(
        row.where,
        f'{place} {what} (paths are relative to data.dir, or else to the'
        ' table)',
      )
    found.append((str(place), place))
  return found


def _opened(image: Image) -> images.File:
  name, content = image
  if isinstance(content, bytes):
    return name, io.BytesIO(content)
  return name, content


def _identity(name: str, content: pathlib.Path | bytes) -> str:
  """Returns the name and the size of an image."""
  if isinstance(content, bytes):
    return f'{name} {len(content)}'
  return f'{name} {content.stat().st_size}'


def _labels(
  rows: Sequence[Record],
  column: str | Sequence[str],
  several: bool,
  separator: str,
  mistakes: Mistakes,
) -> list[list[str]]:
  """Returns the labels of each row.

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
    return [_marked(row, column, mistakes) for row in rows]
  labels = []
  for row in rows:
    value = row.values.get(column)
    if several:
      names = _list_of(value, separator)
    else:
      names = [_text(value)]
      if isinstance(value, list):
        mistakes.add(
          row.where,
          f'the label {value} is a list: an image has several labels with'
          f' --config.data.settings.problem={SEVERAL}',
        )
      elif not names[0]:
        mistakes.add(row.where, f'the column {column!r} is empty')
    labels.append(names)
  return labels


def _list_of(value: Any, separator: str) -> list[str]:
  """Returns the labels of a cell: a list, one written in JSON, or text."""
  text = '' if isinstance(value, list) else _text(value)
  if text.startswith('['):
    try:
      value = json.loads(text)
    except ValueError:
      pass  # a label that begins with a bracket
  if isinstance(value, list):
    names = map(_text, value)
  else:
    names = (x.strip() for x in text.split(separator or None))
  return [name for name in names if name]


def _marked(
  row: Record, columns: Sequence[str], mistakes: Mistakes
) -> list[str]:
  """Returns the columns of classes in which a row has 1."""
  marks = {'1': True, 'true': True, '0': False, 'false': False}
  labels = []
  for name in columns:
    text = _text(row.values.get(name)).lower()
    if text not in marks:
      mistakes.add(
        row.where, f'the column {name!r} must be 0 or 1, got {text!r}'
      )
    elif marks[text]:
      labels.append(name)
  return labels


def _weights(
  rows: Sequence[Record], column: str, mistakes: Mistakes
) -> np.ndarray:
  """Returns the weight of each row, float64 [N]."""
  weights = []
  for row in rows:
    text = _text(row.values.get(column))
    try:
      value = float(text)
    except ValueError:
      value = math.nan
    if not (math.isfinite(value) and value >= 0):
      mistakes.add(
        row.where,
        f'the weight must be a number of at least 0, got {text!r} in the column'
        f' {column!r}',
      )
    weights.append(value)
  return np.array(weights)
