"""Atomic writing of files: a reader sees a complete file or none."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator
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


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes a value to a JSON file, atomically."""
  text = json.dumps(value, indent=2) + '\n'
  with replacing(path) as partial:
    partial.write_text(text)
