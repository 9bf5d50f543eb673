"""Which parameters a loss depends on, said by its gradient.

A gradient of zeros can mean both that a parameter is where the loss is flat and
that the loss does not depend on it. What tells them apart is a note that goes
with each array through differentiation and comes back as 1 where a gradient was
asked for. Notes are constants of the compiled step and cost nothing there.
"""

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from jaxkd.types import Array, Tree


def notes(params: Tree) -> Tree:
  """Returns the notes to go with parameters."""
  return jax.tree.map(lambda _: jnp.zeros(()), params)


def noted(params: Tree, notes: Tree) -> Tree:
  """Returns the parameters; the gradient of `notes` is 1 where they are used.

  Used is what a loss depends on, other than through `stop_gradient`. The
  gradient of the other notes is 0.
  """
  return jax.tree.map(_noted, params, notes)


@jax.custom_vjp
def _noted(x: Array, note: Array) -> Array:
  del note
  return x


def _forward(x, note):
  del note
  return x.value, None


def _backward(_, slope):
  if isinstance(slope, SymbolicZero):
    return None, None
  return slope, jnp.ones(())


_noted.defvjp(_forward, _backward, symbolic_zeros=True)
