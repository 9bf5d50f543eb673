"""The alpha-beta divergence: its definition, its limits, and its digits."""

from functools import partial

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_losses import STUDENT, TEACHER, divergence, logits, softmax

from jaxkd import losses

p, q = softmax(TEACHER / 4), softmax(STUDENT / 4)
exponents = st.sampled_from([0.0, 1e-9, 1e-3, 0.3, 0.5, 1.0, 2.0])


@partial(jax.jit, static_argnums=4)
def alpha_beta(s, t, alpha, beta, temperature=1.0):
  return losses.alpha_beta(s, t, alpha, beta, temperature)


@partial(jax.jit, static_argnums=4)
def gradient(s, t, alpha, beta, temperature=1.0):
  total = lambda s: jnp.sum(losses.alpha_beta(s, t, alpha, beta, temperature))
  return jax.grad(total)(s)


def exact(function, *args):
  """Calls a function in float64."""
  with jax.enable_x64(True):
    return np.asarray(function(*map(jnp.float64, args[:4]), *args[4:]))


def definition(p, q, a, b):
  terms = p**a * q**b - (a * p ** (a + b) + b * q ** (a + b)) / (a + b)
  return -np.sum(terms, axis=-1) / (a * b)


def at_beta_0(p, q, a):
  return np.sum(a * p**a * np.log(p / q) - p**a + q**a, axis=-1) / a**2


def at_opposites(p, q, a):
  terms = a * np.log(q / p) + (p / q) ** a - 1
  return np.sum(terms, axis=-1) / a**2


@pytest.mark.parametrize(
  ('alpha', 'beta', 'want'),
  [
    (0.8, 0.3, 0.150020616758),
    (0.5, 0.5, 0.189493254986),
    (0.0, 1.0, 0.194567575101),
    (1.0, 0.0, 0.191366212931),
  ],
)
def test_equals_the_original_code(alpha, beta, want):
  """Computed with its PyTorch code in float64, at T = 4."""
  got = exact(alpha_beta, STUDENT, TEACHER, alpha, beta, 4.0)
  np.testing.assert_allclose(np.mean(got), want, rtol=1e-10)


@pytest.mark.parametrize(
  ('alpha', 'beta', 'want'),
  [
    *(
      (a, b, definition(p, q, a, b))
      for a in (-0.5, 0.3, 1.0, 2.5)
      for b in (-0.7, 0.2, 1.0)
    ),
    *((a, 0.0, at_beta_0(p, q, a)) for a in (-1.0, 0.5, 1.0, 3.0)),
    *((0.0, b, at_beta_0(q, p, b)) for b in (-1.0, 0.5, 1.0, 3.0)),
    *((a, -a, at_opposites(p, q, a)) for a in (-0.5, 0.5, 1.0, 2.0)),
    (0.0, 0.0, 0.5 * np.sum(np.log(p / q) ** 2, axis=-1)),
    (1.0, 0.0, divergence(p, q)),
    (0.0, 1.0, divergence(q, p)),
    (1.0, 1.0, 0.5 * np.sum((p - q) ** 2, axis=-1)),
    (0.5, 0.5, 2 * np.sum((np.sqrt(p) - np.sqrt(q)) ** 2, axis=-1)),
  ],
)
def test_matches_numpy(alpha, beta, want):
  got = exact(alpha_beta, STUDENT, TEACHER, alpha, beta, 4.0)
  np.testing.assert_allclose(got, want, rtol=1e-10)
  got = alpha_beta(STUDENT, TEACHER, alpha, beta, 4.0)
  np.testing.assert_allclose(got, want, rtol=1e-4)


@pytest.mark.parametrize(
  'point', [(1, 0), (0.5, 0), (0, 2), (0.7, -0.7), (0, 0)]
)
@pytest.mark.parametrize('step', [1e-2, 1e-4, 1e-6, 1e-9, 1e-12])
@pytest.mark.parametrize('direction', [(1, 0.3), (-0.4, 1)])
def test_is_continuous_at_its_limits(point, step, direction):
  """Values and gradients: no digits are lost beside a limit, in float32 too."""
  a, b = point
  near = a + step * direction[0], b + step * direction[1]
  for function in (alpha_beta, gradient):
    limit = exact(function, STUDENT, TEACHER, a, b)
    size = np.abs(limit).max()
    there = exact(function, STUDENT, TEACHER, *near)
    np.testing.assert_allclose(there, limit, atol=30 * step * size)
    rough = function(STUDENT, TEACHER, *near)
    np.testing.assert_allclose(rough, there, atol=1e-5 * size)


