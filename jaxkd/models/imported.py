"""Networks by import path: 'package.module:attribute'.

The attribute is a class of Linen or of nnx modules, or a function. A function
returns a Linen module, what `adapt` or `from_nnx` returns, or a function of
`rngs` that makes an nnx module; or it takes `rngs` and returns an nnx module.
"""

import hashlib
import importlib
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, cast

import flax.linen as nn
import jax.numpy as jnp
from flax import nnx
from flax.core import FrozenDict

from jaxkd.catalog import COLLECTING, UnknownNameError, suggestion
from jaxkd.models.adapt import Adapted, adapt, places
from jaxkd.models.from_nnx import FromNNX, from_nnx, parameters_of

# What every network of the catalogue takes; another one can do without where
# these are all that it is asked to be.
PLAIN = {'width': 1, 'branches': 1, 'dtype': jnp.float32}


def is_path(name: str) -> bool:
  """Is it an import path, no name of the catalogue?"""
  return ':' in name


def imported(
  name: str, num_classes: int, taps: Mapping[str, str], **settings: Any
) -> Adapted | FromNNX:
  """Returns the network at an import path.

  Args:
    name: the path.
    num_classes: K; an argument of the attribute if it takes one of that name.
    taps: name -> place, see `adapt`.
    **settings: further arguments; those in `PLAIN` only if it takes them.

  Raises:
    KeyError: the module has no such attribute, with suggestions.
    ValueError: it cannot be imported, does not take the settings, or makes
      something else than a network.
  """
  make = attribute(name)
  given = _accepted(name, make, {'num_classes': num_classes, **settings})
  if 'rngs' in parameters_of(make):
    return FromNNX(make, num_classes, places(taps), None, FrozenDict(given))
  made = make(**given)
  if isinstance(made, Adapted | FromNNX):
    if made.num_classes != num_classes:
      raise ValueError(
        f'model {name!r} is made for {made.num_classes} classes, and has to'
        f' have {num_classes}'
      )
    return made.clone(taps=FrozenDict({**made.taps, **places(taps)}))
  if isinstance(made, nn.Module):
    return adapt(made, num_classes, taps)
  if isinstance(made, nnx.Module) or not callable(made):
    raise ValueError(
      f'model {name!r} returned {made!r}; it can be a Linen module, or a'
      ' function of rngs that makes an nnx module'
    )
  return from_nnx(cast(Any, made), num_classes, taps)


def attribute(name: str) -> Callable[..., Any]:
  """Returns what an import path names.

  Raises:
    KeyError: the module has no such attribute, with suggestions.
    ValueError: it cannot be imported, or is a network already.
  """
  module, _, last = name.partition(':')
  found = vars(_module(name))
  if last not in found:
    public = [x for x in found if not x.startswith('_')]
    raise UnknownNameError(
      f'model {name!r}: {module} has no {last!r}. {suggestion(last, public)}'
    )
  if isinstance(found[last], nn.Module | nnx.Module) or not callable(
    found[last]
  ):
    raise ValueError(
      f'model {name!r} is a {type(found[last]).__name__}; name a class, or a'
      ' function that makes the network for a number of classes'
    )
  return found[last]


def source_digest(name: str) -> str:
  """Returns the SHA-256 of the file that an import path leads to."""
  path = _module(name).__file__ or ''
  return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def _module(name: str) -> Any:
  module = name.partition(':')[0]
  try:
    return importlib.import_module(module)
  except (ImportError, ValueError) as error:
    raise ValueError(
      f'model {name!r}: {module!r} cannot be imported ({error}). It has to be'
      ' installed, or to lie in the folder in which the command is run'
    ) from error


def _accepted(
  name: str, make: Callable[..., Any], given: dict[str, Any]
) -> dict[str, Any]:
  """Returns those of the given arguments that a function or class takes.

  Raises:
    ValueError: it lacks one that matters, or needs another one.
  """
  parameters = parameters_of(make)
  if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
    return given
  plain = {**PLAIN, 'num_classes': given['num_classes']}
  for key, value in given.items():
    if key not in parameters and key not in plain:
      raise ValueError(
        f'model {name!r} takes no setting {key!r}.'
        f' {suggestion(key, parameters)}'
      )
    if key not in parameters and value != plain[key]:
      raise ValueError(
        f'model {name!r} takes no {key!r}, so that it cannot be'
        f' {_text(value)} instead of {_text(plain[key])}'
      )
  for key, parameter in parameters.items():
    optional = parameter.default is not parameter.empty or key == 'rngs'
    if not (optional or key in given or parameter.kind in COLLECTING):
      raise ValueError(f'model {name!r} needs the setting {key!r}')
  return {key: value for key, value in given.items() if key in parameters}


def _text(value: Any) -> str:
  return getattr(value, '__name__', str(value))
