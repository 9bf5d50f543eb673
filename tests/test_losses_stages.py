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
from jaxkd.losses import stages

LOSSES = {
  'fsp': losses.fsp,
  'svd_channels': losses.svd_channels,
  'svd_rows': losses.svd_rows,
}
# How a map becomes the matrix of which there are singular vectors.
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
    found = []
    for v, w in zip(vectors(s), vectors(t)[:, 0], strict=True):
      w *= 1 if w.sum() > 0 else -1
      v = v[: min(4, *matrix(s).shape[1:])]
      best = v[np.argmax(np.abs(v @ w))]
      found.append((best * np.sign(best @ w), w))
    return found

  def kernel(v, before):
    return np.exp(-(np.subtract.outer(v, before) ** 2) / 8)

  kept = [aligned(*pair) for pair in zip(student, teacher, strict=True)]
  total = np.zeros(len(student[0]))
  for i in range(len(total)):
    for before, after in pairwise(kept):
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
  """At the student, whose singular values are well apart."""
  with jax.enable_x64(True):
    teacher = tuple(map(jnp.asarray, maps(2)))
    loss = jax.jit(lambda *s: LOSSES[name](s, teacher))
    check_grads(loss, maps(0), order=1, modes=['rev'], rtol=1e-5)


def spectrum(values, rows=6, seed=0):
  """Returns a matrix [1, rows, N] with these singular values."""
  u, _ = np.linalg.qr(random(rows, len(values), seed=seed))
  v, _ = np.linalg.qr(random(len(values), len(values), seed=seed + 1))
  return (u * np.array(values)) @ v.T[None], v


@pytest.mark.parametrize('wide', [False, True], ids=['tall', 'wide'])
def test_vectors_and_their_gradient_without_a_decomposition(wide):
  """Against LAPACK's vectors and differences of them, six of which are known.

  The last two values are small and close to each other.
  """
  x, v = spectrum([9, 6, 5, 2, 0.3, 0.29])
  if wide:
    x = np.concatenate([x, random(1, 6, 3, seed=5) / 10], axis=2)
    v = np.linalg.svd(x)[2][0].T
  with jax.enable_x64(True):
    find = jax.jit(lambda x: stages._right_vectors(x, 4))
    got = find(jnp.asarray(x))[0]
    cosines = np.abs(np.sum(np.asarray(got) * v[:, :4], axis=0))
    np.testing.assert_allclose(cosines, np.ones(4), rtol=1e-12)
    # What no sign of a vector changes.
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
  """Of which the gradient is a thousand times that of distant ones."""
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
  """Vectors are then any of a plane; they and their gradients stay finite."""
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
def test_no_two_decompositions_wait_for_each_other(name):
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
def test_an_example_has_its_own_loss(name):
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
def test_singular_vectors_have_neither_scale_nor_sign(name):
  s, t = maps(0), maps(2)
  want = exactly(name, s, t)
  other = exactly(name, (-3 * s[0], s[1] / 7), (t[0], -2 * t[1]))
  np.testing.assert_allclose(other, want, rtol=1e-9)


def test_positions_have_no_order_for_channels_that_respond_together():
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
def test_refuses_what_cannot_be_compared(name, what, shape):
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
