"""Losses between consecutive maps: published values, NumPy, corners."""

import functools
from itertools import pairwise

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_maps import S1, S2, T1, U1, U4, rectified
from jax.test_util import check_grads

from jaxkd import losses

LOSSES = {
  'fsp': losses.fsp,
  'svd_channels': losses.svd_channels,
  'svd_rows': losses.svd_rows,
}
# How a map becomes the matrix whose singular vectors are compared.
MATRICES = {
  'svd_channels': lambda x: x.reshape(len(x), -1, x.shape[3]),
  'svd_rows': lambda x: np.swapaxes(x, 2, 3).reshape(len(x), -1, x.shape[2]),
}
SHAPES = ((3, 4, 4, 2), (3, 2, 2, 5))  # many pixels, and then many channels
each = pytest.mark.parametrize('name', LOSSES)
each_svd = pytest.mark.parametrize('name', MATRICES)


def random(*shape: int, seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).normal(size=shape)


def maps(seed: int, shapes=SHAPES) -> tuple[np.ndarray, ...]:
  return tuple(random(*x, seed=seed + i) for i, x in enumerate(shapes))


@functools.cache
def value_and_slopes(name: str):
  """Compiles (s, t) -> (losses [B], gradients of their sum at s and at t)."""

  def total(s, t):
    each = LOSSES[name](s, t)
    return jnp.sum(each), each

  both = jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))

  def run(s, t):
    (_, value), slopes = both(*jax.tree.map(np.float32, (s, t)))
    return value, jax.tree.leaves(slopes)

  return run


@functools.cache
def compiled(name: str):
  return jax.jit(LOSSES[name])


def exactly(name: str, s, t) -> np.ndarray:
  """Returns a loss in float64."""
  with jax.enable_x64(True):
    got = compiled(name)(*jax.tree.map(jnp.asarray, (tuple(s), tuple(t))))
    assert got.dtype == np.float64
    return np.asarray(got)


@pytest.mark.parametrize(
  ('name', 'student', 'teacher', 'want', 'rtol'),
  [
    ('fsp', (S1, S2), (U1, U4), 0.0207339419064, 1e-10),
    (
      'svd_channels',
      (S1, S2),
      (
        rectified((4, 6, 8, 8), 0.17, 0.4, 1.5),
        rectified((4, 12, 4, 4), 0.19, 0.6, 1.2),
      ),
      0.0228328571638,
      1e-10,
    ),
    (
      'svd_rows',
      (S1, S2),
      (T1, rectified((4, 16, 4, 4), 0.19, 0.6, 1.2)),
      3.11313215207e-06,
      1e-4,  # that code rounds to float32 here
    ),
  ],
)
def test_equals_the_original_code(name, student, teacher, want, rtol):
  """Computed with the CIFAR-100 benchmark's PyTorch code in float64."""
  got = exactly(name, student, teacher)
  chex.assert_shape(got, (4,))
  np.testing.assert_allclose(np.mean(got), want, rtol=rtol)


def numpy_fsp(s, t):
  """Of maps of 4 x 4 and 2 x 2."""

  def flow(first, last):
    pooled = first.reshape(3, 2, 2, 2, 2, -1).mean(axis=(2, 4))
    return np.mean(
      pooled[..., :, None] * last[..., None, :], axis=(1, 2)
    )  # [B, C, C']

  return ((flow(*s) - flow(*t)) ** 2).mean(axis=(1, 2))


def test_fsp_equals_numpy():
  s, t = maps(0), maps(2)
  want = numpy_fsp(s, t)
  np.testing.assert_allclose(exactly('fsp', s, t), want, rtol=1e-12)


