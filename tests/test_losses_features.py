"""Losses of feature maps: published values, NumPy in float64, corners."""

import functools

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_maps import (
  S1,
  S2,
  S_VECTORS,
  SOURCE,
  T1,
  T2_SMALL,
  TARGET,
  U1,
  U2,
  U3,
)
from jax.test_util import check_grads

from jaxkd import losses

MARGIN = np.array([-0.5, -1.0])
LOG_SCALE = np.array([0.3, -2.0])


def vid(s, t):
  return losses.vid(s, t, jnp.asarray(LOG_SCALE, s.dtype))


def ofd(s, t):
  return losses.ofd(s, t, jnp.asarray(MARGIN, s.dtype))


LOSSES = {
  'activation_boundary': losses.activation_boundary,
  'attention': losses.attention,
  'factor': losses.factor,
  'hcl': losses.hcl,
  'hint': losses.hint,
  'nst': losses.nst,
  'ofd': ofd,
  'vid': vid,
}
each = pytest.mark.parametrize('name', LOSSES)


def random(*shape: int, seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).normal(size=shape)


@functools.cache
def value_and_slopes(name: str):
  """Compiles (s, t) -> (losses [B], gradients of their sum at s and at t)."""

  def total(s, t):
    each = LOSSES[name](s, t)
    return jnp.sum(each), each

  both = jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))

  def run(s, t):
    (_, value), slopes = both(s, t)
    return value, slopes

  return run


def exactly(loss, *args) -> np.ndarray:
  """Returns a loss in float64."""
  with jax.enable_x64(True):
    got = jax.jit(loss)(*map(jnp.asarray, args))
    assert got.dtype == np.float64
    return np.asarray(got)


@pytest.mark.parametrize(
  ('loss', 'student', 'teacher', 'want'),
  [
    (losses.attention, S1, T1, 0.000890505566124),
    (losses.attention, S2, T2_SMALL, 0.000172136915649),
    (losses.factor, S1, T1, 0.0252507626948),
    (losses.nst, S1, T1, 0.154787315904),
    (losses.nst, S2, T2_SMALL, 0.224089937532),
    (losses.hcl, S1, U1, 0.505314454475),
    (losses.hcl, S2, U2, 0.606099034024),
    (losses.hcl, S_VECTORS[:, None, None], U3, 1.02098172777),
    (ofd, SOURCE, TARGET, 59.2862002494),
    (losses.activation_boundary, SOURCE, TARGET, 0.164391461111 / 0.003),
  ],
)
def test_equals_the_original_code(loss, student, teacher, want):
  """Computed with the CIFAR-100 benchmark's PyTorch code in float64."""
  got = exactly(loss, student, teacher)
  chex.assert_shape(got, (4,))
  np.testing.assert_allclose(np.mean(got), want, rtol=1e-10)


def test_attention_names_its_maps():
  got = losses.attention(student_map=S1, teacher_map=T1)
  np.testing.assert_array_equal(got, losses.attention(S1, T1))


def unit(x: np.ndarray, axis: int) -> np.ndarray:
  return x / np.maximum(np.linalg.norm(x, axis=axis, keepdims=True), 1e-12)


def energy(x: np.ndarray) -> np.ndarray:
  return unit((x**2).mean(axis=-1).reshape(len(x), -1), axis=1)


def numpy_nst(s, t):
  s, t = (unit(x.reshape(len(x), -1, x.shape[-1]), axis=1) for x in (s, t))

  def kernel(a, b):
    pairs = [
      np.sum(a[..., i] * b[..., j], axis=1) ** 2
      for i in range(a.shape[-1])
      for j in range(b.shape[-1])
    ]
    return np.mean(pairs, axis=0)

  return kernel(s, s) + kernel(t, t) - 2 * kernel(s, t)


def windows(extent: int, cells: int):
  return [
    slice(
      int(np.floor(i * extent / cells)), int(np.ceil((i + 1) * extent / cells))
    )
    for i in range(cells)
  ]


def numpy_hcl(s, t):
  height, width = s.shape[1:3]
  total, weights, weight = ((s - t) ** 2).mean(axis=(1, 2, 3)), 1.0, 1.0
  for level in (4, 2, 1):
    if level < height:
      weight /= 2
      weights += weight
      error = 0.0
      for rows in windows(height, level):
        for columns in windows(width, level):
          cell = (s - t)[:, rows, columns].mean(axis=(1, 2))
          error += (cell**2).mean(axis=-1) / level**2
      total += weight * error
  return total / weights


