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
from jaxkd.interop import export, files
from jaxkd.interop.export import Predict
from jaxkd.interop.torch import from_state_dict

# The networks that configs describe. A run's result is the first that it has.
RESULTS = ('student', 'teacher')
# Entries of the card in a state dict's file that stay true when the network is
# used with images of another size.
PORTABLE = ('class_names', 'mean', 'std', 'scale', 'read_out', 'data')
PROGRAMS = {
  '.onnx': export.read_onnx,
  '.stablehlo': export.read_stablehlo,
}


class Kind(enum.Enum):
  """The kind of network at a path.

  NETWORK: a network of jaxkd, a folder or a file.
  STATE_DICT: a file of a PyTorch state dict.
  PROGRAM: an exported program, which has no arrays to be read.
  """

  NETWORK = enum.auto()
  STATE_DICT = enum.auto()
  PROGRAM = enum.auto()


def kind_of(path: pathlib.Path) -> Kind | None:
  """Returns the kind of network at a path; None if there is no network.

  Any file that is neither a state dict nor a program counts as a network of
  jaxkd, and reading it fails if it is not.

  Args:
    path: of a file, or the folder of a network.
  """
  if path.is_file() and path.suffix in PROGRAMS:
    return Kind.PROGRAM
  if files.is_state_dict(path):
    return Kind.STATE_DICT
  return Kind.NETWORK if native.is_network(path) else None


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
  **settings: Any,
) -> SavedNetwork:
  """Reads a network, converting it if it is in PyTorch's format.

  Args:
    path: the folder of a finished run, a network's folder, an .npz file, or a
      file of a PyTorch state dict (.pth, .pt, .safetensors or .npz).
    model: the architecture of a state dict whose file has no card.
    image_shape: [H, W, C] that a state dict's network is to be used with; None
      takes its card as it is.
    **settings: arguments of that architecture, such as `width`.

  Raises:
    FileNotFoundError: there is no network.
    ImportError: PyTorch is needed and absent.
    KeyError: no such model.
    ValueError: the file is corrupt, of another model, or a program.
  """
  place = find(path)
  if place is None:
    raise FileNotFoundError(
      f'no checkpoint in {path}: expected a finished run, a folder with {CARD}'
      f' and {native.ARRAYS}, or a file, of --mode=export or of PyTorch (.pth,'
      ' .pt, .safetensors, .npz)'
    )
  kind = kind_of(place)
  if kind is Kind.PROGRAM:
    raise ValueError(
      f'{place} is an exported program, whose arrays cannot be read: export the'
      ' network as .npz or .safetensors, too'
    )
  if kind is Kind.STATE_DICT:
    return _load_state_dict(place, model, image_shape, settings)
  return native.load(place)


def _load_state_dict(
  path: pathlib.Path,
  model: str,
  image_shape: tuple[int, int, int] | None,
  settings: dict[str, Any],
) -> SavedNetwork:
  """Reads the file of a state dict, whose card may name the model."""
  state_dict, entries = files.read(path)
  card = _card(path, entries)
  if card is not None:
    model, settings = card.model, card.arguments
  if not model or (image_shape is None and not (card and card.image_shape)):
    raise ValueError(
      f'{path} does not name its network, as files by --mode=export do:'
      ' convert it by `python -m jaxkd.commands.convert`'
    )
  try:
    variables = from_state_dict(model, state_dict, **settings)
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from error
  if image_shape is None:
    return SavedNetwork(variables, card or Card(model))
  num_classes = variables['params']['head']['kernel'].shape[-1]
  new = card_of(model, variables, num_classes, image_shape, **settings)
  kept = {key: getattr(card, key) for key in PORTABLE} if card else {}
  return SavedNetwork(variables, new.replace(**kept, converted_from=path.name))


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
    ValueError: the file is corrupt, or not a jaxkd checkpoint.
  """
  place = find(path)
  if place is None:
    return None
  kind = kind_of(place)
  if kind is Kind.PROGRAM:
    return load_function(place)[1]
  if kind is Kind.STATE_DICT:
    return _card(place, files.read(place)[1])
  return native.load_card(place)


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
  if kind_of(path) is not Kind.PROGRAM:
    network = load(path)
    return _function(network), network.card
  predict, entries = PROGRAMS[path.suffix](path)
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
