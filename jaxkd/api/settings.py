"""From Python objects to settings of the config."""

import os
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
from flax import nnx
from ml_collections import ConfigDict

from jaxkd import checkpoints, disk, models
from jaxkd import data as datasets
from jaxkd.api.networks import Network
from jaxkd.catalog import UnknownNameError, suggestion
from jaxkd.config import Config
from jaxkd.data.base import Dataset
from jaxkd.runs.experiment import Source

PathLike = str | os.PathLike[str]


def apply(
  config: Config,
  networks: Mapping[str, Any],
  method_: str | Mapping[str, Any],
  source: Source,
  others: Mapping[str, Any],
) -> None:
  """Changes a config by arguments of a call; None leaves a setting as it is.

  Args:
    config: to be changed.
    networks: by section, see `network`.
    method_: see `method`.
    source: the data.
    others: further sections and settings, see `put`.
  """
  config.method = method(method_)
  for key, value in others.items():
    if value is not None:
      put(config, key, value)
  for role, value in networks.items():
    if value is not None:
      put(config, role, network(role, value, source))


def put(config: Config, key: str, value: Any) -> None:
  """Sets a section or a setting of a config.

  Args:
    config: to be changed.
    key: of a section or a setting; its dots separate levels.
    value: of a setting; a mapping changes single settings of a section.

  Raises:
    KeyError: no such section or setting, with suggestions.
  """
  section, _, rest = key.partition('.')
  if section not in config:
    raise UnknownNameError(
      f'no setting {section!r}. {suggestion(section, config.keys())}'
    )
  if rest:
    put(config[section], rest, value)
  elif isinstance(value, Mapping) and isinstance(config[section], ConfigDict):
    if section in ('settings', 'taps', 'rates'):  # whose keys are free
      config[section] = ConfigDict(dict(value))
    else:
      for name, each in value.items():
        put(config[section], name, each)
  else:
    config[section] = value


def method(value: str | Mapping[str, Any]) -> dict[str, Any]:
  """Returns the section `method` of a method's name, or of a mapping."""
  if isinstance(value, str):
    return {'name': value}
  if 'name' not in value:
    raise ValueError(
      "method must be a name, or a mapping like {'name': 'kd', 'temperature':"
      f' 2.0}}, got {dict(value)}'
    )
  return dict(value)


def network(role: str, value: Any, source: Source) -> dict[str, Any]:
  """Returns settings of the section of a network.

  Args:
    role: 'teacher' or 'student', for messages.
    value: see `jaxkd.distill`.
    source: the data, whose classes and images a module with variables is for.

  Raises:
    KeyError: neither an architecture nor a path, with suggestions.
    ValueError: something else.
  """
  if isinstance(value, Mapping):
    return dict(value)
  if isinstance(value, Network):
    return _of_checkpoint(value.path)
  if isinstance(value, tuple) and len(value) == 2:
    return _of_variables(role, *value, source)
  if isinstance(value, str) and _is_architecture(value):
    return {'name': value}
  if isinstance(value, str | os.PathLike):
    return _of_path(role, value)
  if callable(value):
    return {'name': _registered(value)}
  raise ValueError(
    f'{role} must be an architecture, a path, a network, a module, a pair'
    f' (module, variables) or a mapping, got {value!r}'
  )


def _is_architecture(name: str) -> bool:
  return name in models.CATALOG or models.is_path(name)


def _of_path(role: str, value: PathLike) -> dict[str, Any]:
  """Returns the settings of a checkpoint's path."""
  path = disk.expanded(value)
  if not path.exists():
    raise UnknownNameError(
      f'{role}={os.fspath(value)!r} is neither a path nor an architecture.'
      f' {suggestion(os.fspath(value), models.CATALOG)}'
    )
  return _of_checkpoint(path)


def _of_checkpoint(path: pathlib.Path) -> dict[str, Any]:
  """Returns the settings of a checkpoint, of its card or of its file's name."""
  card = checkpoints.load_card(path)
  if card is not None:
    own = {'name': card.model, 'width': card.width, 'settings': card.settings}
    return {**own, 'checkpoint': str(path)}
  named = [name for name in models.CATALOG if path.stem.startswith(name)]
  if not named:
    raise ValueError(
      f'{path} does not name its architecture: pass a mapping like'
      f" {{'name': 'resnet20', 'checkpoint': {str(path)!r}}}"
    )
  return {'name': max(named, key=len), 'checkpoint': str(path)}


def _of_variables(
  role: str, module: Any, variables: Any, source: Source
) -> dict[str, Any]:
  """Returns the settings of a module with its variables, which are saved."""
  name = network(role, module, source).get('name', '')
  if not models.is_path(name):
    raise ValueError(
      f'{role} must be a pair (module, variables), got {module!r} first'
    )
  path = pathlib.Path(tempfile.mkdtemp(prefix='jaxkd-')) / role
  checkpoints.save_pretrained(
    path, name, dict(variables), source.num_classes, source.image_shape
  )
  return {'name': name, 'checkpoint': str(path)}


def _registered(module: Any) -> str:
  """Returns the name of a module, a class or a function of networks.

  Raises:
    ValueError: an instance of an nnx module, whose arrays it holds itself.
  """
  if isinstance(module, nnx.Module):
    raise ValueError(
      f'pass the class {type(module).__name__} or a function of rngs that'
      ' returns the nnx module; for its arrays, the pair of that and'
      ' jaxkd.models.nnx_variables(module)'
    )
  if isinstance(module, nn.Module):
    return models.register(lambda: module, type(module).__name__)
  return models.register(module, getattr(module, '__name__', 'network'))


def data(value: Any) -> tuple[dict[str, Any], Dataset | None]:
  """Returns settings of the section `data`, and the data if in memory.

  Args:
    value: see `jaxkd.distill`.
  """
  if isinstance(value, Dataset):
    return {'name': value.name}, value
  if isinstance(value, Mapping):
    return dict(value), None
  if isinstance(value, tuple):
    several = isinstance(value[0], tuple | list)
    train, test = value if several else (value, None)
    dataset = datasets.arrays(train, test)
    return {'name': dataset.name}, dataset
  if isinstance(value, str | os.PathLike):
    text = os.fspath(value)
    is_name = text.partition(':')[0] in datasets.CATALOG
    if not is_name and disk.expanded(text).is_dir():
      text = f'folder:{text}'
    return {'name': text}, None
  raise ValueError(
    'data must be the name of a data set, a folder, arrays (images, labels), a'
    f' Dataset or a mapping, got {type(value).__name__}'
  )
