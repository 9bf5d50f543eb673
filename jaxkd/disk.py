"""Files that are written whole or not at all."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

CARD = 'network.json'  # the model card beside, or inside, a network's arrays
PARTIAL = '.partial'  # what a kill may leave behind, and nothing reads


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Gives a path to write to, whose file takes its place if all goes well.

  Args:
    path: of the file; its folder is there.
  """
  partial = path.with_name(path.name + PARTIAL)
  yield partial
  os.replace(partial, path)


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes a value as JSON."""
  text = json.dumps(value, indent=2) + '\n'
  with replacing(path) as partial:
    partial.write_text(text)
