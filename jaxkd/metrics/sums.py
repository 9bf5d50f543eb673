"""Sums over the examples of a batch that count."""

import jax.numpy as jnp

from jaxkd.types import Array

Sums = dict[str, Array]  # by name, of one batch; those of batches add up


def masked_sum(values: Array, mask: Array) -> Array:
  """Returns the sum over the examples with mask 1, a float32 scalar.

  Values with mask 0 are left out, not multiplied by it: they may be infinite.

  Args:
    values: [B], numbers or booleans.
    mask: [B], 1 for examples that count.
  """
  return jnp.sum(values, where=mask > 0, dtype=jnp.float32)