def numpy_svd(matrix, student, teacher):
  """Returns the loss by full decompositions."""

  def vectors(x):
    return np.linalg.svd(matrix(x))[2]  # [B, N, N], in rows

  def aligned(s, t):
    pairs = []
    for v, w in zip(vectors(s), vectors(t)[:, 0], strict=True):
      w *= 1 if w.sum() > 0 else -1
      v = v[: min(4, *matrix(s).shape[1:])]
      best = v[np.argmax(np.abs(v @ w))]
      pairs.append((best * np.sign(best @ w), w))
    return pairs

  def kernel(v, before):
    return np.exp(-(np.subtract.outer(v, before) ** 2) / 8)

  aligned_vectors = [
    aligned(*pair) for pair in zip(student, teacher, strict=True)
  ]
  total = np.zeros(len(student[0]))
  for i in range(len(total)):
    for before, after in pairwise(aligned_vectors):
      (s0, t0), (s1, t1) = before[i], after[i]
      total[i] += np.sum((kernel(s1, s0) - kernel(t1, t0)) ** 2)
  return total


@each_svd
def test_svd_equals_numpy(name):
  """With negative features, three stages, and another size of teacher."""
  shapes = (*SHAPES, (3, 2, 2, 3))
  s, t = maps(0, shapes), maps(3, shapes)
  if name == 'svd_channels':
    t = (random(3, 5, 5, 2), *t[1:])
  want = numpy_svd(MATRICES[name], s, t)
  np.testing.assert_allclose(exactly(name, s, t), want, rtol=1e-8)


@each
def test_gradient_is_that_of_differences(name):
  """At the student, whose singular values are well separated."""
  with jax.enable_x64(True):
    teacher = tuple(map(jnp.asarray, maps(2)))
    loss = jax.jit(lambda *s: LOSSES[name](s, teacher))
    check_grads(loss, maps(0), order=1, modes=['rev'], rtol=1e-5)


def spectrum(values, rows=6, seed=0):
  """Returns a matrix [1, rows, N] with these singular values."""
  u, _ = np.linalg.qr(random(rows, len(values), seed=seed))
  v, _ = np.linalg.qr(random(len(values), len(values), seed=seed + 1))
  return (u * np.array(values)) @ v.T[None], v


@pytest.mark.parametrize(
  'values',
  [
    (2, 2, 2, 2, 2),
    (2, 2, 1, 1, 0.5),
    (3, 2, 1, 0.5, 0.5),
    (3, 3, 0, 0, 0),
    (1, 0, 0, 0, 0),
    (3, 3 - 1e-6, 1, 1, 1),
  ],
)
def test_repeated_singular_values(values):
  """Then the vectors are not unique; they and their gradients stay finite."""
  x, _ = spectrum(values)
  shape = (1, 2, 3, 5)
  s = (x.reshape(shape), random(*shape))
  t = (random(*shape, seed=1), x.reshape(shape))
  for first, second in ((s, t), (t, s), (s, s)):
    value, slopes = value_and_slopes('svd_channels')(first, second)
    assert np.all(np.isfinite(value))
    for slope in slopes:
      assert np.all(np.isfinite(slope))
      assert np.max(np.abs(slope)) < 1e4


@pytest.mark.parametrize('name', MATRICES)
def test_svd_losses_do_not_call_lapack(name):
  """On CPU, two calls of LAPACK in one program can wait forever."""
  s, t = (jax.tree.map(np.float32, maps(i)) for i in (0, 2))
  slope = jax.grad(lambda s: jnp.sum(LOSSES[name](s, t)))
  text = jax.jit(slope).lower(s).as_text()
  assert 'lapack' not in text
  assert 'custom_call' not in text.replace('custom_call @Sharding', '')


CORNERS = {
  'zeros': lambda x: np.zeros_like(x),
  'constant': lambda x: np.full_like(x, 3.0),
  'a dead example': lambda x: x * (np.arange(3) > 0)[:, None, None, None],
  'a dead channel': lambda x: x * (np.arange(x.shape[3]) > 0),
  'tiny': lambda x: 1e-6 * x,
  'large': lambda x: 1e4 * x,
  'rectified': lambda x: np.maximum(x, 0),
}


@each
@pytest.mark.parametrize('student', CORNERS)
def test_corners_are_finite(name, student):
  s = jax.tree.map(CORNERS[student], maps(0))
  for teacher in CORNERS.values():
    t = jax.tree.map(teacher, maps(2))
    for ours in (s, (s[0], maps(0)[1])):
      value, slopes = value_and_slopes(name)(ours, t)
      assert np.all(np.isfinite(value))
      assert all(np.all(np.isfinite(slope)) for slope in slopes)


