"""Networks that Python code passes as objects, not by name."""

import uuid
from collections.abc import Callable
from typing import Any

PREFIX = 'object'  # of their names, in the place of an import path's module

_REGISTERED: dict[str, Callable[..., Any]] = {}


def register(make: Callable[..., Any], name: str) -> str:
  """Returns a model's name, for this process, of a class or a function.

  Args:
    make: as for an import path, see `models.imported`.
    name: a Python identifier, for people.
  """
  for key, other in _REGISTERED.items():
    if other is make:
      return f'{PREFIX}:{key}'
  key = name if name not in _REGISTERED else f'{name}_{uuid.uuid4().hex[:6]}'
  _REGISTERED[key] = make
  return f'{PREFIX}:{key}'


def registered(key: str) -> Callable[..., Any]:
  """Returns what was registered under a name.

  Raises:
    ValueError: nothing was, in this process.
  """
  if key not in _REGISTERED:
    raise ValueError(
      f"model '{PREFIX}:{key}' was passed as an object to jaxkd in another"
      ' process, which does not say where its code is: put it into a module,'
      " and pass it as 'package.module:attribute'"
    )
  return _REGISTERED[key]
