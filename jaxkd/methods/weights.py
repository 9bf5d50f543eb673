"""Weights of transfers that change during training.

Each is a function (epoch, epochs) of the epoch, a float32 scalar, continuous
from 0, and of the length of the phase. Printed, it describes itself. `make`
reads weights from a config.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

from jaxkd.catalog import call, check_whole, is_number, lookup
from jaxkd.graph import Weight
from jaxkd.types import Array

Spec = Weight | Mapping[str, Any]
BENCHMARK = 'benchmark'  # the weight of an objective in `objectives.PUBLISHED`


def _linear(start: float, stop: float, done: Array) -> Array:
  return (1 - done) * start + done * stop


def _cosine(start: float, stop: float, done: Array) -> Array:
  return _linear(start, stop, (1 - jnp.cos(jnp.pi * done)) / 2)


def _exponential(start: float, stop: float, done: Array) -> Array:
  return start ** (1 - done) * stop**done


# (start, stop, fraction of the change, 0 to 1) -> weight.
SHAPES = {'cosine': _cosine, 'exponential': _exponential, 'linear': _linear}


@dataclasses.dataclass(frozen=True)
class Ramp:
  """From one weight to another; constant before and after.

  As for milestones of the learning rate, `first` and `last` are fractions of
  the phase if below 1, and epochs from 1 on.

  start: the weight up to `first`.
  stop: the weight from `last` on.
  first: when it begins to change.
  last: when the change is complete; if equal to `first`, the weight jumps
    there; None is the end of the phase.
  shape: of the change, a key of `SHAPES`.

  Raises:
    KeyError: no such shape.
    ValueError: it would begin before the phase, or end before it begins; an
      exponential ramp that is not between positive weights.

  >>> str(Ramp(1.0, 0.0, 10, 20)), str(Ramp(0.0, 0.5, 10, 10))
  ('1 to 0, epochs 10 to 20', '0 to 0.5, epoch 10')
  >>> str(Ramp(0.9, 0.0, first=0.5, shape='cosine'))
  '0.9 to 0 (cosine), from 0.5 to the end'
  """

  start: float
  stop: float
  first: float = 0.0
  last: float | None = None
  shape: str = 'linear'

  def __post_init__(self):
    lookup('shape of a ramp', SHAPES, self.shape)
    if self.shape == 'exponential' and min(self.start, self.stop) <= 0:
      raise ValueError(
        'the weights of an exponential ramp must be above 0, got'
        f' {self.start:g} to {self.stop:g}: end at a small one, or take a'
        ' cosine'
      )
    if self._in_epochs:
      self._between(0)

  def __call__(self, epoch: Array, epochs: int) -> Array:
    """Returns the weight at an epoch of a phase, float32.

    Raises:
      ValueError: in a phase of this length it would end before it begins, or
        after the phase.
    """
    first, last = self._between(epochs)
    if last > epochs:
      raise ValueError(
        f'a ramp of a weight must end within the {epochs} epochs of its phase,'
        f' got {last:g} ({self}): give fractions of the phase, below 1'
      )
    span = last - first
    since = epoch - first
    done = jnp.clip(since / span, 0, 1) if span else jnp.where(since < 0, 0, 1)
    return SHAPES[self.shape](self.start, self.stop, done)

  def __str__(self) -> str:
    shape = '' if self.shape == 'linear' else f' ({self.shape})'
    return f'{self.start:g} to {self.stop:g}{shape}, {self._when()}'

  @property
  def _in_epochs(self) -> bool:
    """Whether both ends are epochs, whatever the length of the phase."""
    return all(x is not None and not 0 < x < 1 for x in (self.first, self.last))

  def _between(self, epochs: int) -> tuple[float, float]:
    """Returns the epochs between which the weight changes."""
    first, last = (
      when * epochs if 0 < when < 1 else when
      for when in (self.first, epochs if self.last is None else self.last)
    )
    if not 0 <= first <= last:
      raise ValueError(
        'a ramp must begin at 0 or later and not end before it begins, got'
        f' epoch {first:g} to epoch {last:g} ({self})'
      )
    return first, last

  def _when(self) -> str:
    first = f'{self.first:g}'
    last = 'the end' if self.last is None else f'{self.last:g}'
    if self._in_epochs:
      return f'epoch {first}' if first == last else f'epochs {first} to {last}'
    return f'at {first}' if first == last else f'from {first} to {last}'


@dataclasses.dataclass(frozen=True)
class WarmUp:
  """A weight that grows linearly over the first epochs, in steps of an epoch.

  weight: the final weight.
  epochs: how many it takes. In the first, the weight is already 1 / epochs of
    the final one, as in the published code of DKD (Zhao et al., CVPR 2022,
    https://arxiv.org/abs/2203.08679).

  Raises:
    ValueError: the number of epochs is not whole, or below one.

  >>> str(WarmUp(0.9, 20))
  '0.9 after 20 epochs'
  """

  weight: float
  epochs: int

  def __post_init__(self):
    check_whole('a warm-up', 'epochs', self.epochs)

  def __call__(self, epoch: Array, epochs: int) -> Array:
    """Returns the weight at an epoch of a phase, float32.

    Raises:
      ValueError: the phase ends before the weight is reached.
    """
    if self.epochs > epochs:
      raise ValueError(
        f'a warm-up of a weight must be at most the {epochs} epochs of its'
        f' phase, got {self.epochs} ({self}): set warmup_epochs, or the'
        ' schedule, to fewer'
      )
    return self.weight * jnp.minimum((jnp.floor(epoch) + 1) / self.epochs, 1)

  def __str__(self) -> str:
    return f'{self.weight:g} after {self.epochs} epochs'


def warm_up(weight: float, epochs: int) -> float | WarmUp:
  """Returns the weight, warmed up over some epochs, or itself for 0 epochs.

  Raises:
    ValueError: the number of epochs is not whole, or negative.
  """
  check_whole('a weight', 'warmup_epochs', epochs, least=0)
  return WarmUp(weight, epochs) if epochs else weight


@dataclasses.dataclass(frozen=True)
class Product:
  """The product of two weights, of which at least one changes."""

  first: Weight
  second: Weight

  def __call__(self, epoch: Array, epochs: int) -> Array:
    """Returns the weight at an epoch of a phase, float32."""
    first, second = (
      x(epoch, epochs) if callable(x) else jnp.float32(x)
      for x in (self.first, self.second)
    )
    return first * second

  def __str__(self) -> str:
    parts = (
      f'({x})' if callable(x) else f'{x:g}' for x in (self.first, self.second)
    )
    return ' x '.join(parts)


def times(first: Weight, second: Weight) -> Weight:
  """Returns the product of two weights; numbers stay numbers."""
  if not (callable(first) or callable(second)):
    return first * second
  if 1.0 in (first, second):
    return second if first == 1.0 else first
  return Product(first, second)


def _ramp(shape: str) -> Callable[..., Ramp]:
  def ramp(
    start: float, end: float, first: float = 0.0, last: float | None = None
  ) -> Ramp:
    return Ramp(start, end, first, last, shape)

  return ramp


def _step(start: float, end: float, epoch: float) -> Ramp:
  return Ramp(start, end, epoch, epoch)


SCHEDULES: dict[str, Callable[..., Weight]] = {
  'constant': lambda weight: weight,
  'cosine': _ramp('cosine'),
  'exponential': _ramp('exponential'),
  'linear': _ramp('linear'),
  'step': _step,
  'warm_up': WarmUp,
}


def as_number(what: str, value: Any) -> float:
  """Returns a value that can be a weight, or a number of its schedule.

  Args:
    what: name of the setting, for the message.
    value: its value.

  Raises:
    ValueError: it is not a number, negative, or not finite.
  """
  if is_number(value) and value >= 0:
    return value
  hint = ''
  if value == BENCHMARK:
    hint = ": 'benchmark' is for the weights of single objectives"
  raise ValueError(
    f'{what} must be a finite number, 0 or more, got {value!r}{hint}'
  )


def make(spec: Spec, warmup_epochs: int = 0) -> Weight:
  """Returns a weight from its config.

  Args:
    spec: a weight; or a mapping with a key of `SCHEDULES` under 'schedule' and
      its arguments:
        cosine, exponential, linear  start, end, and between which epochs:
                                     first (0), last (the end of the phase)
        step                         start, end, epoch
        warm_up                      weight, epochs
        constant                     weight
      Below 1, first, last and epoch are fractions of the phase.
      No number is negative.
    warmup_epochs: over which a number is warmed up.

  Raises:
    KeyError: no such schedule, with suggestions.
    ValueError: an unknown argument, or no schedule; a value that is not a
      number, negative, or not finite; a schedule with `warmup_epochs`.

  >>> print(make({'schedule': 'cosine', 'start': 1.0, 'end': 0.0}))
  1 to 0 (cosine), from 0 to the end
  """
  weight = spec
  if isinstance(spec, Mapping):
    arguments = dict(spec)
    if 'schedule' not in arguments:
      raise ValueError(
        "a weight must be a number, or a mapping with a 'schedule', one of"
        f' {", ".join(SCHEDULES)}, got {arguments}'
      )
    name = arguments.pop('schedule')
    function = lookup('schedule of a weight', SCHEDULES, name)
    for key, value in arguments.items():
      if (key, value) != ('last', None):
        as_number(f'{key} of the schedule {name!r}', value)
    weight = call(f'the schedule {name!r}', function, arguments)
  if callable(weight):
    if warmup_epochs:
      raise ValueError(
        f'warmup_epochs={warmup_epochs} and a weight with a schedule'
        f' ({weight}): give one of them'
      )
    return weight
  number = as_number('a weight without a schedule', weight)
  return warm_up(number, warmup_epochs)
