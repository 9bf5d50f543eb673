"""Networks from any file: jaxkd's own, and those of PyTorch projects."""

import pathlib
from typing import Any

from jaxkd.checkpoints import native
from jaxkd.checkpoints.card import card_of
from jaxkd.interop import files
from jaxkd.interop.torch import from_state_dict
from jaxkd.types import Variables

# Said of a network by the card that jaxkd has exported it with.
SAID = ('class_names', 'mean', 'std', 'scale', 'read_out', 'data')


def load(
  path: pathlib.Path,
  model: str,
  image_shape: tuple[int, int, int],
  **settings: Any,
) -> tuple[Variables, dict[str, Any]]:
  """Reads a network, converting it if it is PyTorch's.

  Args:
    path: of a finished run, a network of one, an exported file, or a file of a
      PyTorch state dict: .pth, .pt, .safetensors or .npz.
    model: what a state dict is of, if its file does not say so.
    image_shape: [H, W, C] that it is to be used with.
    **settings: attributes of that model, such as `width`, likewise.

  Returns:
    Variables and a card.

  Raises:
    FileNotFoundError: there is none.
    ImportError: PyTorch is needed and absent.
    KeyError: no such model.
    ValueError: it is damaged, or of another model.
  """
  if not files.is_state_dict(path):
    return native.load_checkpoint(path)
  state_dict, said = files.read(path)
  model = said.get('model', model)
  if said:  # a file of jaxkd's knows itself
    settings = {'width': said.get('width', 1), **said.get('settings', {})}
  try:
    variables = from_state_dict(model, state_dict, **settings)
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from error
  num_classes = variables['params']['head']['kernel'].shape[-1]
  return variables, {
    **{key: said[key] for key in SAID if key in said},
    **card_of(model, variables, num_classes, image_shape, **settings),
    'converted_from': path.name,
  }


def load_card(path: pathlib.Path) -> dict[str, Any]:
  """Returns what is known of a network before its arrays are.

  Args:
    path: as for `load`.

  Returns:
    Its card; {} if there is no network yet, or it has none.
  """
  if files.is_state_dict(path):
    return files.read(path)[1]
  place = native.find_network(path)
  return native.load_card(place) if place else {}
