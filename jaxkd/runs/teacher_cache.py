"""A cache of trained teachers, whose keys are all settings of a training."""

import hashlib
import json
import os
import pathlib
import shutil
import uuid
from typing import Any

from jaxkd import checkpoints
from jaxkd.checkpoints import Card, SavedNetwork
from jaxkd.types import Variables

FORMAT = 1  # raise it when the same settings start to mean another training


class TeacherCache:
  """A folder of networks, each named after the digest of its settings."""

  def __init__(self, folder: str | os.PathLike[str] | None = None):
    """Opens the cache.

    Args:
      folder: None or '' takes $JAXKD_CACHE, or else ~/.cache/jaxkd.
    """
    folder = folder or os.environ.get('JAXKD_CACHE') or '~/.cache/jaxkd'
    self._folder = pathlib.Path(folder).expanduser() / 'teachers'

  def path(self, settings: dict[str, Any]) -> pathlib.Path:
    """Returns the folder of the network with these settings."""
    text = json.dumps({'format': FORMAT, **settings}, sort_keys=True)
    return self._folder / hashlib.sha256(text.encode()).hexdigest()[:20]

  def load(self, settings: dict[str, Any]) -> SavedNetwork | None:
    """Returns the network with these settings, or None if it is not there."""
    folder = self.path(settings)
    return checkpoints.load(folder) if checkpoints.kind_of(folder) else None

  def store(
    self, settings: dict[str, Any], variables: Variables, card: Card
  ) -> pathlib.Path:
    """Stores a network; of two that finish at the same time, one stays."""
    folder = self.path(settings)
    partial = folder.with_name(f'{folder.name}.{uuid.uuid4().hex}.partial')
    checkpoints.save(partial, variables, card)
    try:
      os.replace(partial, folder)
    except OSError:
      if not folder.exists():
        raise
      shutil.rmtree(partial)
    return folder
