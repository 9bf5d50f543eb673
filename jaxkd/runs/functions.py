"""Models of a config that are functions, or files of outputs.

They have no arrays here, and their cards say what they are.
"""

import dataclasses
import functools
import json
import pathlib

from jaxkd import checkpoints, disk
from jaxkd.checkpoints import Card, Function
from jaxkd.config import BAYES
from jaxkd.graph import Model
from jaxkd.stores import Store

Shape = tuple[int, int, int]


def is_function(model: Model) -> bool:
  """Returns whether a model is a function, which has no arrays here."""
  if model.checkpoint == BAYES:
    return False
  return checkpoints.is_function(model.name, model.checkpoint)


def described(model: Model) -> Model:
  """Returns a model with what the card of its outputs or program says.

  A model that is not a file of outputs or of a program is returned as it is.
  """
  card = None
  if model.outputs:
    card = Card.from_json(Store(model.outputs).header.card)
  elif model.checkpoint and is_function(model):
    card = checkpoints.card_of_file(model.checkpoint)
    if card is None:
      name = checkpoints.FUNCTION + pathlib.Path(model.checkpoint).name
      return dataclasses.replace(model, name=name)
  if card is None:
    return model
  return dataclasses.replace(
    model,
    name=card.model,
    width=card.width,
    settings=card.settings,
    taps=card.taps,
    read_out='',
  )


def read(model: Model, image_shape: Shape) -> Function:
  """Returns the function that a model is.

  It takes images of the size and channels on its card; or else those that the
  user has set, or else those of the data.

  Args:
    model: a function.
    image_shape: of the data, [H, W, C].

  Raises:
    ImportError: a library is needed and absent.
    ValueError: it is no function of such images that returns logits.
  """
  height, width, channels = image_shape
  card, changed = None, ()
  if model.checkpoint:
    path = disk.expanded(model.checkpoint)
    card = checkpoints.card_of_file(path)
    changed = path.stat().st_mtime_ns, path.stat().st_size
  if card and card.image_shape:
    shape = card.shape
  else:
    height, width = (model.image_size or x for x in (height, width))
    shape = height, width, model.channels or channels
  settings = json.dumps(dict(model.settings), sort_keys=True)
  return _read(model.name, model.checkpoint, changed, shape, settings)


@functools.lru_cache(maxsize=8)
def _read(
  name: str,
  checkpoint: str,
  changed: tuple[int, ...],
  shape: Shape,
  settings: str,
) -> Function:
  """Returns a function; a file is read again if it has changed."""
  del changed
  return checkpoints.read_function(
    name, checkpoint, shape, json.loads(settings)
  )
