"""What losses of features share: precision, lengths and directions."""

from functools import partial

import jax.numpy as jnp
from jax import lax

from jaxkd.types import Array

# By default an accelerator multiplies matrices with 8 to 11 bits of mantissa.
# What these losses are about are differences of nearly equal Gram matrices, of
# which that leaves little; their matrices are small beside a network's.
einsum = partial(jnp.einsum, precision=lax.Precision.HIGHEST)


def at_least_float32(x: Array) -> Array:
  """Returns x, in float32 if its type has fewer bits."""
  x = jnp.asarray(x)
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def norm(x: Array, axis: int = -1) -> Array:
  """Returns Euclidean lengths along an axis, which stays with length 1.

  The gradient at zero is zero; that of a plain square root is NaN.
  """
  square = jnp.sum(jnp.square(x), axis=axis, keepdims=True)
  some = square > 0
  return jnp.where(some, jnp.sqrt(jnp.where(some, square, 1)), 0)


def unit(x: Array, axis: int = -1) -> Array:
  """Returns x / max(|x|, 1e-12) along an axis, as PyTorch's `normalize` does.

  Zero has no direction: its value is zero and so is its gradient, where
  PyTorch's is 1e12 times what comes in.
  """
  length = norm(x, axis)
  return x * jnp.where(length > 0, 1 / jnp.maximum(length, 1e-12), 0)


def flat(x: Array) -> Array:
  """Returns [B, ...] as vectors [B, D], in float32 at least."""
  return at_least_float32(x).reshape(len(x), -1)
