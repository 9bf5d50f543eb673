"""The range of every number that a user can set.

A range is an interval, written as in mathematics: '[0, 1)' contains 0 and not
1, and no range contains NaN or an infinity. `SETTINGS` has the numbers of the
config tree, `ARGUMENTS` those of the functions whose settings a config names:
methods, objectives, schedules of weights, data sets and models. For a tuple,
the range is that of each entry.
"""

import functools
import math
import numbers
from collections.abc import Mapping
from typing import Any, NamedTuple

# JAX makes its random keys from 32 bits of a seed.
SEED = '[0, 4294967295]'
EPOCHS = '[1, 1000000]'
POSITIVE, AT_LEAST_0, AT_LEAST_1 = '(0, inf)', '[0, inf)', '[1, inf)'
BELOW_1, FRACTION = '[0, 1)', '[0, 1]'
WIDTH = '(0, 10000]'
GREATEST = 2.0**128  # from here on, float32 has infinity

SETTINGS = {
  'seed': SEED,
  'epochs': EPOCHS,
  'batch_size': AT_LEAST_1,
  'save_every_steps': AT_LEAST_0,
  'data.few_shot': AT_LEAST_0,
  'data.validation': AT_LEAST_0,
  'data.hold_out': AT_LEAST_0,
  'data.hold_out_seed': SEED,
  'data.image_size': AT_LEAST_0,
  'data.channels': '[0, 3]',
  'student.width': WIDTH,
  'student.branches': '[1, 6]',  # as many as reparam.branches has
  'student.image_size': AT_LEAST_0,
  'teacher.cache_gigabytes': POSITIVE,
  'teacher.width': WIDTH,
  'teacher.image_size': AT_LEAST_0,
  'teacher.channels': '[0, 3]',
  'teacher.mean': '(-inf, inf)',
  'teacher.std': POSITIVE,
  'teacher.scale': POSITIVE,
  'teacher.cross_entropy_epochs': AT_LEAST_0,
  'teacher.blend_epochs': AT_LEAST_0,
  'teacher.epochs': '[0, 1000000]',
  'teacher.stop': AT_LEAST_0,
  'teacher.learning_rate': AT_LEAST_0,
  'teacher.seed': SEED,
  'optimizer.learning_rate': AT_LEAST_0,
  'optimizer.rates': AT_LEAST_0,  # of every owner
  'optimizer.momentum': BELOW_1,
  'optimizer.weight_decay': AT_LEAST_0,
  'optimizer.clip_norm': AT_LEAST_0,
  'optimizer.betas': BELOW_1,
  'optimizer.eps': '(0, 1]',
  'optimizer.delta': BELOW_1,
  'optimizer.ema': BELOW_1,
  'schedule.milestones': POSITIVE,
  'schedule.factor': '(0, 1]',
  'schedule.warmup_epochs': AT_LEAST_0,
  'schedule.final': FRACTION,
  'store.seed': SEED,
  'store.top': AT_LEAST_0,
  'store.views': AT_LEAST_1,
  'study.seeds': SEED,
}

