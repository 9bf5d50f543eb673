"""Singular vectors and eigenvectors without a decomposition, and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from test_losses_stages import random, spectrum

from jaxkd.losses import stages


@pytest.mark.parametrize('wide', [False, True], ids=['tall', 'wide'])
def test_vectors_equal_lapacks_and_gradient_equals_differences(wide):
  """The last two of the six singular values are small and nearly equal."""
  x, v = spectrum([9, 6, 5, 2, 0.3, 0.29])
  if wide:
    x = np.concatenate([x, random(1, 6, 3, seed=5) / 10], axis=2)
    v = np.linalg.svd(x)[2][0].T
  with jax.enable_x64(True):
    find = jax.jit(lambda x: stages._right_vectors(x, 4))
    got = find(jnp.asarray(x))[0]
    cosines = np.abs(np.sum(np.asarray(got) * v[:, :4], axis=0))
    np.testing.assert_allclose(cosines, np.ones(4), rtol=1e-12)
    # Squares do not depend on the signs of the vectors.
    check_grads(
      lambda x: jnp.square(find(x)), (x,), order=1, modes=['rev'], rtol=1e-5
    )


def numpy_eigenvectors(gram, change, count):
  """Returns the first eigenvectors and their derivative, all terms of it."""
  values, v = (x[..., ::-1] for x in np.linalg.eigh(gram))
  pull = v.T @ change @ v[:, :count]
  gap = values[:count] - values[:, None]
  turn = np.where(gap == 0, 0, pull / np.where(gap == 0, 1, gap))
  return v[:, :count], v @ turn


@jax.jit
def derivatives(gram, change, pull):
  """Four eigenvectors, and their derivatives in forward and reverse mode."""
  find = functools.partial(stages._eigenvectors, count=4)
  vectors, forward = jax.jvp(find, (gram,), (change,))
  (back,) = jax.vjp(find, gram)[1](pull)
  return vectors, forward, back


@pytest.mark.parametrize(
  ('others', 'rtol', 'rtol_32'),
  [
    ([0.999, 0.998, 0.5, 0.1], 1e-9, 3e-3),
    ([0.99] * 3 + [0.98], 1e-10, 3e-4),
    (np.linspace(0.999, 0.01, 60), 1e-6, 3e-3),
  ],
  ids=['two close', 'three equal', 'many'],
)
def test_fifth_eigenvalue_close_to_the_fourth(others, rtol, rtol_32):
  """The gradient is a thousand times that for distant eigenvalues."""
  values = np.array([8, 4, 2, 1, *others])
  _, v = spectrum(values, rows=len(values), seed=2)
  gram, change = (v * values) @ v.T, random(*v.shape, seed=4)
  change, pull = change + change.T, random(len(v), 4, seed=5)
  want = numpy_eigenvectors(gram, change, 4)
  for dtype, tolerance in ((np.float64, rtol), (np.float32, rtol_32)):
    with jax.enable_x64(True):
      args = (jnp.asarray(x[None], dtype) for x in (gram, change, pull))
      got, forward, back = (np.asarray(x)[0] for x in derivatives(*args))
    sign = np.sign(np.sum(got * want[0], axis=0))
    size = tolerance * np.linalg.norm(want[1])
    np.testing.assert_allclose(got, sign * want[0], atol=tolerance / 10)
    assert np.linalg.norm(forward - sign * want[1]) < size
    # Forward and reverse mode are two products with one matrix.
    gap = np.sum(back * change) - np.sum(pull * sign * want[1])
    assert np.abs(gap) < size


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
@pytest.mark.parametrize(
  'values',
  [[1.0] * 12, [4, 3, 2] + [1] * 4 + [0.5] * 5, [4, 3, 2, 1, *[0] * 8]],
  ids=['all', 'four', 'zeros'],
)
def test_gradient_of_equal_eigenvalues_is_bounded(values, dtype):
  _, v = spectrum(values, rows=12)
  with jax.enable_x64(True):
    gram = jnp.asarray(((v * np.array(values)) @ v.T)[None], dtype)
    change = jnp.asarray(random(1, 12, 12), dtype)
    pull = jnp.zeros((1, 12, 4), dtype)
    _, forward, _ = derivatives(gram, change, pull)
  bound = 8.0 ** stages._ROUNDS[gram.dtype.itemsize]
  assert np.max(np.abs(forward)) < bound * np.linalg.norm(change)


def test_vectors_of_large_matrices_do_not_overflow():
  ones = jnp.ones((1, 600, 600), jnp.float32)
  got = jax.jit(stages._first_eigenvector)(ones)
  np.testing.assert_allclose(got, np.full((1, 600), 600**-0.5), rtol=1e-5)
