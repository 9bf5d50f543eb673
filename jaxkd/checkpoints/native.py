"""Finished networks on disk: a folder, or one file.

A network is its arrays (`variables.npz`, whose entries carry checksums) and a
card (`network.json`) that says what they are. As one file it is the .npz with
the card in it.
"""

import contextlib
import json
import os
import pathlib
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxkd import models, tree
from jaxkd.checkpoints.card import card_of
from jaxkd.disk import CARD, replacing, write_json
from jaxkd.types import Variables

ARRAYS = 'variables.npz'


def save_network(
  folder: pathlib.Path, variables: Variables, card: dict[str, Any]
) -> None:
  """Writes a network; the card comes last, so that a card means whole.

  Args:
    folder: made if need be.
    variables: the network's arrays.
    card: JSON-able; what `load_network` gives back.
  """
  folder.mkdir(parents=True, exist_ok=True)
  (folder / CARD).unlink(missing_ok=True)
  _save_arrays(folder / ARRAYS, variables)
  write_json(folder / CARD, card)


def save_file(
  path: pathlib.Path, variables: Variables, card: dict[str, Any]
) -> None:
  """Writes a network as one file: the arrays' .npz with the card in it.

  Args:
    path: of the file; its folder is made if need be.
    variables: the network's arrays.
    card: JSON-able; what `load_network` gives back.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  _save_arrays(path, variables, {CARD: json.dumps(card, indent=2)})


def _save_arrays(
  path: pathlib.Path, variables: Variables, texts: dict[str, str] | None = None
) -> None:
  """Writes arrays and texts as one .npz, all or nothing."""
  arrays = {n: np.asarray(x) for n, x in tree.leaves(dict(variables)).items()}
  with replacing(path) as partial:
    with partial.open('wb') as file:
      np.savez(file, allow_pickle=False, **arrays)
    with zipfile.ZipFile(partial, 'a') as file:
      for name, text in (texts or {}).items():
        file.writestr(name, text)


def is_network(path: pathlib.Path) -> bool:
  """Is it a file, or a folder with a network in it?"""
  return path.is_file() or (path / CARD).exists()


def load_network(
  path: str | os.PathLike[str],
) -> tuple[Variables, dict[str, Any]]:
  """Reads what `save_network` or `save_file` wrote.

  Args:
    path: a folder or a file.

  Returns:
    The network's variables, as NumPy arrays, and its card.

  Raises:
    FileNotFoundError: there is no network.
    ValueError: a file is damaged, or is not a network.
  """
  path = pathlib.Path(path)
  arrays = path if path.is_file() else path / ARRAYS
  for needed in (arrays,) if path.is_file() else (path / CARD, arrays):
    if not needed.exists():
      raise FileNotFoundError(f'no network in {path}: {needed.name} is missing')
  card = load_card(path)
  # NumPy would not close the file itself if it is damaged.
  with _explained(path), arrays.open('rb') as stream, np.load(stream) as file:
    named = {name: file[name] for name in file.files if name != CARD}
    found = tree.from_leaves(named)
    params, batch_stats = found['params'], found.get('batch_stats', {})
  return {'params': params, 'batch_stats': batch_stats}, card


def load_card(path: pathlib.Path) -> dict[str, Any]:
  """Reads the card alone of a network that is there.

  Args:
    path: a folder or a file.

  Raises:
    ValueError: the file is damaged, or is not a network.
  """
  with _explained(path):
    if not path.is_file():
      return json.loads((path / CARD).read_text())
    with zipfile.ZipFile(path) as file:
      return json.loads(file.read(CARD))


@contextlib.contextmanager
def _explained(path: pathlib.Path) -> Iterator[None]:
  """Says which network cannot be read, whatever is wrong with its files."""
  try:
    yield
  except (
    AttributeError,  # an .npy file
    EOFError,
    KeyError,
    OSError,
    ValueError,
    zipfile.BadZipFile,
  ) as error:
    raise ValueError(
      f'the network in {path} is damaged, or is none ({error}): expected what'
      ' a run or --mode=export has written'
    ) from error


def find_network(path: pathlib.Path) -> pathlib.Path | None:
  """Returns where the network of a checkpoint is, None if there is none.

  Args:
    path: a network's folder or file, or the folder of a run, whose student or
      else teacher is meant.
  """
  run = path / 'networks'
  places = (path, run / 'student', run / 'teacher')
  return next((place for place in places if is_network(place)), None)


def load_checkpoint(path: pathlib.Path) -> tuple[Variables, dict[str, Any]]:
  """Reads a network from its folder or file, or a run's student or teacher.

  Raises:
    FileNotFoundError: there is none.
  """
  place = find_network(path)
  if place is None:
    raise FileNotFoundError(
      f'no checkpoint in {path}: expected a finished run, a folder with {CARD}'
      f' and {ARRAYS}, or a file, of --mode=export or of PyTorch (.pth, .pt,'
      ' .safetensors, .npz)'
    )
  return load_network(place)


def save_pretrained(
  folder: str | os.PathLike[str],
  name: str,
  variables: Variables,
  num_classes: int,
  image_shape: tuple[int, int, int],
  **settings: Any,
) -> None:
  """Writes a network that was trained elsewhere, as a checkpoint for runs.

  Args:
    folder: made if need be.
    name: of the network, see `build`.
    variables: its arrays.
    num_classes: K.
    image_shape: [H, W, C].
    **settings: arguments of the network.

  Raises:
    KeyError: no such network.
    ValueError: the variables do not fit it, with every array that does not.
  """
  net = models.build(name, num_classes, **settings)
  what = f'what {name!r} is given'
  variables = tree.fit(variables, tree.shapes(net, image_shape), what)
  card = card_of(name, variables, num_classes, image_shape, **settings)
  save_network(pathlib.Path(folder), variables, card)