# By the name of the argument; FUNCTION.ARGUMENT takes precedence.
ARGUMENTS = {
  'alpha': AT_LEAST_0,
  'alpha_beta.alpha': '(-inf, inf)',
  'alpha_beta.beta': '(-inf, inf)',
  'angle': AT_LEAST_0,
  'batch_weight': AT_LEAST_0,
  'beta': AT_LEAST_0,
  'binary_weight': AT_LEAST_0,
  'blend_epochs': AT_LEAST_0,
  'branches': '[1, 6]',
  'channels': AT_LEAST_1,
  'checkpoint_epochs': AT_LEAST_1,
  'class_counts': AT_LEAST_0,
  'class_weight': AT_LEAST_0,
  'confidence_temperature': POSITIVE,
  'coverage': '(0, 1]',
  'cross_entropy_epochs': AT_LEAST_0,
  'dim': AT_LEAST_1,
  'dimensions': AT_LEAST_1,
  'distance': AT_LEAST_0,
  'drop_path': BELOW_1,
  'dropout': BELOW_1,
  'dropped': AT_LEAST_0,
  'end': AT_LEAST_0,
  'epoch': AT_LEAST_0,
  'epochs': EPOCHS,
  'epsilon': POSITIVE,
  'eta': '(0, 1)',
  'factor': AT_LEAST_1,
  'features': AT_LEAST_1,
  'first': AT_LEAST_0,
  'fusion': AT_LEAST_0,
  'gamma': AT_LEAST_0,
  'generations': AT_LEAST_1,
  'groups': AT_LEAST_1,
  'guide_weight': AT_LEAST_0,
  'hard_kd.labels': FRACTION,
  'hidden': AT_LEAST_1,
  'hold_out': AT_LEAST_0,
  'hold_out_seed': SEED,
  'image_size': AT_LEAST_1,
  'instance_weight': AT_LEAST_0,
  'keep': '(0, 1]',
  'label_weight': AT_LEAST_0,
  'last': AT_LEAST_0,
  'last_epsilon': POSITIVE,
  'learning_rate': AT_LEAST_0,
  'log_prior': '(-inf, inf)',
  'lowest': POSITIVE,
  'margin': AT_LEAST_0,
  'max_pixels': AT_LEAST_0,
  'members': AT_LEAST_0,
  'memory': AT_LEAST_0,
  'momentum': BELOW_1,
  'negatives': AT_LEAST_1,
  'noise': AT_LEAST_0,
  'num_classes': AT_LEAST_1,
  'patch': AT_LEAST_1,
  'positive_weight': POSITIVE,
  'positives': AT_LEAST_1,
  'pretraining_epochs': EPOCHS,
  'pretraining_rate': AT_LEAST_0,
  'primary_weight': AT_LEAST_0,
  'process_guide_weight': AT_LEAST_0,
  'process_label_weight': AT_LEAST_0,
  'process_weight': AT_LEAST_0,
  'rate': POSITIVE,
  'ratio': AT_LEAST_1,
  'reconstruction': AT_LEAST_0,
  'scale': AT_LEAST_0,
  'secondary_weight': AT_LEAST_0,
  'seed': SEED,
  'separation': AT_LEAST_0,
  'size': AT_LEAST_1,
  'smoothing': FRACTION,
  'softness': POSITIVE,
  'span': POSITIVE,
  'start': AT_LEAST_0,
  'annealed.start': POSITIVE,
  'ctkd.start': '(-inf, inf)',  # before the sigmoid
  'static_weight': AT_LEAST_0,
  'stem': AT_LEAST_1,
  'stop': AT_LEAST_0,
  'annealed.stop': POSITIVE,
  'temperature': POSITIVE,
  'temperatures': POSITIVE,
  'test_size': AT_LEAST_1,
  'train_size': AT_LEAST_1,
  'tune_epochs': EPOCHS,
  'tune_learning_rate': AT_LEAST_0,
  'validation_size': AT_LEAST_0,
  'variance': POSITIVE,
  'vid.variance': '(1e-5, inf)',
  'warmup_epochs': AT_LEAST_0,
  'weight': AT_LEAST_0,
  'white': AT_LEAST_0,
  'width': WIDTH,
  'cc.width': AT_LEAST_1,
}


class Interval(NamedTuple):
  """Numbers between two ends; `str` describes them in a message.

  low, high: the bounds; infinite if the interval is unbounded on that side.
  with_low, with_high: whether the interval contains them.

  >>> str(interval('[0, 1)')), str(interval('(0, inf)'))
  ('at least 0 and below 1', 'above 0')
  """

  low: float
  high: float
  with_low: bool
  with_high: bool

  def __contains__(self, value: float) -> bool:
    above = self.low <= value if self.with_low else self.low < value
    below = value <= self.high if self.with_high else value < self.high
    return above and below  # an end that is infinite is open

  def __str__(self) -> str:
    parts = []
    if math.isfinite(self.low):
      parts.append(
        f'{"at least" if self.with_low else "above"} {self.low:.10g}'
      )
    if math.isfinite(self.high):
      parts.append(
        f'{"at most" if self.with_high else "below"} {self.high:.10g}'
      )
    return ' and '.join(parts) or 'finite'


@functools.cache
def interval(text: str) -> Interval:
  """Returns the interval that a text such as '[0, 1)' stands for."""
  low, high = text[1:-1].split(',')
  return Interval(float(low), float(high), text[0] == '[', text[-1] == ']')


def range_of(function: str, argument: str) -> Interval | None:
  """Returns the range of a function's argument; None if none is declared."""
  text = ARGUMENTS.get(f'{function}.{argument}') or ARGUMENTS.get(argument)
  return interval(text) if text else None


def check(name: str, value: Any, within: Interval) -> None:
  """Checks a number, or each number of a sequence or mapping.

  Args:
    name: of the setting, for the message.
    value: of the setting. Anything that is no number is left to others.
    within: its range.

  Raises:
    ValueError: a number outside of its range, NaN, or infinite, in float32 too.
  """
  if isinstance(value, Mapping):
    for key, each in value.items():
      check(f'{name}.{key}', each, within)
  elif type(value) in (list, tuple):  # not the fields of a value of ours
    for place, each in enumerate(value):
      check(f'{name}[{place}]', each, within)
  elif is_real(value) and value not in within:
    raise ValueError(f'{name} must be {within}, got {value!r}')
  elif is_real(value) and abs(value) >= GREATEST:
    raise ValueError(
      f'{name} must be below {GREATEST:.1e}, where float32 has infinity, got'
      f' {value!r}'
    )


def is_real(value: Any) -> bool:
  """Returns whether a value is a number, also NaN; a boolean is not."""
  return isinstance(value, numbers.Real) and not isinstance(value, bool)
