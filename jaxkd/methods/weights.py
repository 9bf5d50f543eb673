"""Weights of transfers that change while training goes on.

Each is a function of the epoch, a float32 scalar that grows continuously from
0, and prints as what it does.
"""

import dataclasses

import jax.numpy as jnp

from jaxkd.types import Array


@dataclasses.dataclass(frozen=True)
class Ramp:
  """From one weight to another along a line; constant before and after.

  start: the weight up to the epoch `first`.
  stop: the weight from the epoch `last` on.
  first: epochs completed when it begins to change.
  last: epochs completed when it has changed; equal to `first`, it jumps there.

  Raises:
    ValueError: it would begin before the training, or end before it begins.

  >>> str(Ramp(1.0, 0.0, 10, 20)), str(Ramp(0.0, 0.5, 10, 10))
  ('1 to 0, epochs 10 to 20', '0 to 0.5, epoch 10')
  """

  start: float
  stop: float
  first: float
  last: float

  def __post_init__(self):
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
    return (1 - done) * self.start + done * self.stop

  def __str__(self) -> str:
    when = f'epochs {self.first:g} to {self.last:g}'
    if self.first == self.last:
      when = f'epoch {self.first:g}'
    return f'{self.start:g} to {self.stop:g}, {when}'


@dataclasses.dataclass(frozen=True)
class WarmUp:
  """A weight that grows linearly over the first epochs, in steps of an epoch.

  weight: where it arrives.
  epochs: how many it takes. In the first, the weight is already 1 / epochs of
    what it will be, as in the published code of DKD (Zhao et al., CVPR 2022,
    https://arxiv.org/abs/2203.08679).

  Raises:
    ValueError: less than one epoch.

  >>> str(WarmUp(0.9, 20))
  '0.9 after 20 epochs'
  """

  weight: float
  epochs: int

  def __post_init__(self):
    if self.epochs < 1:
      raise ValueError(f'a warm-up takes 1 epoch or more, got {self.epochs}')

  def __call__(self, epoch: Array) -> Array:
    """Returns the weight at an epoch, float32."""
    return self.weight * jnp.minimum((jnp.floor(epoch) + 1) / self.epochs, 1)

  def __str__(self) -> str:
    return f'{self.weight:g} after {self.epochs} epochs'


def warm_up(weight: float, epochs: int) -> float | WarmUp:
  """Returns the weight, warmed up over some epochs, or as it is over 0."""
  return WarmUp(weight, epochs) if epochs else weight
