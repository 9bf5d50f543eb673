"""Networks by import path: 'package.module:attribute'.

The attribute is a class of Linen or of nnx modules, or a function. A function
returns a Linen module, the result of `adapt` or `from_nnx`, or a function of
`rngs` that returns an nnx module; or it takes `rngs` and returns an nnx module.
"""

import hashlib
import importlib
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, cast

import flax.linen as nn
import jax.numpy as jnp
from flax import nnx
from flax.core import FrozenDict

from jaxkd.catalog import UnknownNameError, is_required, suggestion
from jaxkd.models.adapt import Adapted, adapt, locations
from jaxkd.models.from_nnx import FromNNX, from_nnx, parameters_of
from jaxkd.models.registered import PREFIX, registered

# Settings that every network of the catalogue takes. Other networks need not
# take them as long as they have these values.
DEFAULTS = {'width': 1, 'branches': 1, 'dtype': jnp.float32}


def is_path(name: str) -> bool:
  """Returns whether a model's name is an import path, not a catalogue name."""
  return ':' in name


def imported(
  name: str, num_classes: int, taps: Mapping[str, str], **settings: Any
) -> Adapted | FromNNX:
  """Returns the network at an import path.

  Args:
    name: the import path.
    num_classes: K; passed to the attribute if it takes an argument of that
      name.
    taps: name -> location, see `adapt`.
    **settings: further arguments; those in `DEFAULTS` are passed only if it
      takes them.

  Raises:
    KeyError: the module has no such attribute, with suggestions.
    ValueError: it cannot be imported, does not take the settings, or does not
      return a network.
  """
  make = attribute(name)
  arguments = _accepted(name, make, {'num_classes': num_classes, **settings})
  if 'rngs' in parameters_of(make):
    taps = locations(taps)
    return FromNNX(make, num_classes, taps, None, FrozenDict(arguments))
  network = make(**arguments)
  if isinstance(network, Adapted | FromNNX):
    if network.num_classes != num_classes:
      raise ValueError(
        f'model {name!r} must have {num_classes} classes, got'
        f' {network.num_classes}'
      )
    return network.clone(taps=FrozenDict({**network.taps, **locations(taps)}))
  if isinstance(network, nn.Module):
    return adapt(network, num_classes, taps)
  if isinstance(network, nnx.Module) or not callable(network):
    raise ValueError(
      f'model {name!r} must return a Linen module or a function of rngs that'
      f' returns an nnx module, got {network!r}'
    )
  return from_nnx(cast(Any, network), num_classes, taps)


def attribute(name: str) -> Callable[..., Any]:
  """Returns the class or function at an import path.

  Raises:
    KeyError: the module has no such attribute, with suggestions.
    ValueError: the module cannot be imported, or the attribute is an instance.
  """
  module, _, last = name.partition(':')
  if module == PREFIX:
    return registered(last)
  attributes = vars(_module(name))
  if last not in attributes:
    public = [x for x in attributes if not x.startswith('_')]
    raise UnknownNameError(
      f'model {name!r}: {module} has no {last!r}. {suggestion(last, public)}'
    )
  make = attributes[last]
  if isinstance(make, nn.Module | nnx.Module) or not callable(make):
    raise ValueError(
      f'model {name!r} is a {type(make).__name__}; name a class, or a'
      ' function that returns a network for a number of classes'
    )
  return make


def source_digest(name: str) -> str:
  """Returns the SHA-256 of the source file of an import path."""
  module, _, last = name.partition(':')
  if module == PREFIX:  # a notebook's code, which can be any other tomorrow
    return f'{PREFIX} {id(registered(last))} of process {os.getpid()}'
  path = _module(name).__file__ or ''
  return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def _module(name: str) -> Any:
  module = name.partition(':')[0]
  try:
    return importlib.import_module(module)
  except (ImportError, ValueError) as error:
    raise ValueError(
      f'model {name!r}: {module!r} cannot be imported ({error}). Install it, or'
      ' run the command in the folder that contains it'
    ) from error


def _accepted(
  name: str, make: Callable[..., Any], settings: dict[str, Any]
) -> dict[str, Any]:
  """Returns the settings that a function or class takes as arguments.

  Raises:
    ValueError: it does not take a setting that is not at its default, or needs
      another one.
  """
  parameters = parameters_of(make)
  if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
    return settings
  defaults = {**DEFAULTS, 'num_classes': settings['num_classes']}
  for key, value in settings.items():
    if key not in parameters and key not in defaults:
      raise ValueError(
        f'model {name!r} takes no setting {key!r}.'
        f' {suggestion(key, parameters)}'
      )
    if key not in parameters and value != defaults[key]:
      raise ValueError(
        f'model {name!r} takes no {key!r}, so it must be'
        f' {_text(defaults[key])}, got {_text(value)}'
      )
  for key, parameter in parameters.items():
    if key != 'rngs' and key not in settings and is_required(parameter):
      raise ValueError(f'model {name!r} needs the setting {key!r}')
  return {key: value for key, value in settings.items() if key in parameters}


def _text(value: Any) -> str:
  return getattr(value, '__name__', str(value))
