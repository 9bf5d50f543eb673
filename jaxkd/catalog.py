"""Literal dicts of named things, and helpful answers to wrong settings."""

import difflib
import inspect
import math
import numbers
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

T = TypeVar('T')
COLLECTING = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class UnknownNameError(KeyError):
  """A name that is in no catalogue; prints as a sentence, not as a repr."""

  def __str__(self) -> str:
    return str(self.args[0])


def suggestion(name: str, known: Iterable[str]) -> str:
  """Returns 'Did you mean ...? ' or '', then the list of all names."""
  known = sorted(known)
  near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
  hint = f'Did you mean {" or ".join(map(repr, near))}? ' if near else ''
  return f'{hint}Known: {", ".join(known)}'


def lookup(kind: str, catalog: Mapping[str, T], name: str) -> T:
  """Returns `catalog[name]`.

  Raises:
    UnknownNameError: a `KeyError` that names `kind`, the nearest names, and all
      of them.
  """
  if name not in catalog:
    raise UnknownNameError(f'no {kind} {name!r}. {suggestion(name, catalog)}')
  return catalog[name]


def is_number(value: Any) -> bool:
  """Is it a finite real number? (A boolean is none.)"""
  real = isinstance(value, numbers.Real) and not isinstance(value, bool)
  return real and math.isfinite(value)


def check_whole(owner: str, name: str, value: Any, least: int = 1) -> None:
  """Refuses a count that is no whole number, or too small.

  Args:
    owner: whose setting it is, for the message.
    name: of the setting.
    value: what somebody has set it to.
    least: the smallest number that can be.

  Raises:
    ValueError: with all of these.
  """
  whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
  if not whole or value < least:
    raise ValueError(
      f'{owner} has {name}={value!r}: expected a whole number, {least} or more'
    )


def call(kind: str, function: Callable[..., T], arguments: dict[str, Any]) -> T:
  """Returns `function(**arguments)`, explaining an argument it does not take.

  Raises:
    ValueError: an argument is unknown (with suggestions) or missing.
  """
  parameters = inspect.signature(function).parameters
  for name in arguments:
    if name not in parameters:
      raise ValueError(
        f'{kind} takes no setting {name!r}. {suggestion(name, parameters)}'
      )
  for name, parameter in parameters.items():
    variable = parameter.kind in (
      parameter.VAR_POSITIONAL,
      parameter.VAR_KEYWORD,
    )
    needed = parameter.default is parameter.empty and not variable
    if needed and name not in arguments:
      raise ValueError(f'{kind} needs the setting {name!r}')
  return function(**arguments)
