"""Atomic writing of files: a reader sees a complete file or none."""

import contextlib
import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

CARD = 'network.json'  # the model card, beside or in a file of variables
NETWORKS = 'networks'  # the folder of networks in the folder of a run
PARTIAL = '.partial'  # suffix of unfinished files, which nothing reads


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a temporary path that is renamed to `path` on success.

  Args:
    path: the path of the file; its folder exists.
  """
  partial = path.with_name(path.name + PARTIAL)
  yield partial
  os.replace(partial, path)


def plain(value: Any) -> Any:
  """Returns a value as plain JSON has it: tuples as lists, NaN as None.

  JSON has no numbers that are not finite (RFC 8259, section 6).
  """
  if isinstance(value, Mapping):
    return {key: plain(x) for key, x in value.items()}
  if isinstance(value, list | tuple):
    return [plain(x) for x in value]
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value


def json_text(value: Any, indent: int | None = None) -> str:
  """Returns a value as JSON; a number that is not finite is null."""
  return json.dumps(plain(value), indent=indent, allow_nan=False)


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes a value to a JSON file, atomically; see `json_text`."""
  text = json_text(value, indent=2) + '\n'
  with replacing(path) as partial:
    partial.write_text(text)
