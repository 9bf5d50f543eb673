"""Files of state dicts: .pth and .pt, .safetensors, .npz."""

import argparse
import json
import pathlib
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxkd.catalog import lookup
from jaxkd.disk import CARD, json_text, replacing

StateDict = dict[str, np.ndarray]
STATE_DICT = 'state_dict'  # its key beside the card in a .pth file


def is_state_dict(path: pathlib.Path) -> bool:
  """Returns whether a path is a state dict, not a network of jaxkd."""
  if not path.is_file() or path.suffix not in READERS:
    return False
  if path.suffix != '.npz' or not zipfile.is_zipfile(path):
    return path.suffix != '.npz'
  with zipfile.ZipFile(path) as file:
    return CARD not in file.namelist()


def read(path: pathlib.Path) -> tuple[Mapping[str, Any], dict[str, Any]]:
  """Reads a state dict, or a checkpoint with one in it.

  Args:
    path: of the file, whose suffix is its format.

  Returns:
    The state dict, or a checkpoint with it, as `from_state_dict` takes it; and
    the network's card if jaxkd has written the file, {} otherwise.

  Raises:
    KeyError: another suffix.
    ImportError: PyTorch is needed and absent.
    ValueError: the file is corrupt, or holds more than arrays.
  """
  reader = lookup('suffix of a state dict', READERS, path.suffix)
  return reader(path)


def write(
  path: pathlib.Path, state_dict: StateDict, card: Mapping[str, Any]
) -> None:
  """Writes a state dict and a card, whole or not at all.

  A .pth file is a dict with 'state_dict' and, under 'network.json', the card's
  JSON; a .safetensors file has that in its metadata, an .npz nowhere.

  Args:
    path: of the file, whose suffix is its format; its folder is made if need
      be.
    state_dict: as `to_state_dict` returns it.
    card: JSON-able; `read` returns it.

  Raises:
    KeyError: another suffix.
    ImportError: PyTorch is needed and absent.
  """
  writer = lookup('suffix of a state dict', WRITERS, path.suffix)
  path.parent.mkdir(parents=True, exist_ok=True)
  with replacing(path) as partial:
    writer(partial, state_dict, json_text(card))


def _torch() -> Any:
  try:
    import torch
  except ImportError as error:
    raise ImportError(
      "PyTorch reads and writes .pth files: pip install 'jaxkd[torch]'. Or save"
      ' the state dict as .safetensors or .npz, which need no PyTorch'
    ) from error
  return torch


def _read_torch(path: pathlib.Path) -> tuple[Mapping[str, Any], dict[str, Any]]:
  torch = _torch()
  try:
    with torch.serialization.safe_globals(_harmless()):
      content = torch.load(path, map_location='cpu', weights_only=True)
  except FileNotFoundError:
    raise
  except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
    foreign = re.search(r'Unsupported global: GLOBAL (\S+)', str(error))
    if foreign is None:
      raise ValueError(f'{path} is corrupt, or not a PyTorch file') from error
    raise ValueError(
      f'{path} holds a {foreign[1]}, but only arrays and numbers are read,'
      ' since anything else could run code. If you trust it, load it in PyTorch'
      " and save the module's state_dict() alone"
    ) from error
  if not isinstance(content, Mapping):
    raise ValueError(
      f'{path} holds a {type(content).__name__}, expected a state dict or a'
      ' checkpoint with one'
    )
  return content, json.loads(content.get(CARD, '{}'))


def _harmless() -> list[Any]:
  """Returns types that training codes save beside arrays, such as flags."""
  scalar, _ = np.float64(0).__reduce__()
  return [
    argparse.Namespace,
    np.dtype,
    np.dtypes.Float32DType,
    np.dtypes.Float64DType,
    np.dtypes.Int64DType,
    (scalar, 'numpy.core.multiarray.scalar'),  # its name in NumPy 1
    (scalar, 'numpy._core.multiarray.scalar'),
  ]


def _write_torch(path: pathlib.Path, state_dict: StateDict, card: str) -> None:
  torch = _torch()
  tensors = {name: torch.from_numpy(x) for name, x in state_dict.items()}
  torch.save({STATE_DICT: tensors, CARD: card}, path)


def _read_safetensors(path: pathlib.Path) -> tuple[StateDict, dict[str, Any]]:
  from safetensors import SafetensorError, safe_open

  try:
    with safe_open(path, 'numpy') as file:
      arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
      return arrays, json.loads((file.metadata() or {}).get(CARD, '{}'))
  except SafetensorError as error:
    raise ValueError(f'{path} is corrupt: {error}') from error


def _write_safetensors(
  path: pathlib.Path, state_dict: StateDict, card: str
) -> None:
  from safetensors.numpy import save

  # Its `save_file` makes files that only their owner may read.
  path.write_bytes(save(state_dict, {'format': 'pt', CARD: card}))


def _read_numpy(path: pathlib.Path) -> tuple[StateDict, dict[str, Any]]:
  try:
    with path.open('rb') as stream, np.load(stream) as file:
      return {name: file[name] for name in file.files}, {}
  except (zipfile.BadZipFile, ValueError, EOFError) as error:
    raise ValueError(f'{path} is corrupt: {error}') from error


def _write_numpy(path: pathlib.Path, state_dict: StateDict, card: str) -> None:
  del card  # with one it would be a network of jaxkd
  with path.open('wb') as file:
    np.savez(file, allow_pickle=False, **state_dict)


READERS: dict[str, Callable[..., tuple[Mapping[str, Any], dict[str, Any]]]] = {
  '.npz': _read_numpy,
  '.pt': _read_torch,
  '.pth': _read_torch,
  '.safetensors': _read_safetensors,
}
WRITERS: dict[str, Callable[..., None]] = {
  '.npz': _write_numpy,
  '.pt': _write_torch,
  '.pth': _write_torch,
  '.safetensors': _write_safetensors,
}
