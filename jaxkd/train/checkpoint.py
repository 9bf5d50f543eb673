"""Saving: the state of an interrupted training, and finished networks.

A training's state is kept by orbax and restored into the shape and sharding of
the state that the run would start with. A finished network is a folder with its
arrays (`variables.npz`, whose entries carry checksums) and a card
(`network.json`) that says what they are.
"""

import contextlib
import errno
import json
import os
import pathlib
import zipfile
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxkd import tree
from jaxkd.train.log import PARTIAL, write_json
from jaxkd.train.state import State
from jaxkd.types import Variables

CARD, ARRAYS = 'network.json', 'variables.npz'


class Checkpoints:
  """The last states of one training, in a folder.

  A save that is interrupted leaves the one before it intact.
  """

  def __init__(self, folder: pathlib.Path, keep: int = 2):
    options = ocp.CheckpointManagerOptions(
      max_to_keep=keep,
      # On the CPU the arrays would be shared with steps that donate them.
      enable_async_checkpointing=jax.default_backend() != 'cpu',
    )
    self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

  def latest(self) -> int | None:
    """Returns the step of the last complete save, or None."""
    return self._manager.latest_step()

  def save(self, state: State, record: dict[str, Any]) -> None:
    """Saves the state and a JSON-able record of the loop around it.

    Raises:
      OSError: the disk is full.
    """
    args = ocp.args.Composite(
      state=ocp.args.StandardSave(state), record=ocp.args.JsonSave(record)
    )
    try:
      self._manager.save(int(state.step), args=args)
    except ValueError as error:
      # How tensorstore, below orbax, says it.
      if f"os_error_code='{errno.ENOSPC}'" not in str(error):
        raise
      folder = str(self._manager.directory)
      full = os.strerror(errno.ENOSPC)
      raise OSError(errno.ENOSPC, full, folder) from error

  def restore(self, like: State) -> tuple[State, dict[str, Any]]:
    """Returns the last save.

    Args:
      like: a state of the right shapes and shardings; arrays or
        `jax.ShapeDtypeStruct`.

    Raises:
      ValueError: what is saved has another structure.
    """
    args = ocp.args.Composite(
      state=ocp.args.StandardRestore(like),
      record=ocp.args.JsonRestore(),
    )
    try:
      restored = self._manager.restore(self.latest(), args=args)
    except ValueError as error:
      raise ValueError(
        f'the training saved in {self._manager.directory} cannot be gone on'
        ' with: it is of another version of the code, or damaged. Take a new'
        ' --workdir'
      ) from error
    return restored['state'], restored['record']

  def close(self) -> None:
    """Waits for a save under way."""
    self._manager.close()


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
  partial = path.with_name(path.name + PARTIAL)
  arrays = {n: np.asarray(x) for n, x in tree.leaves(dict(variables)).items()}
  with partial.open('wb') as file:
    np.savez(file, allow_pickle=False, **arrays)
  if texts:
    with zipfile.ZipFile(partial, 'a') as file:
      for name, text in texts.items():
        file.writestr(name, text)
  os.replace(partial, path)


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
  return {
    'params': found['params'],
    'batch_stats': found.get('batch_stats', {}),
  }, card


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
      f'no checkpoint in {path}: expected a finished run, a file that'
      f' --mode=export has written, or a folder with {CARD} and {ARRAYS}'
    )
  return load_network(place)
