"""Losses of relations in a batch: published values, NumPy, invariances."""

import functools

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_maps import S2, S_VECTORS, T2, T_EMBEDDINGS, T_VECTORS
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.test_util import check_grads

from jaxkd import losses

LOSSES = {
  'correlation_congruence': losses.correlation_congruence,
  'pkt': losses.pkt,
  'rkd_angle': losses.rkd_angle,
  'rkd_distance': losses.rkd_distance,
  'sp': losses.sp,
}
RELATIONS = sorted(set(LOSSES) - {'correlation_congruence'})
each = pytest.mark.parametrize('name', LOSSES)
each_relation = pytest.mark.parametrize('name', RELATIONS)


@functools.cache
def value_and_slopes(name: str):
  """Compiles (s, t) -> (loss, (gradient at s, at t))."""
  return jax.jit(jax.value_and_grad(LOSSES[name], argnums=(0, 1)))


@functools.cache
def compiled(name: str):
  return jax.jit(LOSSES[name])


def random(*shape: int, seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).normal(size=shape)


def pair(*shape: int) -> tuple[np.ndarray, np.ndarray]:
  return tuple(np.float32([random(*shape), random(*shape, seed=1)]))


def exactly(name: str, s, t) -> float:
  """Returns a loss in float64."""
  with jax.enable_x64(True):
    got = compiled(name)(jnp.asarray(s), jnp.asarray(t))
    assert got.dtype == np.float64
    chex.assert_shape(got, ())
    return float(got)


@pytest.mark.parametrize(
  ('name', 'student', 'teacher', 'want'),
  [
    ('sp', S2, T2, 8.40397996053e-05),
    ('pkt', S_VECTORS, T_VECTORS, 0.121826200954),
    ('rkd_distance', S_VECTORS, T_VECTORS, 0.108705551413),
    ('rkd_angle', S_VECTORS, T_VECTORS, 0.164953807744),
    ('correlation_congruence', S_VECTORS, T_EMBEDDINGS, 19.8367500822),
  ],
)
def test_equals_the_original_code(name, student, teacher, want):
  """Computed with the CIFAR-100 benchmark's PyTorch code in float64."""
  got = exactly(name, student, teacher)
  np.testing.assert_allclose(got, want, rtol=1e-10)


def numpy_sp(s, t):
  def rows(x):
    gram = np.array([[np.sum(a * b) for b in x] for a in x])
    return gram / np.linalg.norm(gram, axis=1, keepdims=True)

  return np.sum((rows(t) - rows(s)) ** 2) / len(s) ** 2


def numpy_pkt(s, t):
  def rows(x):
    x = [a / (np.linalg.norm(a) + 1e-7) for a in x]
    chance = np.array([[(1 + a @ b) / 2 for b in x] for a in x])
    return chance / chance.sum(axis=1, keepdims=True)

  p, q = rows(t), rows(s)
  return np.mean(p * np.log((p + 1e-7) / (q + 1e-7)))


def smooth_l1(x):
  x = np.abs(x)
  return np.mean(np.minimum(x, 1) ** 2 / 2 + np.maximum(x - 1, 0))


def numpy_rkd_distance(s, t):
  def distances(x):
    d = np.array([[np.linalg.norm(a - b) for b in x] for a in x])
    return d / d[d > 0].mean()

  return smooth_l1(distances(s) - distances(t))


def numpy_rkd_angle(s, t):
  def cosine(a, b):
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    return a @ b / lengths if lengths else 0.0

  def angles(x):
    return np.array([[[cosine(j - i, k - i) for k in x] for j in x] for i in x])

  return smooth_l1(angles(s) - angles(t))


def numpy_correlation_congruence(s, t):
  gaps = np.abs(s - t)
  return np.mean([a @ b for a, b in zip(gaps, gaps[1:], strict=False)])


@pytest.mark.parametrize('student_width', [3, 7])
@each
def test_equals_numpy(name, student_width):
  teacher_width = 7 if name == 'correlation_congruence' else 5
  s, t = random(6, 7), random(6, teacher_width, seed=1)
  if name != 'correlation_congruence':
    s = 20 * s[:, :student_width] ** 3  # so that some differences are above 1
  want = globals()[f'numpy_{name}'](s, t)
  np.testing.assert_allclose(exactly(name, s, t), want, rtol=1e-10)


@each
def test_gradient_is_that_of_differences(name):
  s, t = random(4, 3), random(4, 3, seed=1)
  with jax.enable_x64(True):
    check_grads(compiled(name), (s, t), order=1, rtol=1e-6)


CORNERS = {
  'zeros': lambda x: np.zeros_like(x),
  'all the same': lambda x: np.ones_like(x) * x[:1],
  'two the same': lambda x: x[[0, 0, 2, 3]],
  'one of zeros': lambda x: x * (np.arange(4) > 0)[:, None],
  'on a line': lambda x: np.ones_like(x) * np.arange(4)[:, None],
  'opposite': lambda x: x[[0, 0, 2, 2]] * np.array([1, -1, 1, -1])[:, None],
  'tiny': lambda x: 1e-8 * x,
  'large': lambda x: 1e4 * x,
}


