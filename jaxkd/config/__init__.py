"""The settings of runs: the tree that config files fill, checks, records."""

from jaxkd.config.checks import (
  check,
  check_lengths,
  check_start,
  check_teacher,
  teacher_stop,
)
from jaxkd.config.tree import (
  BAYES,
  FREE,
  LIGHT,
  LIGHT_RATE,
  PLACES,
  REQUIRED,
  Config,
  as_json,
  benchmark,
  default,
  differing,
  flat,
  method_settings,
  missing,
  resolved,
)

__all__ = [
  'BAYES',
  'FREE',
  'LIGHT',
  'LIGHT_RATE',
  'PLACES',
  'REQUIRED',
  'Config',
  'as_json',
  'benchmark',
  'check',
  'check_lengths',
  'check_start',
  'check_teacher',
  'default',
  'differing',
  'flat',
  'method_settings',
  'missing',
  'resolved',
  'teacher_stop',
]
