"""jaxkd's own checkpoints of networks: a folder, or one file.

A network is its arrays (`variables.npz`, whose entries carry checksums) and its
model card (`network.json`). As one file it is the .npz with the card in it.
"""

import contextlib
import json
import os
import pathlib
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jaxkd import models, tree
from jaxkd.checkpoints.card import Card, SavedNetwork, card_of
from jaxkd.disk import CARD, json_text, replacing, write_json
from jaxkd.types import Tree, Variables

ARRAYS = 'variables.npz'


def save(
  path: str | os.PathLike[str], variables: Variables, card: Card
) -> None:
  """Writes a network, all or nothing.

  Args:
    path: a file if it ends in .npz, otherwise a folder; made if need be, with
      its parents.
    variables: the network's arrays.
    card: its model card.
  """
  path = pathlib.Path(path)
  if path.suffix == '.npz':
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json_text(card.to_json(), indent=2)
    return _save_arrays(path, variables, {CARD: text})
  path.mkdir(parents=True, exist_ok=True)
  (path / CARD).unlink(missing_ok=True)
  _save_arrays(path / ARRAYS, variables)
  # Last, so that a folder with a card is complete.
  return write_json(path / CARD, card.to_json())


def _save_arrays(
  path: pathlib.Path,
  variables: Mapping[str, Tree],
  texts: Mapping[str, str] | None = None,
) -> None:
  """Writes arrays and texts as one .npz, all or nothing."""
  arrays = {n: np.asarray(x) for n, x in tree.leaves(dict(variables)).items()}
  with replacing(path) as partial:
    with partial.open('wb') as file:
      np.savez(file, allow_pickle=False, **arrays)
    with zipfile.ZipFile(partial, 'a') as file:
      for name, text in (texts or {}).items():
        file.writestr(name, text)


def load(path: pathlib.Path) -> SavedNetwork:
  """Reads a network that `save` wrote; its arrays are NumPy's.

  Args:
    path: a folder or a file.

  Raises:
    FileNotFoundError: there is no network.
    ValueError: a file is corrupt, or not a jaxkd checkpoint.
  """
  arrays = path if path.is_file() else path / ARRAYS
  for needed in (arrays,) if path.is_file() else (path / CARD, arrays):
    if not needed.exists():
      raise FileNotFoundError(f'no network in {path}: {needed.name} is missing')
  card = load_card(path)
  with explained(path):
    collections = _load_arrays(arrays)
    params = collections['params']
  batch_stats = collections.get('batch_stats', {})
  return SavedNetwork({'params': params, 'batch_stats': batch_stats}, card)


def _load_arrays(path: pathlib.Path) -> dict[str, Tree]:
  # NumPy would not close a corrupt file itself.
  with path.open('rb') as stream, np.load(stream) as file:
    return tree.from_leaves({n: file[n] for n in file.files if n != CARD})


def load_card(path: pathlib.Path) -> Card:
  """Reads only the card of an existing network.

  Args:
    path: a folder or a file.

  Raises:
    ValueError: the file is corrupt, or not a jaxkd checkpoint.
  """
  with explained(path):
    if not path.is_file():
      return Card.from_json(json.loads((path / CARD).read_text()))
    with zipfile.ZipFile(path) as file:
      return Card.from_json(json.loads(file.read(CARD)))


def save_tree(path: pathlib.Path, arrays: Mapping[str, Tree]) -> None:
  """Writes nested dicts of arrays, not those of a network, as one .npz."""
  _save_arrays(path, {'params': dict(arrays)})


def load_tree(path: pathlib.Path) -> dict[str, Tree]:
  """Reads nested dicts of arrays that `save_tree` wrote.

  Raises:
    ValueError: the file is corrupt.
  """
  with explained(path):
    return _load_arrays(path)['params']


@contextlib.contextmanager
def explained(path: pathlib.Path) -> Iterator[None]:
  """Turns the errors of reading a corrupt file into one that names it.

  Raises:
    ValueError: the file cannot be read.
  """
  try:
    yield
  except (
    AttributeError,  # an .npy file
    EOFError,
    KeyError,
    OSError,
    TypeError,  # JSON, but not a card's
    ValueError,
    zipfile.BadZipFile,
  ) as error:
    raise ValueError(
      f'{path} is corrupt, or not a jaxkd checkpoint ({error}): expected a file'
      ' that a run or --mode=export has written'
    ) from error


def save_pretrained(
  folder: str | os.PathLike[str],
  name: str,
  variables: Mapping[str, Any],
  num_classes: int,
  image_shape: tuple[int, int, int],
  **settings: Any,
) -> None:
  """Writes a network that was trained elsewhere, as a checkpoint for runs.

  Args:
    folder: made if need be.
    name: of the architecture, see `models.build`.
    variables: its arrays.
    num_classes: K.
    image_shape: [H, W, C].
    **settings: arguments of the architecture.

  Raises:
    KeyError: no such architecture.
    ValueError: the variables do not fit it, with every array that does not.
  """
  net = models.build(name, num_classes, **settings)
  shapes = tree.shapes(net, image_shape)
  arrays = tree.fit(variables, shapes, f'the network that is saved as {name!r}')
  save(
    folder, arrays, card_of(name, arrays, num_classes, image_shape, **settings)
  )
