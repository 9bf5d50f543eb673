"""KL in groups of classes: its identity, and losses that weigh its parts."""

from functools import partial

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_losses import (
  LABELS,
  STUDENT,
  TEACHER,
  divergence,
  logits,
  random,
  softmax,
  temperatures,
)

from jaxkd import losses

groupings = hnp.arrays(np.int32, (3, 5), elements=st.integers(0, 3))


@partial(jax.jit, static_argnums=(3, 4))
def parts_of(s, t, groups, num_groups=4, temperature=1.0):
  parts = losses.grouped_kl(s, t, groups, num_groups, temperature)
  return parts, parts.between, parts.total


def value_and_slope(function, s):
  """Returns the mean over the batch and its gradient's norm, in float64."""
  with jax.enable_x64(True):
    mean = lambda z: jnp.mean(function(z, jnp.asarray(TEACHER)))
    value, slope = jax.jit(jax.value_and_grad(mean))(s)
  return float(value), np.linalg.norm(slope)


@hypothesis.given(logits, logits, groupings, temperatures)
def test_kl_is_the_sum_of_its_parts(s, t, groups, temperature):
  """Of any groups, empty ones among them, which differ between examples."""
  s, t = s.astype(np.float64), t.astype(np.float64)
  p, q = softmax(t / temperature), softmax(s / temperature)
  with jax.enable_x64(True):
    parts, between, total = parts_of(s, t, groups, 4, temperature)
    assert total.dtype == np.float64
  np.testing.assert_allclose(total, divergence(p, q), rtol=1e-9, atol=1e-12)
  member = groups[:, None] == np.arange(4)[:, None]
  for log_mass, x in ((parts.teacher, p), (parts.student, q)):
    want = np.sum(member * x[:, None], axis=-1)
    np.testing.assert_allclose(np.exp(log_mass), want, rtol=1e-9)
  assert np.all(np.asarray(between) >= -1e-12)
  assert np.all(np.asarray(parts.within) >= -1e-12)
  empty = ~member.any(axis=-1)
  assert np.all(np.asarray(parts.within)[empty] == 0)


def test_groups_may_be_those_of_all_examples():
  groups = np.arange(10) % 4
  one, *_ = parts_of(STUDENT, TEACHER, groups)
  each, *_ = parts_of(STUDENT, TEACHER, np.tile(groups, (4, 1)))
  for a, b in zip(one, each, strict=True):
    np.testing.assert_array_equal(a, b)


