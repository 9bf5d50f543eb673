"""Files of state dicts, read by their content and written by their suffix."""

import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from jaxkd.catalog import lookup
from jaxkd.disk import CARD, json_text, replacing
from jaxkd.interop import contents, hugging_face, torch_file
from jaxkd.interop.entries import entries

StateDict = dict[str, np.ndarray]
STATE_DICT = 'state_dict'  # its key beside the card in a .pth file
# Types of the numbers of .safetensors files.
DTYPES = {
  'BF16': ml_dtypes.bfloat16,
  'F8_E4M3': ml_dtypes.float8_e4m3fn,
  'F8_E5M2': ml_dtypes.float8_e5m2,
  'BOOL': np.bool_,
  'C64': np.complex64,
  **{f'F{bits}': np.dtype(f'float{bits}') for bits in (16, 32, 64)},
  **{f'I{bits}': np.dtype(f'int{bits}') for bits in (8, 16, 32, 64)},
  **{f'U{bits}': np.dtype(f'uint{bits}') for bits in (8, 16, 32, 64)},
}


def read(path: pathlib.Path) -> tuple[Any, dict[str, Any]]:
  """Reads a state dict, or a checkpoint with one in it.

  Args:
    path: of the file, or the folder of a network of Hugging Face.

  Returns:
    The state dict, or a checkpoint with it, as `from_state_dict` takes it; and
    the network's card if jaxkd has written the file, what is known for a card
    in a folder of Hugging Face, {} otherwise.

  Raises:
    FileNotFoundError: there is nothing, or a file of a folder is missing.
    ValueError: the file is corrupt or none of a state dict; the message says
      what it is.
  """
  content = contents.of(path)
  if content is None:
    raise FileNotFoundError(f'no such file: {path}')
  if content.format not in READERS:
    raise ValueError(content.refusal(path))
  return READERS[content.format](path)


def read_card(path: pathlib.Path) -> dict[str, Any]:
  """Returns what `read` returns for a card, without reading arrays.

  Raises:
    FileNotFoundError, ValueError: see `read`.
  """
  content = contents.of(path)
  if content and content.format == 'hugging_face':
    return hugging_face.card(path)
  return read(path)[1]


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


def _read_torch(path: pathlib.Path) -> tuple[Any, dict[str, Any]]:
  content = torch_file.read(path)
  if type(content).__module__.startswith('__torch__') and not entries(content):
    raise ValueError(
      f'{path} is a frozen program of TorchScript, without parameters: save the'
      ' state_dict() of the module that it was made of by torch.save'
    )
  card = content.get(CARD, '{}') if isinstance(content, dict) else '{}'
  return content, json.loads(card)


def _torch() -> Any:
  try:
    import torch
  except ImportError as error:
    raise ImportError(
      "PyTorch writes .pth files: pip install 'jaxkd[torch]'. Or write"
      ' .safetensors or .npz, which need no PyTorch'
    ) from error
  return torch


def _write_torch(path: pathlib.Path, state_dict: StateDict, card: str) -> None:
  torch = _torch()
  tensors = {name: torch.from_numpy(x) for name, x in state_dict.items()}
  torch.save({STATE_DICT: tensors, CARD: card}, path)


def _read_safetensors(path: pathlib.Path) -> tuple[StateDict, dict[str, Any]]:
  from safetensors import SafetensorError, safe_open

  try:
    with safe_open(path, 'numpy') as file:  # checks all sizes
      card = json.loads((file.metadata() or {}).get(CARD, '{}'))
  except SafetensorError as error:
    raise ValueError(f'{path} is corrupt: {error}') from error
  with path.open('rb') as file:  # the library returns no 8-bit numbers
    size = int.from_bytes(file.read(8), 'little')
    header = json.loads(file.read(size))
  content = np.memmap(path, np.uint8, mode='r')[8 + size :]
  header.pop('__metadata__', None)
  odd = {k: x['dtype'] for k, x in header.items() if x['dtype'] not in DTYPES}
  if odd:
    name, dtype = next(iter(odd.items()))
    raise ValueError(
      f'{path} has numbers of type {dtype}, in {name}: quantised networks are'
      ' not read. Save it before it is quantised'
    )
  arrays = {}
  for name, entry in header.items():
    first, last = entry['data_offsets']
    numbers = content[first:last].view(DTYPES[entry['dtype']])
    arrays[name] = numbers.reshape(entry['shape'])
  return arrays, card


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
  except torch_file.DAMAGE as error:
    raise ValueError(
      f'{path} is corrupt, or holds more than arrays: {error}'
    ) from error


def _write_numpy(path: pathlib.Path, state_dict: StateDict, card: str) -> None:
  del card  # with one it would be a network of jaxkd
  with path.open('wb') as file:
    np.savez(file, allow_pickle=False, **state_dict)


def _read_folder(path: pathlib.Path) -> tuple[Any, dict[str, Any]]:
  return hugging_face.read(path, lambda part: read(part)[0])


READERS: dict[str, Callable[[pathlib.Path], tuple[Any, dict[str, Any]]]] = {
  'hugging_face': _read_folder,
  'npz': _read_numpy,
  'safetensors': _read_safetensors,
  'torch': _read_torch,
}
WRITERS: dict[str, Callable[..., None]] = {
  '.npz': _write_numpy,
  '.pt': _write_torch,
  '.pth': _write_torch,
  '.safetensors': _write_safetensors,
}
