"""Runs notebooks from top to bottom and keeps their outputs.

  python -m notebooks.execute                       all of them
  python -m notebooks.execute notebooks/2_gpd.ipynb

Needs `pip install -e '.[notebooks,onnx]'`. Each notebook runs in an empty
folder, with an empty cache of teachers, so that its outputs are those of a
first visit.
"""

import os
import pathlib
import re
import sys
import tempfile
import time
from typing import Any

FOLDER = pathlib.Path(__file__).resolve().parent
NOTEBOOKS = sorted(FOLDER.glob('[0-9]_*.ipynb'))
TIMEOUT = 900  # seconds for one cell


def execute(path: pathlib.Path, folder: str) -> Any:
  """Returns a notebook with the outputs of a new kernel.

  Args:
    path: of the notebook.
    folder: the working directory, for the files that it writes.

  Raises:
    nbclient.exceptions.CellExecutionError: a cell has failed.
  """
  import nbformat
  from nbclient import NotebookClient

  notebook = nbformat.read(path, as_version=4)
  client = NotebookClient(
    notebook,
    timeout=TIMEOUT,
    kernel_name='python3',
    # Output that comes in several pieces is one text.
    coalesce_streams=True,
    resources={'metadata': {'path': folder}},
  )
  environment = {
    **os.environ,
    'JAXKD_CACHE': 'cache',
    'PYTHONPATH': os.pathsep.join([str(FOLDER.parent), *sys.path[1:]]),
    'TQDM_DISABLE': '1',
  }
  client.execute(env=environment)
  return tidy(notebook)


def tidy(notebook: Any) -> Any:
  """Removes what changes with every execution: times and versions."""
  notebook.metadata = {
    'kernelspec': {
      'display_name': 'Python 3',
      'language': 'python',
      'name': 'python3',
    },
    'language_info': {'name': 'python'},
  }
  for number, cell in enumerate(notebook.cells):
    cell.id = f'cell{number}'
    cell.metadata = {}
    for output in cell.get('outputs', []):
      if output.get('output_type') in ('display_data', 'execute_result'):
        output.metadata = {}
        # Objects in memory have addresses.
        text = output.data.get('text/plain', '')
        output.data['text/plain'] = re.sub(r' at 0x[0-9a-f]+', '', text)
  return notebook


def main(paths: list[str]) -> None:
  """Executes notebooks in place; a failing one is left as it was."""
  import nbformat

  for path in map(pathlib.Path, paths or NOTEBOOKS):
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
      notebook = execute(path, folder)
    nbformat.write(notebook, path)
    size = path.stat().st_size / 1000
    print(f'{path.name}: {time.monotonic() - start:.0f} s, {size:.0f} kB')


if __name__ == '__main__':
  main(sys.argv[1:])
