"""Grouped 1 x 1 convolutions: two ways to compute them, one result."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxkd.models import grouped


def inputs(r, g):
  keys = jax.random.split(jax.random.key(0), 2)
  x = jax.random.normal(keys[0], (2, 3, 3, r, g, 4))
  return x, jax.random.normal(keys[1], (r, 4, r, g, 5))


@pytest.mark.parametrize(('r', 'g'), [(1, 3), (2, 2)])
def test_both_ways_have_the_values_and_gradients_of_the_formula(r, g):
  x, kernel = inputs(r, g)
  want = np.zeros((2, 3, 3, r, g, 5))
  for i in range(g):
    for into in range(r):
      for start in range(r):
        matrix = np.asarray(kernel[start, :, into, i], np.float64)
        want[..., into, i, :] += np.asarray(x[..., start, i, :]) @ matrix

  def gradients(function):
    loss = lambda *arrays: jnp.sum(jnp.sin(function(*arrays)))
    return jax.grad(loss, argnums=(0, 1))(x, kernel)

  by_default = gradients(grouped.grouped)
  for function in (grouped._one_by_one, grouped._all_at_once):
    np.testing.assert_allclose(function(x, kernel), want, rtol=1e-5, atol=1e-5)
    chex.assert_trees_all_close(
      gradients(function), by_default, rtol=1e-5, atol=1e-5
    )


def test_one_replica_is_a_grouped_convolution_of_xla():
  x, kernel = inputs(1, 3)
  want = lax.conv_general_dilated(
    x.reshape(2, 3, 3, 12),
    kernel.reshape(1, 1, 4, 15),
    (1, 1),
    'VALID',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=3,
  )
  got = grouped.grouped(x, kernel).reshape(2, 3, 3, 15)
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
  ('platform', 'products'), [('cpu', 3), ('cuda', 1), ('tpu', 1)]
)
def test_groups_are_separate_products_on_cpus_only(platform, products):
  lowered = jax.export.export(jax.jit(grouped.grouped), platforms=[platform])
  program = lowered(*inputs(1, 3)).mlir_module()
  assert program.count('stablehlo.dot_general') == products
