"""Several networks that answer as one."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxkd.types import Array, Outputs, Tree, Variables


class Ensemble(nn.Module):
  """The mean of the probabilities of several networks, in eval mode.

  Attributes:
    members: two networks or more, of the same classes.
  """

  members: tuple[nn.Module, ...]

  def __call__(self, image: Array, train: bool = False) -> Outputs:
    """Returns logits [B, K], the mean's logarithms; there are no taps."""
    said = [member(image, train=train).logits for member in self.members]
    logs = jnp.stack([jax.nn.log_softmax(logits) for logits in said])
    mean = jax.nn.logsumexp(logs, axis=0) - jnp.log(len(said))
    return Outputs(mean, {})


def members(variables: list[Variables]) -> Variables:
  """Returns the variables of an ensemble of networks that have these."""

  def named(collection: str) -> dict[str, Tree]:
    parts = [own.get(collection, {}) for own in variables]
    return {f'members_{n}': part for n, part in enumerate(parts) if part}

  return {name: named(name) for name in ('params', 'batch_stats')}
