"""Numerics that the losses share: precision, norms and normalisation."""

from functools import partial

import jax.numpy as jnp
from jax import lax

from jaxkd.types import Array

# By default, accelerators multiply matrices with 8 to 11 bits of mantissa. That
# is too few for the differences of nearly equal Gram matrices in these losses;
# the products are cheap in comparison with a network's.
einsum = partial(jnp.einsum, precision=lax.Precision.HIGHEST)


def at_least_float32(x: Array) -> Array:
  """Returns x, as float32 if its type is less precise."""
  x = jnp.asarray(x)
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def norm(x: Array, axis: int = -1) -> Array:
  """Returns Euclidean norms along an axis, which is kept with size 1.

  The gradient at zero is zero; that of a plain square root is NaN.
  """
  square = jnp.sum(jnp.square(x), axis=axis, keepdims=True)
  positive = square > 0
  return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1)), 0)


def unit(x: Array, axis: int = -1) -> Array:
  """Returns x / max(|x|, 1e-12) along an axis, as PyTorch's `normalize` does.

  At x = 0, the value and the gradient are zero; PyTorch's gradient there is
  1e12 times the incoming one.
  """
  length = norm(x, axis)
  return x * jnp.where(length > 0, 1 / jnp.maximum(length, 1e-12), 0)


def flat(x: Array) -> Array:
  """Returns x [B, ...] as vectors [B, D], in at least float32."""
  return at_least_float32(x).reshape(len(x), -1)
