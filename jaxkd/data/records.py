"""Rows of table files, with the place of each for messages.

CSV and TSV by Python's csv module, JSON lines, and Parquet by pyarrow.
"""

import csv
import json
import math
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

DELIMITERS = {'.csv': ',', '.tsv': '\t'}
JSON_LINES = ('.jsonl', '.ndjson', '.json')
PARQUET = '.parquet'
SUFFIXES = (*DELIMITERS, *JSON_LINES, PARQUET)
SHOWN = 5  # mistakes in one message


class Record(NamedTuple):
  """A row of a table.

  where: its place, such as 'line 3'.
  values: column -> value; strings in CSV and TSV.
  """

  where: str
  values: Mapping[str, Any]


def text(value: Any) -> str:
  """Returns a cell as text without spaces around it, '' for an empty one."""
  if value is None or (isinstance(value, float) and math.isnan(value)):
    return ''
  if isinstance(value, float) and value.is_integer():
    value = int(value)
  return str(value).strip()


class Mistakes:
  """Mistakes in the rows of a file, reported together."""

  def __init__(self, file: str):
    """Starts without any; `file` is its name in the message."""
    self._file, self._found = file, []

  def add(self, where: str, what: str) -> None:
    """Adds a mistake: the place of a row, and what is wrong with it."""
    self._found.append(f'{where}: {what}')

  def check(self) -> None:
    """Raises ValueError if there is any mistake."""
    if not self._found:
      return
    count = len(self._found)
    lines = self._found[:SHOWN]
    if count > SHOWN:
      lines.append(f'... and {count - SHOWN} more')
    shown = '\n'.join(f'  {line}' for line in lines)
    rows = 'a row' if count == 1 else f'{count} rows'
    raise ValueError(f'{self._file} has {rows} that cannot be used:\n{shown}')


def read(path: pathlib.Path, delimiter: str = '') -> list[Record]:
  """Reads a table; the format is that of the file's suffix.

  Args:
    path: of the file.
    delimiter: one character, of CSV and TSV; '' is that of the suffix.

  Raises:
    FileNotFoundError: there is no such file.
    ImportError: Parquet, and no pyarrow.
    ValueError: another format; a file or row that cannot be read; two columns
      of one name; no row at all.
  """
  suffix = path.suffix.lower()
  if path.is_dir():
    raise ValueError(
      f'{path} is a folder: name the table in it, or read the folder by the'
      f' names of its subfolders, folder:{path}'
    )
  if not path.is_file():
    raise FileNotFoundError(f'there is no table {path}')
  if suffix == PARQUET:
    records = _parquet(path)
  elif suffix in JSON_LINES:
    records = _json_lines(path)
  elif suffix in DELIMITERS:
    records = _delimited(path, delimiter or DELIMITERS[suffix])
  else:
    raise ValueError(
      f'{path} must end in one of {", ".join(SUFFIXES)}, which is its format'
    )
  if not records:
    raise ValueError(f'{path} has no rows')
  return records


def _lines(path: pathlib.Path) -> Iterator[str]:
  """Yields the lines of a UTF-8 file, without a byte order mark."""
  try:
    with path.open(encoding='utf-8-sig', newline='') as file:
      yield from file
  except UnicodeDecodeError as error:
    raise ValueError(
      f'{path} is not in UTF-8 ({error.reason} at byte {error.start}): save it'
      ' as UTF-8 (spreadsheets call it "CSV UTF-8")'
    ) from error


def _delimited(path: pathlib.Path, delimiter: str) -> list[Record]:
  """Reads CSV or TSV, whose first line names the columns."""
  if len(delimiter) != 1:
    raise ValueError(
      f'delimiter must be one character, got {delimiter!r}: a tab is "\\t"'
    )
  rows = csv.reader(_lines(path), delimiter=delimiter, strict=True)
  names, records, mistakes, line = None, [], Mistakes(str(path)), 1
  try:
    for cells in rows:
      where, line = f'line {line}', rows.line_num + 1
      if not any(cell.strip() for cell in cells):
        continue
      if names is None:
        names = [cell.strip() for cell in cells]
        _check_names(path, where, names)
      elif len(cells) != len(names):
        mistakes.add(
          where,
          f'{len(cells)} cells, but {len(names)} columns (a cell that contains'
          f' {delimiter!r} must be in double quotes)',
        )
      else:
        values = dict(zip(names, cells, strict=True))
        records.append(Record(where, values))
  except csv.Error as error:
    raise ValueError(f'{path}: line {line}: {error}') from error
  mistakes.check()
  return records


def _check_names(path: pathlib.Path, where: str, names: Iterable[str]) -> None:
  """Raises ValueError if two columns have one name."""
  names = [name for name in names if name]
  double = sorted({name for name in names if names.count(name) > 1})
  if double:
    raise ValueError(
      f'{path}: {where}: more than one column is called'
      f' {", ".join(map(repr, double))}: rename all but one of them'
    )


def _json_lines(path: pathlib.Path) -> list[Record]:
  """Reads one JSON object from each line."""
  records, mistakes = [], Mistakes(str(path))
  if next(iter(_lines(path)), '').lstrip().startswith('['):
    raise ValueError(
      f'{path} begins with a list, and a table has one JSON object in each line'
      ', such as {"path": "a.png", "label": "cat"}, without commas between the'
      ' lines'
    )
  for number, line in enumerate(_lines(path), 1):
    if not line.strip():
      continue
    where = f'line {number}'
    try:
      values = json.loads(line, object_pairs_hook=_object)
    except ValueError as error:
      mistakes.add(where, f'not JSON ({error})')
      continue
    if isinstance(values, dict):
      records.append(Record(where, values))
    else:
      mistakes.add(where, 'not a JSON object, such as {"path": "a.png", ...}')
  mistakes.check()
  return records


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  """Returns a JSON object; raises ValueError if a key is in it twice."""
  values = dict(pairs)
  if len(values) < len(pairs):
    names = [name for name, _ in pairs]
    double = sorted({name for name in names if names.count(name) > 1})
    raise ValueError(f'the key {", ".join(map(repr, double))} is there twice')
  return values


def _parquet(path: pathlib.Path) -> list[Record]:
  try:
    import pyarrow
    import pyarrow.parquet
  except ImportError as error:
    raise ImportError(
      f"{path} needs pyarrow: pip install 'jaxkd[parquet]', or save the table"
      ' as CSV'
    ) from error
  try:
    table = pyarrow.parquet.read_table(path)
  except (pyarrow.ArrowException, OSError) as error:
    reason = (str(error).splitlines() or [''])[0]
    raise ValueError(
      f'{path} cannot be read as Parquet ({reason}): replace it'
    ) from error
  _check_names(path, 'its schema', table.column_names)
  return [
    Record(f'row {number}', values)
    for number, values in enumerate(table.to_pylist(), 1)
  ]
