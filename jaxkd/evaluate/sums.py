"""Sums over the examples of a batch that count."""

import jax.numpy as jnp

from jaxkd.types import Array

Sums = dict[str, Array]  # by name, of one batch; those of batches add up


def masked_sum(values: Array, mask: Array) -> Array:
  """Returns the sum over the examples under mask 1, a float32 scalar.

  What is under mask 0 is left out, not multiplied by it: a value there may be
  infinite.

  Args:
    values: [B], numbers or truth values.
    mask: [B], 1 for examples that count.
  """
  return jnp.sum(values, where=mask > 0, dtype=jnp.float32)