def test_a_group_far_below_another_keeps_its_digits():
  far = np.where(np.arange(10) < 5, 1e4, -1e4).astype(np.float32)
  s, t = (far + z.astype(np.float32) for z in (STUDENT, TEACHER))
  parts, *_ = parts_of(s, t, np.arange(10) // 5, 2)
  for g in range(2):
    rows = slice(5 * g, 5 * g + 5)
    p, q = (softmax(z[:, rows].astype(np.float64)) for z in (t, s))
    got = parts.within[:, g]
    np.testing.assert_allclose(got, divergence(p, q), rtol=1e-3)


@pytest.mark.parametrize('groups', [[0, 0, 0, 0, 0], [3, 1, 1, 3, 1]])
def test_gradients_beside_empty_groups(groups):
  total = lambda s, t: jnp.sum(parts_of(s, t, np.array(groups))[2])
  s, t = random(3, 5), random(3, 5, seed=1)
  slopes = jax.grad(total, argnums=(0, 1))(s, t)
  want = jax.grad(lambda s, t: jnp.sum(losses.kd(s, t, 1.0)), (0, 1))(s, t)
  for got, plain in zip(slopes, want, strict=True):
    np.testing.assert_allclose(got, plain, atol=1e-5)


@pytest.mark.parametrize(
  ('weights', 'chooser', 'value', 'slope'),
  [
    ((1, 0, 0), STUDENT, 0.678436683626, 0.195413444312),
    ((0, 1, 0), STUDENT, 2.34045087075, 0.583659438015),
    ((0, 0, 1), STUDENT, 2.3882360456, 0.407095831305),
    ((1, 8, 4), STUDENT, 28.954987832, 4.94613406178),
    ((1, 8, 0), TEACHER, 16.7142430232, 4.32917017589),
  ],
)
def test_grouped_kd_equals_the_original_code(weights, chooser, value, slope):
  """Computed with its PyTorch code in float64, for 3 primary classes."""
  with jax.enable_x64(True):
    primary = losses.primary_classes(jnp.asarray(chooser), LABELS, size=3)
  loss = lambda s, t: losses.grouped_kd(s, t, primary, *weights)
  got = value_and_slope(loss, STUDENT)
  np.testing.assert_allclose(got, (value, slope), rtol=1e-9)


@pytest.mark.parametrize(
  ('gamma', 'temperature', 'value', 'slope'),
  [
    (1.5, 1.0, 4.70688770525, 0.421139282657),
    (3.5, 3.0, 72.1650638851, 1.30473928553),
  ],
)
def test_nkd_equals_the_original_code(gamma, temperature, value, slope):
  """Computed with its PyTorch code in float64."""
  loss = lambda s, t: losses.nkd(s, t, LABELS, gamma, temperature)
  got = value_and_slope(loss, STUDENT)
  np.testing.assert_allclose(got, (value, slope), rtol=1e-9)


def test_slopes_of_dkd_and_kd_equal_the_original_code():
  """Those of DKD with its defaults and of KD at T = 4, in float64."""
  for loss, want in (
    (lambda s, t: losses.dkd(s, t, LABELS), (21.9831282569, 3.05617385223)),
    (losses.kd, (3.0618594069, 0.387176880423)),
  ):
    np.testing.assert_allclose(value_and_slope(loss, STUDENT), want, rtol=1e-9)


def test_nkd_is_flat_at_the_teacher_but_for_the_target():
  others = lambda z: jnp.mean(
    losses.nkd(z, TEACHER, LABELS, 1.0, 3.0)
    - losses.nkd(z, TEACHER, LABELS, 0.0, 3.0)
  )
  np.testing.assert_allclose(jax.grad(others)(TEACHER), 0, atol=1e-5)


def test_dkd_is_grouped_kd_with_the_label_alone():
  """With one primary class there is no divergence among the primary classes."""
  primary = losses.primary_classes(STUDENT, LABELS, size=1)
  np.testing.assert_array_equal(primary, np.eye(10, dtype=bool)[LABELS])
  got = losses.grouped_kd(STUDENT, TEACHER, primary, 1.0, 0.0, 8.0)
  want = losses.dkd(STUDENT, TEACHER, LABELS, 1.0, 8.0)
  np.testing.assert_allclose(got, want, rtol=1e-6)


def test_kd_is_grouped_kd_with_all_classes():
  primary = losses.primary_classes(STUDENT, LABELS, size=10)
  for weights, want in (
    ((1.0, 0.0, 1.0), np.zeros(4)),
    ((0.0, 1.0, 0.0), losses.kd(STUDENT, TEACHER)),
  ):
    got = losses.grouped_kd(STUDENT, TEACHER, primary, *weights)
    np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize('coverage', [0.0, 0.1, 0.5, 0.93, 1.0])
def test_primary_classes_cover_a_share_of_the_batch(coverage):
  mean = np.sort(softmax(STUDENT).mean(axis=0))[::-1]
  sums = np.cumsum(mean)
  n = next((i + 1 for i in range(10) if sums[i] >= coverage - 1e-6), 10)
  primary = losses.primary_classes(STUDENT, LABELS, coverage)
  for row, z, label in zip(primary, STUDENT, LABELS, strict=True):
    best = [c for c in np.argsort(-z) if c != label]
    assert set(np.flatnonzero(row)) == {label, *best[: n - 1]}


def test_which_classes_are_primary_has_no_gradient():
  count = lambda z: jnp.sum(losses.primary_classes(z, LABELS) * 1.0)
  np.testing.assert_array_equal(jax.grad(count)(STUDENT), np.zeros((4, 10)))


def ltkd_in_numpy(s, t, groups, alpha, beta, temperature):
  p, q = softmax(t / temperature), softmax(s / temperature)
  num_groups = groups.max() + 1
  member = groups == np.arange(num_groups)[:, None]
  mass_p, mass_q = (x @ member.T for x in (p, q))
  factor = len(p) / num_groups / mass_p.sum(axis=0)
  balanced = factor * mass_p
  balanced /= balanced.sum(axis=-1, keepdims=True)
  within = 0
  for g, rows in enumerate(member):
    inside = [x[:, rows] / m[:, g, None] for x, m in ((p, mass_p), (q, mass_q))]
    within = within + divergence(*inside)
  return temperature**2 * (alpha * divergence(balanced, mass_q) + beta * within)


@pytest.mark.parametrize('weights', [(1.0, 0.0), (0.0, 1.0), (1.5, 0.4)])
@pytest.mark.parametrize('temperature', [1.0, 4.0])
def test_ltkd_matches_numpy(weights, temperature):
  groups = np.array([2, 0, 1, 1, 0, 2, 2, 1, 0, 1])
  setting = (*weights, temperature)
  want = ltkd_in_numpy(STUDENT, TEACHER, groups, *setting)
  got = losses.ltkd(STUDENT, TEACHER, groups, 3, *setting)
  np.testing.assert_allclose(got, want, rtol=1e-4)


@hypothesis.given(logits)
def test_ltkd_is_invariant_to_a_bias_of_the_teacher_for_each_group(t):
  """The bias is the same for all examples of a batch."""
  groups = np.array([0, 0, 1, 1, 2])
  bias = np.array([3.0, 3.0, 1.0, 1.0, -2.0])
  student = t[::-1].astype(np.float64)
  z = np.tile(t[:1].astype(np.float64), (3, 1))  # the teacher's logits for all
  with jax.enable_x64(True):
    loss = lambda t: losses.ltkd(student, t, groups, 3)
    got, want = loss(z + bias), loss(z)
  np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize('coverage', [-0.1, 1.5])
def test_primary_classes_refuse_a_coverage(coverage):
  with pytest.raises(ValueError, match=f'from 0 to 1, got {coverage}'):
    losses.primary_classes(STUDENT, LABELS, coverage)


def test_primary_classes_refuse_a_size():
  with pytest.raises(ValueError, match='size of 1 or more, got 0'):
    losses.primary_classes(STUDENT, LABELS, size=0)


def test_nkd_refuses_a_single_class():
  with pytest.raises(ValueError, match='nkd .* 2 classes, got logits of 1'):
    losses.nkd(STUDENT[:, :1], TEACHER[:, :1], LABELS)


@pytest.mark.parametrize(
  ('name', 'extra'),
  [
    ('grouped_kl', (np.arange(10), 10)),
    ('nkd', (LABELS, 1.0)),
    ('grouped_kd', (np.ones((4, 10), bool), 1.0, 1.0, 1.0)),
    ('ltkd', (np.arange(10), 10, 1.0, 1.0)),
  ],
)
def test_refuses_a_temperature(name, extra):
  with pytest.raises(ValueError, match=f'{name} needs .* above 0, got -1'):
    getattr(losses, name)(STUDENT, TEACHER, *extra, -1)
