"""Read-outs: which probabilities a network's outputs stand for.

A network that learned by cross-entropy means softmax(outputs). One whose raw
outputs learned to be the one-hot labels (`losses.square_logits`) does not: were
they perfect, softmax would give the right one of 100 classes a probability of
0.027. Its outputs estimate the probabilities themselves and only need to become
a distribution.

A read-out maps outputs [..., K] to logits [..., K] whose softmax is what they
stand for, so that every objective, temperature and measure works as it does for
any network: at temperature T it sees p^(1/T), normalised.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxkd.catalog import lookup
from jaxkd.types import Array, Outputs

# What stands for a probability of 0. A temperature magnifies it: at T = 4, 1000
# classes at 1e-20 hold one per cent of the mass, and 100 classes at 1e-8 would
# hold half of it. In units of logits it is -46.
FLOOR = 1e-20


def softmax(outputs: Array) -> Array:
  """Returns the outputs: they are logits."""
  return outputs


def clip(outputs: Array) -> Array:
  """Returns logits of the outputs' positive part, normalised.

  Where no output is positive, all classes stand at the floor: equally probable.

  Args:
    outputs: [..., K].
  """
  positive = jnp.maximum(outputs, 0)
  total = jnp.sum(positive, axis=-1, keepdims=True)
  return _logits(positive / jnp.where(total <= 0, 1, total))


def simplex(outputs: Array) -> Array:
  """Returns logits of the distribution that is nearest to the outputs.

  It is max(outputs - threshold, 0) with the one threshold that gives a sum of
  1: the largest, over k, that the k largest outputs alone would have.

  Args:
    outputs: [..., K].

  References:
    Duchi et al., ICML 2008, https://doi.org/10.1145/1390156.1390176, figure 1.
  """
  top = jnp.max(outputs, axis=-1, keepdims=True)
  # A common shift changes nothing, and no digit is lost to large outputs.
  z = outputs - jax.lax.stop_gradient(top)
  largest = -jnp.sort(-z, axis=-1)
  counts = jnp.arange(1, z.shape[-1] + 1, dtype=z.dtype)
  excess = jnp.cumsum(largest, axis=-1) - 1
  thresholds = excess / counts.reshape((1,) * (z.ndim - 1) + (-1,))
  threshold = jnp.max(thresholds, axis=-1, keepdims=True)
  return _logits(jnp.maximum(z - threshold, 0))


def _logits(probabilities: Array) -> Array:
  return jnp.log(jnp.maximum(probabilities, FLOOR))


READ_OUTS = {'clip': clip, 'simplex': simplex, 'softmax': softmax}


class ReadOut(nn.Module):
  """A network whose outputs are read out in eval mode.

  In train mode they stay as they are: they are what the loss is about. Its
  variables are those of the network itself, under the same names.

  Attributes:
    network: any network of the catalogue.
    how: a key of `READ_OUTS`.
  """

  network: Any
  how: str

  def __post_init__(self):
    """Refuses an unknown read-out before anything is traced."""
    lookup('read-out', READ_OUTS, self.how)
    super().__post_init__()

  def setup(self):
    """Takes the network's place in the tree of variables."""
    nn.share_scope(self, self.network)

  def __call__(self, image: Array, train: bool = False) -> Outputs:
    """Returns logits [B, K], with `train` the outputs themselves, and taps."""
    outputs = self.network(image, train=train)
    if train:
      return outputs
    return outputs.replace(logits=READ_OUTS[self.how](outputs.logits))

  @property
  def num_classes(self) -> int:
    """K of the network."""
    return self.network.num_classes

  @property
  def width(self) -> float:
    """The network's channel multiplier."""
    return self.network.width

  @property
  def branches(self) -> int:
    """Of the network's convolutions."""
    return self.network.branches

  @property
  def dtype(self) -> Any:
    """The network's compute type."""
    return self.network.dtype


def wrap(network: nn.Module, how: str) -> nn.Module:
  """Returns the network with a read-out; 'softmax' is every network's own.

  Raises:
    KeyError: no such read-out, with suggestions.
  """
  lookup('read-out', READ_OUTS, how)
  return network if how == 'softmax' else ReadOut(network, how)


def read_out_of(network: nn.Module) -> str:
  """Returns how a network's outputs are read."""
  return network.how if isinstance(network, ReadOut) else 'softmax'
