"""The files that finished networks are exported to, and read back from."""

import importlib.util
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxkd.catalog import lookup
from jaxkd.checkpoints import native
from jaxkd.checkpoints.card import module_of
from jaxkd.interop import export, files
from jaxkd.interop.export import Predict
from jaxkd.interop.torch import from_state_dict, to_state_dict
from jaxkd.types import Variables

Network = tuple[Predict, dict[str, Any]]  # a function of images, and its card
OURS, THEIRS = 1e-5, 1e-4  # JAX with our arrays; another compiler, or runtime


class Format(NamedTuple):
  """One kind of file.

  write: (path, module, variables, card) -> None, with no regard to what is at
    the path.
  read: path -> what there is to run.
  tolerance: how far the logits of what is read may be from those of what was
    written, in units of the largest.
  needs: libraries that are no dependencies of jaxkd.
  extra: the extra of jaxkd that they are.
  """

  write: Callable[[pathlib.Path, nn.Module, Variables, dict[str, Any]], None]
  read: Callable[[pathlib.Path], Network]
  tolerance: float
  needs: tuple[str, ...] = ()
  extra: str = ''


def _write_network(
  path: pathlib.Path, module: nn.Module, variables: Variables, card: dict
) -> None:
  del module  # which the card describes
  native.save_file(path, variables, card)


def _read_network(path: pathlib.Path) -> Network:
  variables, card = native.load_network(path)
  return _function(variables, card), card


def _write_state_dict(
  path: pathlib.Path, module: nn.Module, variables: Variables, card: dict
) -> None:
  del module  # which the card describes
  if card.get('reused'):
    raise ValueError(
      f'{path}: a network with the classifier of another one has no original in'
      ' PyTorch, whose names a state dict would have; export it as .npz, .onnx'
      ' or .stablehlo'
    )
  files.write(path, to_state_dict(variables=variables, **_named(card)), card)


def _read_state_dict(path: pathlib.Path) -> Network:
  state_dict, card = files.read(path)
  if not card:
    raise ValueError(
      f'{path} does not say which network it is, as files by --mode=export do:'
      ' convert it by `python -m jaxkd.commands.convert`'
    )
  variables = from_state_dict(state_dict=state_dict, **_named(card))
  return _function(variables, card), card


def _named(card: dict[str, Any]) -> dict[str, Any]:
  """Returns what names and settings of PyTorch's arrays follow from."""
  settings = {'width': card.get('width', 1), **card.get('settings', {})}
  return {'name': card['model'], **settings}


def _function(variables: Variables, card: dict[str, Any]) -> Predict:
  """Returns the function, in float32, that a card's module is."""
  module: Any = module_of(card, dtype=jnp.float32)
  apply = jax.jit(
    lambda variables, image: module.apply(variables, image).logits
  )

  def predict(image: np.ndarray) -> np.ndarray:
    with jax.default_matmul_precision('highest'):
      return np.asarray(apply(variables, image))

  return predict


_STATE_DICT = _write_state_dict, _read_state_dict, OURS
FORMATS = {
  '.npz': Format(_write_network, _read_network, OURS),
  '.onnx': Format(
    export.write_onnx,
    export.read_onnx,
    THEIRS,
    needs=('onnx', 'onnxruntime'),
    extra='onnx',
  ),
  '.pt': Format(*_STATE_DICT, needs=('torch',), extra='torch'),
  '.pth': Format(*_STATE_DICT, needs=('torch',), extra='torch'),
  '.safetensors': Format(*_STATE_DICT),
  '.stablehlo': Format(export.write_stablehlo, export.read_stablehlo, THEIRS),
}


def of(path: pathlib.Path) -> Format:
  """Returns the format that a path's suffix names.

  Raises:
    ImportError: it needs a library that is absent.
    KeyError: no such format, with all that there are.
  """
  found = lookup('format of an exported file', FORMATS, path.suffix)
  absent = [name for name in found.needs if not importlib.util.find_spec(name)]
  if absent:
    raise ImportError(
      f'{path.suffix} files need {" and ".join(absent)}: pip install'
      f" 'jaxkd[{found.extra}]'. .npz, .safetensors and .stablehlo files need"
      ' nothing more'
    )
  return found


def is_program(path: pathlib.Path) -> bool:
  """Is it a file that is run as it is, or converted first?

  That is any exported one but an .npz, which is a network like a run's.
  """
  return path.is_file() and path.suffix in FORMATS and path.suffix != '.npz'


def read(path: pathlib.Path) -> Network:
  """Returns what a file holds: a function of images [B, H, W, C], and its card.

  Raises:
    ImportError: a library is absent.
    KeyError: no such format.
    ValueError: the file is damaged, or not by --mode=export.
  """
  return of(path).read(path)
