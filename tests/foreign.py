"""Networks that know nothing of jaxkd, as users have them."""

import flax.linen as nn
import jax.numpy as jnp
from flax import nnx

from jaxkd import models
from jaxkd.types import Outputs


class Block(nn.Module):
  """A layer in two parts."""

  features: int

  @nn.compact
  def __call__(self, x):
    return nn.relu(nn.Dense(self.features)(x))


class Compact(nn.Module):
  """All modules made where they are used; dropout and BatchNorm."""

  sizes: list[int]
  num_classes: int = 3
  rate: float = 0.5

  @nn.compact
  def __call__(self, x, *, training=False):
    x = x.reshape(len(x), -1)
    for size in self.sizes:
      x = Block(size)(x)
      x = nn.BatchNorm(use_running_average=not training)(x)
      x = nn.Dropout(self.rate, deterministic=not training)(x)
    return nn.Dense(self.num_classes, name='head')(x)


class Setup(nn.Module):
  """Modules made beforehand, one used twice, some rematerialised.

  One is called as `ReadOut` and others call theirs.
  """

  num_classes: int = 3

  def setup(self):
    self.inner = [nn.remat(Block)(4) for _ in range(2)]
    self.network = nn.Dense(4)
    self.head = nn.Dense(self.num_classes)

  def __call__(self, x, train):
    x = x.reshape(len(x), -1)
    for block in self.inner:
      x = block(x)
    x = self.network(self.network(x))
    return self.head(x)


class Wide(nn.Module):
  """As wide as it is asked to be, in any compute type."""

  num_classes: int
  width: float = 1
  dtype: type = jnp.float32

  @nn.compact
  def __call__(self, x, train=False):
    del train
    x = nn.Dense(int(4 * self.width), dtype=self.dtype)(x.reshape(len(x), -1))
    return nn.Dense(self.num_classes, name='head')(nn.relu(x))


class Conv3(nnx.Conv):
  """A class that inherits its `__call__`."""

  def __init__(self, inputs, outputs, rngs):
    super().__init__(inputs, outputs, (3, 3), rngs=rngs)


class Unit(nnx.Module):
  """A convolution, BatchNorm and dropout."""

  def __init__(self, inputs, outputs, rate, rngs):
    self.conv = Conv3(inputs, outputs, rngs)
    self.norm = nnx.BatchNorm(outputs, rngs=rngs)
    self.dropout = nnx.Dropout(rate, rngs=rngs)

  def __call__(self, x):
    return self.dropout(nnx.relu(self.norm(self.conv(x))))


class Nnx(nnx.Module):
  """A list of units, a parameter of its own, and a table that is none."""

  def __init__(self, channels, num_classes, rate=0.0, *, rngs):
    self.units = nnx.List([Unit(channels, 4, rate, rngs)])
    self.units.append(Unit(4, 4, rate, rngs))
    self.offset = nnx.Param(jnp.ones((4,)))
    self.table = jnp.arange(4.0)
    self.head = nnx.Linear(4, num_classes, rngs=rngs)

  def __call__(self, x):
    for unit in self.units:
      x = unit(x)
    x = jnp.mean(x, axis=(1, 2))
    return self.head(x * self.offset[...][None] + self.table[None])


def by_rngs(num_classes):
  """Returns a function that makes an nnx module."""
  return lambda rngs: Nnx(1, num_classes, rngs=rngs)


def by_adapt(num_classes):
  """Returns an adapted module with a tap."""
  taps = {'pooled': 'head:input'}
  return models.adapt(Compact([4]), num_classes, taps)


def made(num_classes):
  """Returns an nnx module: too late to draw its parameters."""
  return Nnx(1, num_classes, rngs=nnx.Rngs(0))


NETWORK = Compact([4])


def four():
  """Returns a network that is made for four classes."""
  return models.adapt(Setup(4))


class Fixed(nn.Module):
  """Returns the value of the train flag as logits of one class."""

  @nn.compact
  def __call__(self, x, switch):
    return jnp.full((len(x), 1), switch, jnp.float32)


class Returning(nn.Module):
  """Returns logits in one of the ways that there are."""

  how: str
  num_classes: int = 2

  @nn.compact
  def __call__(self, x):
    logits = nn.Dense(2, dtype=jnp.bfloat16, name='head')(x[:, 0, 0])
    ways = {
      'alone': logits,
      'first': (logits, x),
      'outputs': Outputs(logits, {'own': x}),
    }
    return ways[self.how]
