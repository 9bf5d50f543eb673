"""Ensembles: the mean of the probabilities of several networks."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxkd.models.wrapper import NetworkWrapper
from jaxkd.types import Array, Outputs, Tree, Variables


class Ensemble(NetworkWrapper, nn.Module):
  """The mean of the probabilities of several networks, for eval mode.

  Attributes:
    members: at least two networks with the same classes; the ensemble's
      `width`, `branches` and `dtype` are the first one's.
  """

  members: tuple[nn.Module, ...]

  def __call__(self, image: Array, train: bool = False) -> Outputs:
    """Returns logits [B, K], the logarithm of the mean, and no taps."""
    logits = [member(image, train=train).logits for member in self.members]
    log_p = jnp.stack([jax.nn.log_softmax(z) for z in logits])
    mean = jax.nn.logsumexp(log_p, axis=0) - jnp.log(len(logits))
    return Outputs(mean, {})

  @property
  def wrapped(self) -> Any:
    """The first member."""
    return self.members[0]


def members(variables: list[Variables]) -> Variables:
  """Returns the variables of an `Ensemble` from those of its members."""

  def collection(name: str) -> dict[str, Tree]:
    trees = [member.get(name, {}) for member in variables]
    return {f'members_{n}': tree for n, tree in enumerate(trees) if tree}

  return {name: collection(name) for name in ('params', 'batch_stats')}
