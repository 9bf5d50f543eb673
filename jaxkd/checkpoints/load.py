"""The loader of networks on disk, in any format.

`kind_of` alone decides which format a path has.
"""

import enum
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxkd import disk
from jaxkd.checkpoints import native
from jaxkd.checkpoints.card import Card, SavedNetwork, card_of
from jaxkd.disk import CARD, NETWORKS
from jaxkd.interop import contents, export, files
from jaxkd.interop.export import Predict
from jaxkd.interop.torch import convert

# The networks that configs describe. A run's result is the first that it has.
RESULTS = ('student', 'teacher')
# Entries of the card in a state dict's file that stay true when the network is
# used with images of another size.
PORTABLE = ('class_names', 'mean', 'std', 'scale', 'read_out', 'data')
PROGRAMS = {
  'onnx': export.read_onnx,
  'stablehlo': export.read_stablehlo,
}


class Kind(enum.Enum):
  """The kind of network at a path.

  NETWORK: a network of jaxkd, a folder or a file.
  STATE_DICT: a file of a PyTorch state dict, or a folder of Hugging Face.
  PROGRAM: an exported program, which has no arrays to be read.
  OTHER: anything else; reading it raises an error that says what it is.
  """

  NETWORK = enum.auto()
  STATE_DICT = enum.auto()
  PROGRAM = enum.auto()
  OTHER = enum.auto()


def kind_of(path: pathlib.Path) -> Kind | None:
  """Returns the kind of network at a path, by its content.

  Args:
    path: of a file or a folder.

  Returns:
    None if there is nothing, or a folder without a network.
  """
  content = contents.of(path)
  if content is None:
    return None
  if content.format == 'network':
    return Kind.NETWORK
  if content.format in PROGRAMS:
    return Kind.PROGRAM
  return Kind.STATE_DICT if content.format in files.READERS else Kind.OTHER


def find(path: str | os.PathLike[str]) -> pathlib.Path | None:
  """Returns the path of a checkpoint's network; None if there is none.

  Args:
    path: of a network's folder or file, or the folder of a run, whose student,
      or else teacher, is taken.
  """
  path = disk.expanded(path)
  places = (path, *(path / NETWORKS / name for name in RESULTS))
  return next((place for place in places if kind_of(place)), None)


def load(
  path: str | os.PathLike[str],
  model: str = '',
  image_shape: tuple[int, int, int] | None = None,
  weights: str = '',
  **settings: Any,
) -> SavedNetwork:
  """Reads a network, converting it if it is in PyTorch's format.

  Args:
    path: the folder of a finished run, a network's folder, an .npz file, a file
      of a PyTorch state dict in any of its formats, or a folder as the Hugging
      Face hub leaves it.
    model: the architecture of a state dict whose file has no card.
    image_shape: [H, W, C] that a state dict's network is to be used with; None
      takes its card as it is.
    weights: which weights of a file that has several: 'average', 'raw', or
      their key; '': the average if there is one. The card's notes say which.
    **settings: arguments of that architecture, such as `width`.

  Raises:
    FileNotFoundError: there is no network.
    KeyError: no such model.
    ValueError: the file is corrupt, of another model, a program, or something
      else.
  """
  place = find(path)
  if place is None:
    raise FileNotFoundError(
      f'no checkpoint in {path}: expected a finished run, a folder with {CARD}'
      f' and {native.ARRAYS}, a folder of the Hugging Face hub, or a file, of'
      ' --mode=export or of PyTorch (.pth, .safetensors, .npz, ...)'
    )
  kind = kind_of(place)
  if kind is Kind.PROGRAM:
    raise ValueError(
      f'{place} is an exported program, whose arrays cannot be read: export the'
      ' network as .npz or .safetensors, too'
    )
  if kind is Kind.NETWORK:
    return native.load(place)
  return _load_state_dict(place, model, image_shape, weights, settings)


def _load_state_dict(
  path: pathlib.Path,
  model: str,
  image_shape: tuple[int, int, int] | None,
  weights: str,
  settings: dict[str, Any],
) -> SavedNetwork:
  """Reads a state dict, whose file or folder may name the model."""
  state_dict, entries = files.read(path)
  card = _card(path, entries)
  if card is not None:
    model, settings = card.model, card.arguments
  shape = image_shape or (card.shape if card and card.image_shape else None)
  if not model or shape is None:
    raise ValueError(
      f'{path} does not name its network, as files by --mode=export do:'
      f' convert it by `python -m jaxkd.commands.convert MODEL {path} OUT`'
    )
  try:
    variables, notes = convert(model, state_dict, weights, **settings)
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from error
  if card and card.params_sha256 and image_shape is None:  # of jaxkd
    return SavedNetwork(variables, card)
  num_classes = variables['params']['head']['kernel'].shape[-1]
  new = card_of(model, variables, num_classes, shape, **settings)
  kept = {key: getattr(card, key) for key in PORTABLE} if card else {}
  new = new.replace(**kept, converted_from=path.name, notes=notes)
  return SavedNetwork(variables, new)


def _card(path: pathlib.Path, entries: dict[str, Any]) -> Card | None:
  """Returns the card in the file of a state dict, if it has one."""
  if not entries:
    return None
  with native.explained(path):
    return Card.from_json(entries)


def load_card(path: str | os.PathLike[str]) -> Card | None:
  """Returns the card of a network without reading its arrays.

  Args:
    path: as for `load`, or of an exported program.

  Returns:
    None if there is no network yet, or its file has no card.

  Raises:
    ImportError: a library is needed and absent.
    ValueError: the file is corrupt, or something else.
  """
  place = find(path)
  if place is None:
    return None
  kind = kind_of(place)
  if kind is Kind.PROGRAM:
    return load_function(place)[1]
  if kind is Kind.NETWORK:
    return native.load_card(place)
  return _card(place, files.read_card(place))


def hub_settings(path: str | os.PathLike[str], model: str) -> dict[str, Any]:
  """Returns the settings of a model that a folder of a hub decides.

  Its configuration has them, so that a config need not. Of any other checkpoint
  or model they are {}.

  Raises:
    ValueError: no model of the catalogue is this network.
  """
  content = contents.of(disk.expanded(path))
  if content is None or content.format != 'hugging_face':
    return {}
  card = load_card(path)
  return dict(card.settings) if card and card.model == model else {}


def load_function(
  path: str | os.PathLike[str],
) -> tuple[Predict, Card]:
  """Returns any network as a function, and its card.

  Args:
    path: as for `load`, or of an exported program (.onnx, .stablehlo).

  Returns:
    The function of normalised images, float32 [B, H, W, C], that returns
    logits, float32 [B, K]; both are NumPy arrays.

  Raises:
    FileNotFoundError: there is no network.
    ImportError: a library is needed and absent.
    ValueError: the file is corrupt, or has no card.
  """
  path = disk.expanded(path)
  content = contents.of(path)
  if content is None or content.format not in PROGRAMS:
    network = load(path)
    return _function(network), network.card
  predict, entries = PROGRAMS[content.format](path)
  with native.explained(path):
    return predict, Card.from_json(entries)


def _function(network: SavedNetwork) -> Predict:
  """Returns the function that a network computes, in float32."""
  module: Any = network.card.module(dtype=jnp.float32)
  apply = jax.jit(
    lambda variables, image: module.apply(variables, image).logits
  )

  def predict(image: np.ndarray) -> np.ndarray:
    with jax.default_matmul_precision('highest'):
      return np.asarray(apply(network.variables, image))

  return predict
