"""Look-up in catalogues, and helpful messages for wrong names and settings."""

import difflib
import inspect
import math
import numbers
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from jaxkd.catalog import limits

T = TypeVar('T')
# The kinds of parameters that collect any number of arguments.
VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class UnknownNameError(KeyError):
  """An unknown name; its message is printed as it is, not as a repr."""

  def __str__(self) -> str:
    return str(self.args[0])


def suggestion(name: str, names: Iterable[str]) -> str:
  """Returns 'Did you mean ...? ' or '', followed by the list of all names."""
  names = sorted(names)
  near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
  hint = f'Did you mean {" or ".join(map(repr, near))}? ' if near else ''
  return f'{hint}Available: {", ".join(names) or "none"}'


def lookup(kind: str, catalog: Mapping[str, T], name: str) -> T:
  """Returns `catalog[name]`.

  Args:
    kind: the kind of thing that is looked up, for the message.
    catalog: named things.
    name: a key of `catalog`.

  Raises:
    UnknownNameError: not a key; a `KeyError` that lists the most similar names
      and all names.
  """
  if name not in catalog:
    raise UnknownNameError(f'no {kind} {name!r}. {suggestion(name, catalog)}')
  return catalog[name]


def is_number(value: Any) -> bool:
  """Returns whether a value is a finite real number; a boolean is not."""
  real = isinstance(value, numbers.Real) and not isinstance(value, bool)
  return real and math.isfinite(value)


def check_whole(owner: str, name: str, value: Any, least: int = 1) -> None:
  """Checks that a setting is a whole number of at least `least`.

  Args:
    owner: the function or object that has the setting, for the message.
    name: the setting's name.
    value: the setting's value.
    least: the smallest allowed value.

  Raises:
    ValueError: not a whole number, or below `least`.
  """
  whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
  if not whole or value < least:
    raise ValueError(
      f'{owner}: {name} must be a whole number of at least {least}, got'
      f' {value!r}'
    )


def call(kind: str, function: Callable[..., T], arguments: dict[str, Any]) -> T:
  """Returns `function(**arguments)`, whose arguments are settings of a user.

  Args:
    kind: the function's name in messages, such as 'method kd'.
    function: the function.
    arguments: keyword arguments.

  Raises:
    ValueError: a setting is unknown (with suggestions) or missing, of another
      type than its annotation, or outside of its range in `limits.ARGUMENTS`.
  """
  parameters = inspect.signature(function).parameters
  owner = getattr(getattr(function, 'func', function), '__name__', '')
  for name in arguments:
    if name not in parameters:
      raise ValueError(
        f'{kind} takes no setting {name!r}. {suggestion(name, parameters)}'
      )
  for name, parameter in parameters.items():
    if is_required(parameter) and name not in arguments:
      raise ValueError(f'{kind} needs the setting {name!r}')
  for name, value in arguments.items():
    _check_type(f'{kind}: {name}', value, parameters[name].annotation)
    within = limits.range_of(owner, name) or limits.interval('(-inf, inf)')
    limits.check(f'{kind}: {name}', value, within)
  return function(**arguments)


# By annotation: what messages call it, and what is accepted.
TYPES = {
  bool: ('True or False', bool),  # 'false' would be true
  float: ('a number', numbers.Real),
  int: ('a whole number', numbers.Integral),
  str: ('a string', str),
}


def _check_type(name: str, value: Any, annotation: Any) -> None:
  """Raises ValueError for a value that an annotation of `TYPES` excludes."""
  union = isinstance(annotation, types.UnionType)
  kinds = typing.get_args(annotation) if union else (annotation,)
  wanted = [x for x in kinds if x is not type(None)]
  if len(wanted) > 1 or wanted[0] not in TYPES or hasattr(value, 'shape'):
    return  # an array's numbers may be traced
  if value is None and len(kinds) > 1:
    return
  words, kind = TYPES[wanted[0]]
  number = isinstance(value, bool) and kind is not bool
  if number or not isinstance(value, kind):
    raise ValueError(f'{name} must be {words}, got {value!r}')


def is_required(parameter: inspect.Parameter) -> bool:
  """Returns whether a function cannot be called without a parameter."""
  has_default = parameter.default is not parameter.empty
  return not has_default and parameter.kind not in VARIADIC