def numpy_ofd(s, t):
  m = MARGIN + np.zeros_like(s)
  error = np.select(
    [(s > m) & (t <= m), (s > t) & (m < t) & (t <= 0), t > 0],
    [(s - m) ** 2, (s - t) ** 2, (s - t) ** 2],
    0,
  )
  return error.sum(axis=(1, 2, 3))


def numpy_activation_boundary(s, t):
  error = (s + 1) ** 2 * ((s > -1) & (t <= 0))
  error += (s - 1) ** 2 * ((s <= 1) & (t > 0))
  return error.sum(axis=(1, 2, 3))


def numpy_vid(s, t):
  variance = np.log(1 + np.exp(LOG_SCALE)) + 1e-5
  error = 0.5 * ((s - t) ** 2 / variance + np.log(variance))
  return error.mean(axis=(1, 2, 3))


@pytest.mark.parametrize(
  ('loss', 'reference', 'student', 'teacher'),
  [
    (losses.hint, lambda s, t: ((s - t) ** 2).mean(1), (3, 5), (3, 5)),
    (
      losses.hint,
      lambda s, t: ((s - t) ** 2).mean((1, 2, 3)),
      (3, 4, 2, 5),
      (3, 4, 2, 5),
    ),
    (
      losses.attention,
      lambda s, t: ((energy(s) - energy(t)) ** 2).mean(1),
      (3, 4, 2, 5),
      (3, 4, 2, 7),
    ),
    (
      losses.factor,
      lambda s, t: np.abs(energy(s) - energy(t)).mean(1),
      (3, 4, 2, 5),
      (3, 4, 2, 7),
    ),
    (losses.nst, numpy_nst, (3, 5, 6, 2), (3, 5, 6, 4)),  # many pixels
    (losses.nst, numpy_nst, (3, 2, 2, 7), (3, 2, 2, 5)),  # many channels
    (losses.hcl, numpy_hcl, (3, 7, 7, 2), (3, 7, 7, 2)),  # 4 and 2 overlap
    (losses.hcl, numpy_hcl, (3, 4, 4, 2), (3, 4, 4, 2)),
    (losses.hcl, numpy_hcl, (3, 1, 1, 2), (3, 1, 1, 2)),
    (ofd, numpy_ofd, (3, 5, 5, 2), (3, 5, 5, 2)),
    (
      losses.activation_boundary,
      numpy_activation_boundary,
      (3, 5, 5, 2),
      (3, 5, 5, 2),
    ),
    (vid, numpy_vid, (3, 5, 5, 2), (3, 5, 5, 2)),
  ],
)
def test_equals_numpy(loss, reference, student, teacher):
  s, t = random(*student), random(*teacher, seed=1)
  np.testing.assert_allclose(exactly(loss, s, t), reference(s, t), rtol=1e-10)


@each
def test_gradient_is_that_of_differences(name):
  loss = jax.jit(LOSSES[name])
  s, t = random(2, 4, 4, 2), random(2, 4, 4, 2, seed=1)
  with jax.enable_x64(True):
    check_grads(loss, (s, t), order=1, rtol=1e-6)


@each
def test_the_loss_of_an_example_is_independent_of_the_others(name):
  s, t = np.float32([random(4, 4, 4, 2), random(4, 4, 4, 2, seed=1)])
  whole, _ = value_and_slopes(name)(s, t)
  chex.assert_shape(whole, (4,))
  turned, _ = value_and_slopes(name)(s[::-1], t[::-1])
  np.testing.assert_allclose(turned, whole[::-1], rtol=1e-5)
  alone = jax.jit(LOSSES[name])(s[1:2], t[1:2])
  np.testing.assert_allclose(alone, whole[1:2], rtol=1e-5)


CORNERS = {
  'zeros': lambda x: np.zeros_like(x),
  'constant': lambda x: np.full_like(x, 3.0),
  'a dead example': lambda x: x * (np.arange(4) > 0)[:, None, None, None],
  'a dead channel': lambda x: x * (np.arange(2) > 0),
  'a single pixel': lambda x: x * (np.indices(x.shape)[1:3].sum(axis=0) == 0),
  'tiny': lambda x: 1e-6 * x,
  'large': lambda x: 1e4 * x,
  'negative': lambda x: -np.abs(x),
}


@each
@pytest.mark.parametrize('student', CORNERS)
def test_corners_are_finite(name, student):
  plain = random(4, 4, 4, 2).astype(np.float32)
  s = CORNERS[student](plain).astype(np.float32)
  for teacher in CORNERS.values():
    for t in (teacher(plain), teacher(plain[::-1])):
      value, slopes = value_and_slopes(name)(s, t.astype(np.float32))
      assert np.all(np.isfinite(value))
      assert all(np.all(np.isfinite(slope)) for slope in slopes)