@pytest.mark.parametrize(('a', 'b'), [(0.8, 0.3), (0.5, 0.5), (2.0, -0.5)])
@pytest.mark.parametrize('scale', [0.1, 1.0, 3.0])
def test_gradient_is_that_of_the_definition(a, b, scale):
  """On both sides of the border between the series and the definition."""

  def plain(s, t):
    p, q = jax.nn.softmax(t), jax.nn.softmax(s)
    terms = p**a * q**b - (a * p ** (a + b) + b * q ** (a + b)) / (a + b)
    return -jnp.sum(terms) / (a * b)

  s, t = scale * STUDENT, scale * TEACHER
  with jax.enable_x64(True):
    want = jax.grad(plain)(jnp.asarray(s), jnp.asarray(t))
  np.testing.assert_allclose(exact(gradient, s, t, a, b), want, atol=1e-11)


@hypothesis.given(logits, logits, exponents, exponents)
def test_is_a_divergence(s, t, alpha, beta):
  assert np.all(alpha_beta(s, t, alpha, beta) >= 0)
  np.testing.assert_allclose(alpha_beta(t, t, alpha, beta), 0, atol=1e-9)
  np.testing.assert_allclose(gradient(t, t, alpha, beta), 0, atol=1e-5)


@hypothesis.given(logits, logits, exponents, exponents)
def test_exponents_and_arguments_change_places_together(s, t, alpha, beta):
  np.testing.assert_allclose(
    exact(alpha_beta, s, t, alpha, beta),
    exact(alpha_beta, t, s, beta, alpha),
    rtol=1e-9,
    atol=1e-12,
  )


@hypothesis.given(logits, logits, st.floats(-50, 50, width=32), exponents)
def test_a_shift_of_all_logits_does_not_matter(s, t, shift, alpha):
  want = exact(alpha_beta, s, t, alpha, 0.4)
  for moved in ((s + np.float64(shift), t), (s, t + np.float64(shift))):
    got = exact(alpha_beta, *moved, alpha, 0.4)
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-11)


def test_kd_is_one_of_them():
  want = losses.kd(STUDENT, TEACHER, 4.0)
  got = 4.0**2 * alpha_beta(STUDENT, TEACHER, 1.0, 0.0, 4.0)
  np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize(('a', 'b'), [(1, 0), (0.5, 0.5), (1e-6, 1.0), (0, 0)])
def test_a_student_close_to_the_teacher_keeps_its_digits(a, b):
  """To second order it is half of sum p^(a+b) (log q - log p)²."""
  near = TEACHER + 1e-3 * STUDENT
  want = exact(alpha_beta, near, TEACHER, a, b)
  p, d = softmax(TEACHER), np.log(softmax(near) / softmax(TEACHER))
  half = 0.5 * np.sum(p ** (a + b) * d**2, axis=-1)
  np.testing.assert_allclose(want, half, rtol=1e-2)
  with jax.enable_x64(True):
    # Rounding the logits to float32 is no part of the error.
    s, t = (jnp.asarray(np.float32(z), jnp.float64) for z in (near, TEACHER))
    want = np.asarray(losses.alpha_beta(s, t, a, b))
  np.testing.assert_allclose(alpha_beta(near, TEACHER, a, b), want, rtol=5e-3)


def test_saturated_values_are_right():
  """Sure of another class: p is (1, 0), and q is (0, 1)."""
  s, t = np.array([[-1e4, 1e4]], np.float32), np.array([[1e4, -1e4]])
  for a, b, want in (
    (1.0, 0.0, 2e4),
    (0.0, 1.0, 2e4),
    (1.0, 1.0, 1),
    (0.5, 0.5, 4),
    (0.8, 0.3, 1 / 0.24),
    (0.0, 0.0, 4e8),
  ):
    got = alpha_beta(s, t.astype(np.float32), a, b)
    np.testing.assert_allclose(got, [want], rtol=1e-3)


def test_refuses_a_temperature():
  with pytest.raises(ValueError, match='alpha_beta needs .* above 0, got 0'):
    losses.alpha_beta(STUDENT, TEACHER, temperature=0)


def test_refuses_logits_of_other_shapes():
  with pytest.raises(AssertionError, match=r'\(4, 10\).*\(4, 9\)'):
    losses.alpha_beta(STUDENT, TEACHER[:, :9])
