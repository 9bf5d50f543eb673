"""The formats that finished networks are exported to."""

import importlib.util
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn

from jaxkd.catalog import lookup
from jaxkd.checkpoints import native
from jaxkd.checkpoints.card import Card
from jaxkd.interop import export, files
from jaxkd.interop.torch import to_state_dict
from jaxkd.types import Variables

SAME, OTHER = 1e-5, 1e-4  # JAX with our arrays; another compiler, or runtime


class Format(NamedTuple):
  """One format of exported files, which `checkpoints.load_function` reads.

  write: (path, module, variables, card) -> None; replaces what is at the path.
  tolerance: the largest difference between the logits of the file and of the
    network, in units of the largest logit.
  needs: libraries that are not dependencies of jaxkd.
  extra: the extra of jaxkd that installs them.
  """

  write: Callable[[pathlib.Path, nn.Module, Variables, Card], None]
  tolerance: float
  needs: tuple[str, ...] = ()
  extra: str = ''


def _write_network(
  path: pathlib.Path, module: nn.Module, variables: Variables, card: Card
) -> None:
  del module  # which the card describes
  native.save(path, variables, card)


def _write_state_dict(
  path: pathlib.Path, module: nn.Module, variables: Variables, card: Card
) -> None:
  del module  # which the card describes
  if card.reused:
    raise ValueError(
      f'{path}: a network with the classifier of another one has no counterpart'
      ' in PyTorch, whose names a state dict would have; export it as .npz,'
      ' .onnx or .stablehlo'
    )
  state_dict = to_state_dict(card.model, variables, **card.arguments)
  files.write(path, state_dict, card.to_json())


def _write_onnx(
  path: pathlib.Path, module: nn.Module, variables: Variables, card: Card
) -> None:
  export.write_onnx(path, module, variables, card.to_json())


def _write_stablehlo(
  path: pathlib.Path, module: nn.Module, variables: Variables, card: Card
) -> None:
  export.write_stablehlo(path, module, variables, card.to_json())


_TORCH = Format(_write_state_dict, SAME, needs=('torch',), extra='torch')
FORMATS = {
  '.npz': Format(_write_network, SAME),
  '.onnx': Format(
    _write_onnx, OTHER, needs=('onnx', 'onnxruntime'), extra='onnx'
  ),
  '.pt': _TORCH,
  '.pth': _TORCH,
  '.safetensors': Format(_write_state_dict, SAME),
  '.stablehlo': Format(_write_stablehlo, OTHER),
}


def of(path: pathlib.Path) -> Format:
  """Returns the format that a path's suffix names.

  Raises:
    ImportError: it needs a library that is absent.
    KeyError: no such format; the message names all.
    ValueError: the path has no suffix.
  """
  if not path.suffix:
    raise ValueError(
      f'{path} has no suffix, which says the format: name it {path.name}.npz,'
      f' or with another one of {", ".join(FORMATS)}'
    )
  form = lookup('format of an exported file', FORMATS, path.suffix)
  absent = [name for name in form.needs if not importlib.util.find_spec(name)]
  if absent:
    raise ImportError(
      f'{path.suffix} files need {" and ".join(absent)}: pip install'
      f" 'jaxkd[{form.extra}]'. .npz, .safetensors and .stablehlo files need"
      ' nothing more'
    )
  return form
