"""A network with the classifier of another network of its graph."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxkd import models
from jaxkd.graph.networks import ReusedHead
from jaxkd.models.reusing import HEAD, reusing_settings


def with_reused_head(
  network: nn.Module,
  other: nn.Module,
  head: ReusedHead,
  input_shape: tuple[int, int, int],
) -> nn.Module:
  """Returns a network with the classifier of another one.

  Raises:
    KeyError: a network without the taps that this needs.
    ValueError: the other network's classifier does not read its pooled
      features.
  """
  image = jnp.zeros((1, *input_shape))
  outputs, _ = jax.eval_shape(
    network.init_with_output, jax.random.key(0), image
  )
  others, variables = jax.eval_shape(
    other.init_with_output, jax.random.key(0), image
  )
  settings = reusing_settings(outputs, others)
  kernel = variables['params'].get(HEAD, {}).get('kernel', jnp.zeros(0))
  if kernel.shape[:-1] != (settings['features'],):
    raise ValueError(
      f'the classifier of {head.of!r} cannot be reused: its parameters'
      f' {HEAD!r} must have a kernel [{settings["features"]}, K], for its tap'
      f' pooled, got {list(kernel.shape)}'
    )
  return models.reusing(network, factor=head.factor, **settings)