@each
@pytest.mark.parametrize('student', CORNERS)
def test_corners_are_finite(name, student):
  plain, other = pair(4, 3)
  s = np.float32(CORNERS[student](plain))
  for teacher in CORNERS.values():
    value, slopes = value_and_slopes(name)(s, np.float32(teacher(other)))
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(slope)) for slope in slopes)


@each_relation
def test_gradient_at_an_example_of_zeros_is_bounded(name):
  """Dividing by its length would make the gradient huge."""
  s, t = pair(4, 3)
  s[0] = 0
  _, (slope, _) = value_and_slopes(name)(s, t)
  assert np.max(np.abs(slope)) < 10


@each
def test_gradient_at_equal_examples_is_bounded(name):
  s, t = pair(4, 3)
  s[1] = s[0]
  _, (slope, _) = value_and_slopes(name)(s, t)
  assert np.max(np.abs(slope)) < 10


@each
def test_a_batch_of_one_has_no_relations(name):
  s, t = pair(1, 3)
  value, slopes = value_and_slopes(name)(s, t)
  np.testing.assert_allclose(value, 0, atol=1e-7)
  for student in (s, np.zeros_like(s)):
    value, slopes = value_and_slopes(name)(student, t)
    assert np.isfinite(value)
    for slope in slopes:
      np.testing.assert_allclose(slope, np.zeros((1, 3)), atol=1e-6)


@each
def test_is_zero_and_flat_at_the_teacher(name):
  t, _ = pair(4, 3)
  value, (slope, _) = value_and_slopes(name)(t, t)
  np.testing.assert_allclose(value, 0, atol=1e-7)
  np.testing.assert_allclose(slope, np.zeros_like(t), atol=1e-6)


@each
def test_bfloat16_is_computed_in_float32(name):
  s, t = (jnp.asarray(x, jnp.bfloat16) for x in pair(4, 3))
  value, slopes = value_and_slopes(name)(s, t)
  exact, _ = value_and_slopes(name)(s.astype('float32'), t.astype('float32'))
  assert value.dtype == jnp.float32
  np.testing.assert_allclose(value, exact, rtol=1e-6)
  assert all(np.all(np.isfinite(np.float32(slope))) for slope in slopes)


@hypothesis.settings(max_examples=20)
@hypothesis.given(st.permutations(range(5)), st.floats(0.125, 8, width=32))
def test_order_and_scale_do_not_matter(order, scale):
  s, t = pair(5, 4)
  for name in RELATIONS:
    want = compiled(name)(s, t)
    got = compiled(name)(scale * s[order], t[order] / scale)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


@hypothesis.settings(max_examples=10)
@hypothesis.given(st.integers(0, 1000), st.floats(-4, 4, width=32))
def test_rotation_and_position_do_not_matter(seed, shift):
  """The position matters to similarities, which depend on the origin."""
  s, t = pair(5, 4)
  turn, _ = np.linalg.qr(random(4, 4, seed=seed))
  turned = np.float32(s @ turn)
  for name in RELATIONS:
    moved = turned + shift if name.startswith('rkd') else turned
    np.testing.assert_allclose(
      compiled(name)(moved, t), compiled(name)(s, t), rtol=1e-4, atol=1e-6
    )


def test_a_shift_matters_to_similarities():
  s, t = pair(5, 4)
  for name in ('pkt', 'sp'):
    assert abs(compiled(name)(s + 4, t) - compiled(name)(s, t)) > 1e-3


def test_near_neighbours_far_from_the_origin_keep_their_distance():
  """A Gram matrix in float32 would lose it."""
  s, t = np.float32([[1000.0, 0], [1000.0, 0.01], [1001.0, 0]]), pair(3, 4)[1]
  for name in ('rkd_distance', 'rkd_angle'):
    want = exactly(name, s.astype(np.float64), t.astype(np.float64))
    np.testing.assert_allclose(compiled(name)(s, t), want, rtol=1e-5)


@pytest.mark.parametrize('name', ['rkd_distance', 'rkd_angle'])
def test_triples_fit_in_memory(name):
  """A batch and its pairs are held, B² D; never its triples, B³ D."""
  batch, width = 16, 64
  shape = jax.ShapeDtypeStruct((batch, width), np.float32)
  slope = jax.jit(jax.grad(LOSSES[name])).lower(shape, shape).compile()
  held = slope.memory_analysis().temp_size_in_bytes
  assert held < 4 * batch**3 * width / 2


@each
def test_a_map_is_a_vector(name):
  s, t = pair(4, 2 * 2 * 3)
  maps = (x.reshape(4, 2, 2, 3) for x in (s, t))
  np.testing.assert_allclose(
    compiled(name)(*maps), compiled(name)(s, t), rtol=1e-6
  )


@each
def test_the_batch_is_that_of_all_devices(name):
  mesh = jax.make_mesh((4,), ('data',), axis_types=(AxisType.Auto,))
  split = NamedSharding(mesh, PartitionSpec('data'))
  s, t = pair(8, 3)
  want, (slope, _) = value_and_slopes(name)(s, t)
  got, (split_slope, _) = value_and_slopes(name)(*jax.device_put((s, t), split))
  np.testing.assert_allclose(got, want, rtol=1e-5)
  np.testing.assert_allclose(split_slope, slope, rtol=1e-4, atol=1e-6)


@each
def test_refuses_another_batch(name):
  s, t = pair(4, 3)
  with pytest.raises(AssertionError):
    LOSSES[name](s, t[:3])
