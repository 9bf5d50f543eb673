"""Trained teachers, kept under what determines them."""

import hashlib
import json
import os
import pathlib
import shutil
import uuid
from typing import Any

from jaxkd.checkpoints import native
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
    """Returns where the teacher with these settings is or would be."""
    text = json.dumps({'format': FORMAT, **settings}, sort_keys=True)
    return self._folder / hashlib.sha256(text.encode()).hexdigest()[:20]

  def load(
    self, settings: dict[str, Any]
  ) -> tuple[Variables, dict[str, Any]] | None:
    """Returns the teacher and its card, or None if it is not there."""
    folder = self.path(settings)
    if not (folder / native.CARD).exists():
      return None
    return native.load_network(folder)

  def store(
    self, settings: dict[str, Any], variables: Variables, card: dict[str, Any]
  ) -> pathlib.Path:
    """Puts a teacher in; of two that finish together, one stays."""
    folder = self.path(settings)
    partial = folder.with_name(f'{folder.name}.{uuid.uuid4().hex}.partial')
    native.save_network(partial, variables, card)
    try:
      os.replace(partial, folder)
    except OSError:
      if not folder.exists():
        raise
      shutil.rmtree(partial)
    return folder
