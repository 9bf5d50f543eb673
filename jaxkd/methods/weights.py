"""Weights of transfers that change while training goes on.

Each is a function of the epoch, a float32 scalar that grows continuously from
0, and prints as what it does. `make` reads them from a config.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

from jaxkd.catalog import call, check_whole, is_number, lookup
from jaxkd.graph import Timed, Weight
from jaxkd.types import Array

Spec = Weight | Mapping[str, Any]
BENCHMARK = 'benchmark'  # an objective's weight: that of `objectives.WEIGHTS`


def _linear(start: float, stop: float, done: Array) -> Array:
  return (1 - done) * start + done * stop


def _cosine(start: float, stop: float, done: Array) -> Array:
  return _linear(start, stop, (1 - jnp.cos(jnp.pi * done)) / 2)


def _exponential(start: float, stop: float, done: Array) -> Array:
  return start ** (1 - done) * stop**done


# (start, stop, which part of the way is done, 0 to 1) -> weight.
SHAPES = {'cosine': _cosine, 'exponential': _exponential, 'linear': _linear}


@dataclasses.dataclass(frozen=True)
class Ramp:
  """From one weight to another; constant before and after.

  start: the weight up to the epoch `first`.
  stop: the weight from the epoch `last` on.
  first: epochs completed when it begins to change.
  last: epochs completed when it has changed; equal to `first`, it jumps there.
  shape: of the way, a key of `SHAPES`.

  Raises:
    KeyError: no such shape.
    ValueError: it would begin before the training, or end before it begins; an
      exponential one that is not between positive weights.

  >>> str(Ramp(1.0, 0.0, 10, 20)), str(Ramp(0.0, 0.5, 10, 10))
  ('1 to 0, epochs 10 to 20', '0 to 0.5, epoch 10')
  """

  start: float
  stop: float
  first: float
  last: float
  shape: str = 'linear'

  def __post_init__(self):
    _check(self.shape, self.start, self.stop)
    if not 0 <= self.first <= self.last:
      raise ValueError(
        f'a ramp from epoch {self.first:g} to epoch {self.last:g}: expected'
        ' 0 <= first <= last'
      )

  def __call__(self, epoch: Array) -> Array:
    """Returns the weight at an epoch, float32."""
    span = self.last - self.first
    since = epoch - self.first
    done = jnp.clip(since / span, 0, 1) if span else jnp.where(since < 0, 0, 1)
    return SHAPES[self.shape](self.start, self.stop, done)

  def __str__(self) -> str:
    when = f'epochs {self.first:g} to {self.last:g}'
    if self.first == self.last:
      when = f'epoch {self.first:g}'
    return f'{_way(self)}, {when}'


@dataclasses.dataclass(frozen=True)
class Planned:
  """A ramp that is told in parts of a training, whatever its length.

  As milestones of the learning rate: below 1, `first` and `last` are fractions
  of the training, from 1 on they count epochs.

  start, stop, first, last, shape: see `Ramp`; without `last`, it has changed
    at the end of the training.

  >>> str(Planned(0.9, 0.0, first=0.5, shape='cosine'))
  '0.9 to 0 (cosine), from 0.5 to the end'
  >>> str(Planned(0.9, 0.0, first=0.5, shape='cosine').over(240))
  '0.9 to 0 (cosine), epochs 120 to 240'
  """

  start: float
  stop: float
  first: float = 0.0
  last: float | None = None
  shape: str = 'linear'

  def __post_init__(self):
    _check(self.shape, self.start, self.stop)

  def over(self, epochs: int) -> Ramp:
    """Returns the ramp in a training of so many epochs."""
    first, last = (
      when * epochs if when < 1 else when
      for when in (self.first, epochs if self.last is None else self.last)
    )
    return Ramp(self.start, self.stop, first, last, self.shape)

  def __call__(self, epoch: Array) -> Array:
    """Refuses: only `over` a training is it a function of the epoch."""
    raise ValueError(f'{self}: how long is the training? See Graph.lasting')

  def __str__(self) -> str:
    end = 'the end' if self.last is None else f'{self.last:g}'
    when = f'from {self.first:g} to {end}'
    if self.first == self.last:
      when = f'at {end}'
    return f'{_way(self)}, {when}'


def _way(ramp: Ramp | Planned) -> str:
  shape = '' if ramp.shape == 'linear' else f' ({ramp.shape})'
  return f'{ramp.start:g} to {ramp.stop:g}{shape}'


def _check(shape: str, start: float, stop: float) -> None:
  lookup('shape of a ramp', SHAPES, shape)
  if shape == 'exponential' and min(start, stop) <= 0:
    raise ValueError(
      f'an exponential ramp from {start:g} to {stop:g}: expected weights above'
      ' 0; end at a small one, or take a cosine'
    )


@dataclasses.dataclass(frozen=True)
class WarmUp:
  """A weight that grows linearly over the first epochs, in steps of an epoch.

  weight: where it arrives.
  epochs: how many it takes. In the first, the weight is already 1 / epochs of
    what it will be, as in the published code of DKD (Zhao et al., CVPR 2022,
    https://arxiv.org/abs/2203.08679).

  Raises:
    ValueError: no whole number of epochs, or less than one.

  >>> str(WarmUp(0.9, 20))
  '0.9 after 20 epochs'
  """

  weight: float
  epochs: int

  def __post_init__(self):
    check_whole('a warm-up', 'epochs', self.epochs)

  def __call__(self, epoch: Array) -> Array:
    """Returns the weight at an epoch, float32."""
    return self.weight * jnp.minimum((jnp.floor(epoch) + 1) / self.epochs, 1)

  def __str__(self) -> str:
    return f'{self.weight:g} after {self.epochs} epochs'


def warm_up(weight: float, epochs: int) -> float | WarmUp:
  """Returns the weight, warmed up over some epochs, or as it is over 0.

  Raises:
    ValueError: no whole number of epochs, or a negative one.
  """
  check_whole('a weight', 'warmup_epochs', epochs, least=0)
  return WarmUp(weight, epochs) if epochs else weight


@dataclasses.dataclass(frozen=True)
class Product:
  """Two weights multiplied, of which one changes at least."""

  first: Weight
  second: Weight

  def over(self, epochs: int) -> 'Product':
    """Returns the product in a training of so many epochs."""
    return Product(lasting(self.first, epochs), lasting(self.second, epochs))

  def __call__(self, epoch: Array) -> Array:
    """Returns the weight at an epoch, float32."""
    first, second = (
      x(epoch) if callable(x) else jnp.float32(x)
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


def lasting(weight: Weight, epochs: int) -> Weight:
  """Returns a weight as it is in a training of so many epochs."""
  return weight.over(epochs) if isinstance(weight, Timed) else weight


def _ramp(shape: str) -> Callable[..., Planned]:
  def planned(
    start: float, end: float, first: float = 0.0, last: float | None = None
  ) -> Planned:
    return Planned(start, end, first, last, shape)

  return planned


def _step(start: float, end: float, epoch: float) -> Planned:
  return Planned(start, end, epoch, epoch)


SCHEDULES: dict[str, Callable[..., Weight]] = {
  'constant': lambda weight: weight,
  'cosine': _ramp('cosine'),
  'exponential': _ramp('exponential'),
  'linear': _ramp('linear'),
  'step': _step,
  'warm_up': WarmUp,
}


def as_number(what: str, value: Any) -> float:
  """Returns what can be a weight, or a number of its schedule.

  Args:
    what: the setting, for the message.
    value: what somebody has set it to.

  Raises:
    ValueError: it is no number, negative, or not finite.
  """
  if is_number(value) and value >= 0:
    return value
  hint = ''
  if value == BENCHMARK:
    hint = ", and 'benchmark' is for the weights inside of `objectives`"
  raise ValueError(f'{what} is a finite number, 0 or more{hint}; got {value!r}')


def make(spec: Spec, warmup_epochs: int = 0) -> Weight:
  """Returns the weight that a config says.

  Args:
    spec: a weight; or a mapping with a key of `SCHEDULES` under 'schedule' and
      its arguments:
        cosine, exponential, linear  start, end, and between which epochs:
                                     first (0), last (the end of the training)
        step                         start, end, epoch
        warm_up                      weight, epochs
        constant                     weight
      Below 1, first, last and epoch are fractions of the training.
      No number is negative.
    warmup_epochs: over which a number is grown to.

  Raises:
    KeyError: no such schedule, with suggestions.
    ValueError: an argument that it does not take, or no schedule; a number that
      is negative or not finite, or none; a schedule that is to be warmed up,
      too.

  >>> print(make({'schedule': 'cosine', 'start': 1.0, 'end': 0.0}))
  1 to 0 (cosine), from 0 to the end
  """
  weight = spec
  if isinstance(spec, Mapping):
    given = dict(spec)
    if 'schedule' not in given:
      raise ValueError(
        "a weight is a number, or a mapping with a 'schedule', one of"
        f' {", ".join(SCHEDULES)}; got {given}'
      )
    name = given.pop('schedule')
    function = lookup('schedule of a weight', SCHEDULES, name)
    for key, value in given.items():
      if (key, value) != ('last', None):
        as_number(f'{key} of the schedule {name!r}', value)
    weight = call(f'the schedule {name!r}', function, given)
  if callable(weight):
    if warmup_epochs:
      raise ValueError(
        f'warmup_epochs={warmup_epochs} and a weight with a schedule'
        f' ({weight}): give one of them'
      )
    return weight
  number = as_number('a weight without a schedule', weight)
  return warm_up(number, warmup_epochs)
