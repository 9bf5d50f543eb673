"""Read-outs: how a network's raw outputs are converted to logits.

The raw outputs of a network trained with cross-entropy are logits: its
probabilities are softmax(outputs). If the raw outputs were regressed onto the
one-hot labels (`losses.square_logits`), they are not: for perfect outputs,
softmax would give the right one of 100 classes a probability of 0.027. They
estimate the probabilities themselves and only have to be normalised.

A read-out maps raw outputs [..., K] to logits [..., K] whose softmax is the
distribution that the network predicts, so that every objective, temperature and
metric applies as to any other network: at temperature T the probabilities are
p^(1/T), normalised.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxkd.catalog import lookup
from jaxkd.models.class_map import ClassMap
from jaxkd.models.own_input import OwnInput
from jaxkd.models.wrapper import NetworkWrapper
from jaxkd.types import Array, Outputs

# The smallest probability, in place of 0. A temperature magnifies it: at T = 4,
# 1000 classes at 1e-20 have one per cent of the mass, and 100 classes at 1e-8
# would have half of it. As a logit it is -46.
FLOOR = 1e-20


def softmax(outputs: Array) -> Array:
  """Returns the outputs unchanged: they are logits."""
  return outputs


def clip(outputs: Array) -> Array:
  """Returns the logits of the normalised positive part of the outputs.

  If no output is positive, all classes have the same probability.

  Args:
    outputs: [..., K].
  """
  positive = jnp.maximum(outputs, 0)
  total = jnp.sum(positive, axis=-1, keepdims=True)
  return _logits(positive / jnp.where(total <= 0, 1, total))


def simplex(outputs: Array) -> Array:
  """Returns the logits of the Euclidean projection onto the simplex.

  The projection is max(outputs - threshold, 0) with the threshold for which it
  sums to 1. It is the maximum over k of (sum of the k largest outputs - 1) / k.

  Args:
    outputs: [..., K].

  References:
    Duchi et al., ICML 2008, https://doi.org/10.1145/1390156.1390176, figure 1.
  """
  top = jnp.max(outputs, axis=-1, keepdims=True)
  # A common shift does not change the projection; it avoids cancellation.
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


class ReadOut(NetworkWrapper, nn.Module):
  """A network with a read-out, which is applied in eval mode.

  In train mode the raw outputs are returned, which its loss is a function of.
  The variables are those of the network, with the same names.

  Attributes:
    network: any network.
    how: a key of `READ_OUTS`.
  """

  network: Any
  how: str

  def __post_init__(self):
    """Checks the read-out before anything is traced."""
    lookup('read-out', READ_OUTS, self.how)
    super().__post_init__()

  def setup(self):
    """Shares the network's scope, so that the variables keep their names."""
    nn.share_scope(self, self.network)

  def __call__(self, image: Array, train: bool = False) -> Outputs:
    """Returns logits [B, K] (in train mode raw outputs) and taps."""
    outputs = self.network(image, train=train)
    if train:
      return outputs
    return outputs.replace(logits=READ_OUTS[self.how](outputs.logits))

  @property
  def wrapped(self) -> Any:
    """The network."""
    return self.network


def wrap(network: nn.Module, how: str) -> nn.Module:
  """Returns the network with a read-out; for 'softmax' the network itself.

  Args:
    network: any network.
    how: a key of `READ_OUTS`.

  Raises:
    KeyError: unknown read-out, with suggestions.
  """
  lookup('read-out', READ_OUTS, how)
  return network if how == 'softmax' else ReadOut(network, how)


def read_out_of(network: nn.Module) -> str:
  """Returns the read-out of a network, a key of `READ_OUTS`."""
  if isinstance(network, ReadOut):
    return network.how
  inner = isinstance(network, OwnInput | ClassMap)
  return read_out_of(network.wrapped) if inner else 'softmax'