@each
def test_maps_of_one_pixel(name):
  shapes = ((2, 1, 1, 2), (2, 1, 1, 5))
  value, slopes = value_and_slopes(name)(maps(0, shapes), maps(2, shapes))
  assert np.all(np.isfinite(value))
  assert all(np.all(np.isfinite(slope)) for slope in slopes)


@each
def test_is_zero_and_flat_at_the_teacher(name):
  t = maps(0)
  value, slopes = value_and_slopes(name)(t, t)
  np.testing.assert_allclose(value, np.zeros(3), atol=1e-6)
  for slope in slopes[:2]:  # the student's
    np.testing.assert_allclose(slope, np.zeros_like(slope), atol=1e-5)


@each
def test_the_loss_of_an_example_is_independent_of_the_others(name):
  s, t = maps(0), maps(2)
  whole, _ = value_and_slopes(name)(s, t)
  chex.assert_shape(whole, (3,))
  turn = functools.partial(jax.tree.map, lambda x: x[::-1])
  turned, _ = value_and_slopes(name)(turn(s), turn(t))
  np.testing.assert_allclose(turned, whole[::-1], rtol=1e-4, atol=1e-6)
  alike = functools.partial(jax.tree.map, lambda x: np.repeat(x[1:2], 3, 0))
  among_copies, _ = value_and_slopes(name)(alike(s), alike(t))
  want = np.repeat(whole[1:2], 3)
  np.testing.assert_allclose(among_copies, want, rtol=1e-4, atol=1e-6)


@each_svd
def test_scale_and_sign_do_not_matter_to_svd(name):
  s, t = maps(0), maps(2)
  want = exactly(name, s, t)
  other = exactly(name, (-3 * s[0], s[1] / 7), (t[0], -2 * t[1]))
  np.testing.assert_allclose(other, want, rtol=1e-9)


def test_order_of_positions_does_not_matter_to_svd_channels():
  s, t = maps(0), maps(2)
  order = np.random.default_rng(0).permutation(16)
  mixed = s[0].reshape(3, 16, 2)[:, order].reshape(s[0].shape)
  want = exactly('svd_channels', s, t)
  got = exactly('svd_channels', (mixed, s[1]), t)
  np.testing.assert_allclose(got, want, rtol=1e-9)


@each
def test_bfloat16_is_computed_in_float32(name):
  s, t = jax.tree.map(
    lambda x: jnp.asarray(x, jnp.bfloat16), (maps(0), maps(2))
  )
  value = compiled(name)(s, t)
  exact, _ = value_and_slopes(name)(*jax.tree.map(np.float32, (s, t)))
  assert value.dtype == jnp.float32
  np.testing.assert_allclose(value, exact, rtol=1e-4, atol=1e-6)
  total = lambda s, t: jnp.sum(LOSSES[name](s, t))
  slopes = jax.eval_shape(jax.grad(total, argnums=(0, 1)), s, t)
  assert {x.dtype.name for x in jax.tree.leaves(slopes)} == {'bfloat16'}


@pytest.mark.parametrize(
  ('name', 'what', 'shape'),
  [
    ('fsp', 'channels', (3, 4, 4, 3)),
    ('svd_channels', 'channels', (3, 4, 4, 3)),
    ('svd_rows', 'columns', (3, 4, 3, 2)),
  ],
)
def test_refuses_maps_of_other_shapes(name, what, shape):
  t = jax.tree.map(np.float32, maps(0))
  other = (np.zeros(shape, np.float32), t[1])
  message = rf'{name} needs as many {what} .* got 3 .* and \d for the teacher'
  with pytest.raises(ValueError, match=message):
    LOSSES[name](other, t)


@each_svd
def test_refuses_a_single_stage(name):
  t = jax.tree.map(np.float32, maps(0))
  with pytest.raises(ValueError, match='two or more maps, .* got 1 .* and 1'):
    LOSSES[name](t[:1], t[:1])
  with pytest.raises(ValueError, match='as many of both .* got 2 .* and 1'):
    LOSSES[name](t, t[:1])
