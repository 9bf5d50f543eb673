"""Grouped 1 x 1 convolution that is fast on CPUs, too.

On a CPU, a matrix product per group is 1.6 times as fast as one batched product
(64 images, sizes of ShuffleNetV1), and the gradient of XLA's grouped
convolution takes 2 to 14 times as long as that of the latter. On an accelerator
it would be a copy and several kernels per group, so it is compiled to the
batched product there. The choice is made at lowering.

Letters: r replicas, g groups, C input and F output channels of a group.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jaxkd.types import Array


@jax.custom_vjp
def grouped(x: Array, kernel: Array) -> Array:
  """Multiplies the channels of each group, in all replicas, by its matrix.

  It has gradients of any order, in reverse mode only.

  Args:
    x: [..., r, g, C].
    kernel: [r, C, r, g, F] of the same type: from all channels of a group to
      its F in each replica.

  Returns:
    [..., r, g, F].
  """
  return lax.platform_dependent(
    x, kernel, cpu=_one_by_one, default=_all_at_once
  )


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
  return grouped(x, kernel), (x, kernel)


def _backward(inputs: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
  """Returns the gradients of x and kernel, each platform's own."""
  return lax.platform_dependent(
    *inputs,
    g,
    cpu=partial(_gradients, _one_by_one),
    default=partial(_gradients, _all_at_once),
  )


grouped.defvjp(_forward, _backward)


def _gradients(function, x: Array, kernel: Array, g: Array):
  return jax.vjp(function, x, kernel)[1](g)


def _one_by_one(x: Array, kernel: Array) -> Array:
  *positions, r, g, _ = x.shape
  kernel = kernel.reshape(-1, r, g, kernel.shape[-1])
  maps = [
    jnp.tensordot(x[..., i, :].reshape(*positions, -1), kernel[:, :, i], 1)
    for i in range(g)
  ]
  return jnp.stack(maps, axis=-2)


def _all_at_once(x: Array, kernel: Array) -> Array:
  return jnp.einsum('...rgc,rcsgf->...sgf', x, kernel)
