"""Things by name, with helpful messages, and the ranges of their settings."""

from jaxkd.catalog.names import (
  UnknownNameError,
  call,
  check_whole,
  is_number,
  is_required,
  lookup,
  suggestion,
)

__all__ = [
  'UnknownNameError',
  'call',
  'check_whole',
  'is_number',
  'is_required',
  'lookup',
  'suggestion',
]
