"""Which parameters a loss depends on, as differentiation shows.

Parameters that no loss depends on are not updated: they do not even decay. (In
PyTorch their gradient is None, and optimizers skip them.) A gradient of zeros
does not distinguish them from parameters at which the loss is flat. So each
array goes through differentiation together with a flag, whose gradient is 1 if
a gradient of the array was computed, and 0 if not. Flags are constants of the
compiled step and cost nothing there.
"""

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from jaxkd.types import Array, Tree


def flags(params: Tree) -> Tree:
  """Returns a flag, a scalar 0, for each array of the parameters."""
  return jax.tree.map(lambda _: jnp.zeros(()), params)


def flagged(params: Tree, flags: Tree) -> Tree:
  """Returns the parameters, tied to their flags.

  The gradient of a flag is 1 if the loss depends on its array, other than
  through `stop_gradient`, and 0 otherwise.
  """
  return jax.tree.map(_flagged, params, flags)


@jax.custom_vjp
def _flagged(array: Array, flag: Array) -> Array:
  del flag
  return array


def _forward(array, flag):
  del flag
  return array.value, None


def _backward(_, gradient):
  if isinstance(gradient, SymbolicZero):
    return None, None
  return gradient, jnp.ones(())


_flagged.defvjp(_forward, _backward, symbolic_zeros=True)
