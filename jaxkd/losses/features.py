"""Losses of feature maps against other feature maps."""

import chex
import jax.numpy as jnp

from jaxkd.types import Array


def hint(student: Array, teacher: Array) -> Array:
  """Mean squared error of features, as FitNet's hint.

  Args:
    student: [B, ...], brought to the teacher's shape by a regressor.
    teacher: [B, ...].

  Returns:
    Mean over all entries of an example, one per example: [B].

  References:
    Romero et al., ICLR 2015, https://arxiv.org/abs/1412.6550, eq. 3. Deviation:
    a mean, as in the distillation benchmark, where the paper has half the sum.

  >>> hint(jnp.ones((1, 2, 2, 3)), jnp.zeros((1, 2, 2, 3)))
  Array([1.], dtype=float32)
  """
  chex.assert_equal_shape([student, teacher])
  return jnp.mean(jnp.square(student - teacher), axis=range(1, student.ndim))