@pytest.mark.parametrize('name', ['attention', 'factor', 'nst'])
def test_dead_channels_have_no_gradient(name):
  """The direction of zero is not defined."""
  alive = random(4, 4, 4, 2).astype(np.float32)
  dead = np.zeros_like(alive)
  dead[..., 1] = alive[..., 1]
  _, (slope, _) = value_and_slopes(name)(dead, alive[::-1])
  np.testing.assert_array_equal(slope[..., 0], np.zeros((4, 4, 4)))
  assert np.any(slope[..., 1] != 0)


@each
def test_maps_of_one_pixel(name):
  s, t = np.float32([random(4, 1, 1, 2), random(4, 1, 1, 2, seed=1)])
  for student in (s, np.zeros_like(s)):
    value, slopes = value_and_slopes(name)(student, t)
    assert np.all(np.isfinite(value))
    assert all(np.all(np.isfinite(slope)) for slope in slopes)


@pytest.mark.parametrize('name', ['attention', 'hcl', 'hint', 'nst', 'ofd'])
def test_is_zero_and_flat_at_the_teacher(name):
  t = random(4, 4, 4, 2).astype(np.float32)
  value, (slope, _) = value_and_slopes(name)(t, t)
  np.testing.assert_allclose(value, np.zeros(4), atol=1e-6)
  np.testing.assert_allclose(slope, np.zeros_like(t), atol=1e-6)


@each
def test_bfloat16_is_computed_in_float32(name):
  s, t = random(4, 4, 4, 2), random(4, 4, 4, 2, seed=1)
  s, t = (jnp.asarray(x, jnp.bfloat16) for x in (s, t))
  value, slopes = value_and_slopes(name)(s, t)
  assert value.dtype == jnp.float32
  if name not in ('ofd', 'vid'):  # those have settings in bfloat16 here
    exact, _ = value_and_slopes(name)(s.astype('float32'), t.astype('float32'))
    np.testing.assert_allclose(value, exact, rtol=1e-6, atol=1e-7)
  assert all(np.all(np.isfinite(np.float32(slope))) for slope in slopes)


scales = st.floats(0.0078125, 128, width=32)


@hypothesis.settings(max_examples=20)
@hypothesis.given(scales, scales, st.permutations([0, 1]))
def test_scale_and_order_of_channels_do_not_matter(by, to, order):
  s, t = np.float32([random(4, 4, 4, 2), random(4, 4, 4, 2, seed=1)])
  for name in ('attention', 'factor', 'nst'):
    want, _ = value_and_slopes(name)(s, t)
    got, _ = value_and_slopes(name)(by * s[..., order], to * t)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('shape', [(2, 6, 6, 3), (2, 2, 2, 12)])
def test_nst_compares_sets_of_channels(shape):
  """Repeating all channels changes nothing; another map differs."""
  t = random(*shape)
  twice = np.concatenate([t, t], axis=-1)
  np.testing.assert_allclose(exactly(losses.nst, twice, t), 0, atol=1e-14)
  assert np.all(exactly(losses.nst, random(*shape, seed=1), t) > 1e-3)


def test_hcl_of_one_level_is_the_hint_loss_of_the_map_and_of_its_mean():
  s, t = random(3, 4, 4, 2), random(3, 4, 4, 2, seed=1)
  mean = lambda x: x.mean(axis=(1, 2))
  want = exactly(losses.hint, s, t) + exactly(losses.hint, mean(s), mean(t)) / 2
  loss = functools.partial(losses.hcl, levels=(4, 1))
  np.testing.assert_allclose(exactly(loss, s, t), want / 1.5, rtol=1e-12)


def test_an_activation_of_zero_counts_as_inactive():
  s, t = random(2, 6).round(), random(2, 6, seed=1).round()
  assert np.any(t == 0)
  want = np.where(t > 0, np.maximum(1 - s, 0), np.maximum(1 + s, 0)) ** 2
  got = exactly(losses.activation_boundary, s, t)
  np.testing.assert_allclose(got, want.sum(axis=1))


@each
def test_refuses_other_shapes(name):
  s = np.zeros((4, 4, 4, 2), np.float32)
  for shape in ((3, 4, 4, 2), (4, 4, 5, 2)):
    with pytest.raises(AssertionError):
      LOSSES[name](s, np.zeros(shape, np.float32))
