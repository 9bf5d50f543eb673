"""Saving the state of a training, so that it can be resumed.

Orbax saves it, and restores it into the shapes and the sharding of the initial
state.
"""

import errno
import os
import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp

from jaxkd.disk import plain
from jaxkd.training.state import State


class Checkpoints:
  """The last states of one training, in a folder.

  An interrupted save leaves the one before it intact.
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
      state=ocp.args.StandardSave(state),
      record=ocp.args.JsonSave(plain(record)),
    )
    try:
      self._manager.save(int(state.step), args=args)
    except ValueError as error:
      # The message of tensorstore, on which orbax is built.
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
      ValueError: the saved state has another structure, or is corrupt.
    """
    args = ocp.args.Composite(
      state=ocp.args.StandardRestore(like),
      record=ocp.args.JsonRestore(),
    )
    try:
      restored = self._manager.restore(self.latest(), args=args)
    except ValueError as error:
      raise ValueError(
        f'the training in {self._manager.directory} cannot be resumed: it was'
        ' saved by another version of jaxkd, or is corrupt. Choose a new'
        ' --workdir'
      ) from error
    return restored['state'], restored['record']

  def close(self) -> None:
    """Waits for a save that is in progress."""
    self._manager.close()
