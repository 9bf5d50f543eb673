"""Correlations, differences and ranks of logits."""

import itertools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from test_losses import LABELS, STUDENT, TEACHER, divergence, logits, softmax

from jaxkd import losses


def value_and_slope(function):
  """Returns the mean over the batch and its gradient's norm, in float64."""
  with jax.enable_x64(True):
    mean = lambda z: jnp.mean(function(z, jnp.asarray(TEACHER)))
    value, slope = jax.jit(jax.value_and_grad(mean))(STUDENT)
  return float(value), np.linalg.norm(slope)


@jax.jit
def cmkd(s, t):
  return losses.cmkd(s, t, 'spearman')


def standardised_kd(s, t, temperature):
  s, t = losses.standardise(s), losses.standardise(t)
  return losses.kd(s, t, temperature)


@pytest.mark.parametrize(
  ('loss', 'setting', 'value', 'slope'),
  [
    (losses.dist, (1.0, 1.0, 1.0), 1.96054015149, 0.377047065423),
    (losses.dist, (1.0, 2.0, 4.0), 47.1513541137, 6.62409329024),
    (losses.dist, (1.0, 0.0, 4.0), 16.3063564801, 2.01284184049),
    (losses.dist, (0.0, 1.0, 4.0), 15.4224988168, 2.50089113695),
    (losses.mlkd, (), 14.9004563681, 1.89805163123),
    (losses.mlkd, ((1.0,), 0, 0, 1), 0.0394821605254, 0.00667258007152),
    (losses.mlkd, ((4.0,), 0, 0, 1), 0.00256798454882, 0.000616028475253),
    (losses.mlkd, ((1.0,), 0, 1, 0), 0.034587810197, 0.0114193653195),
    (losses.mlkd, ((4.0,), 0, 1, 0), 0.00104644328378, 0.000135185369827),
    (standardised_kd, (2.0,), 0.870138019356, 0.0938057001812),
    (standardised_kd, (4.0,), 0.907000379142, 0.0955896537557),
  ],
)
def test_equals_the_original_code(loss, setting, value, slope):
  """Computed with the PyTorch code of each paper in float64."""
  got = value_and_slope(lambda s, t: loss(s, t, *setting))
  np.testing.assert_allclose(got, (value, slope), rtol=1e-9)


def correlation(x, y):
  return np.diag(np.corrcoef(x, y)[: len(x), len(x) :])


@pytest.mark.parametrize('setting', [(1.0, 0.0, 1.0), (0.5, 2.0, 4.0)])
def test_dist_matches_numpy(setting):
  beta, gamma, temperature = setting
  q, p = softmax(STUDENT / temperature), softmax(TEACHER / temperature)
  inter = 1 - correlation(q, p).mean()
  intra = 1 - correlation(q.T, p.T).mean()
  want = temperature**2 * (beta * inter + gamma * intra)
  got = jax.jit(losses.dist, static_argnums=(2, 3, 4))(
    STUDENT, TEACHER, *setting
  )
  np.testing.assert_allclose(got, want, rtol=1e-4)


def test_mlkd_matches_numpy():
  want = 0
  for temperature in (1.0, 4.0):
    q, p = softmax(STUDENT / temperature), softmax(TEACHER / temperature)
    want += 0.3 * temperature**2 * divergence(p, q).mean()
    want += 0.5 * np.linalg.norm(q @ q.T - p @ p.T) ** 2 / 4
    want += 0.7 * np.linalg.norm(q.T @ q - p.T @ p) ** 2 / 10
  got = losses.mlkd(STUDENT, TEACHER, (1.0, 4.0), 0.3, 0.5, 0.7)
  np.testing.assert_allclose(got, want, rtol=1e-4)


@pytest.mark.parametrize('scale', [0.3, 0.9])
def test_dist_is_invariant_to_affine_maps_of_the_teacher(scale):
  """Of its probabilities: here towards the uniform distribution."""
  flatter = np.log(scale * softmax(TEACHER) + (1 - scale) / 10)
  with jax.enable_x64(True):
    got, want = (losses.dist(STUDENT, t) for t in (flatter, TEACHER))
  np.testing.assert_allclose(got, want, rtol=1e-6)
  kd = losses.kd(STUDENT, TEACHER, 1.0)
  assert np.all(losses.kd(STUDENT, flatter, 1.0) < 0.9 * kd)


@hypothesis.given(
  logits, logits, st.floats(0.125, 8, width=32), st.floats(-9, 9, width=32)
)
def test_pearson_is_invariant_to_scale_and_shift(x, y, scale, shift):
  with jax.enable_x64(True):
    x, y = (z.astype(np.float64) for z in (x, y))
    x[:, :2] += (1, -1)  # not constant
    y[:, 1:3] += (1, -1)
    rho = losses.pearson(x, y)
    np.testing.assert_allclose(
      losses.pearson(scale * x + shift, y), rho, atol=1e-6
    )
    np.testing.assert_allclose(losses.pearson(-scale * x, y), -rho, atol=1e-6)
    np.testing.assert_allclose(losses.pearson(x, x), 1, atol=1e-6)
    assert np.all(np.abs(rho) <= 1)


def test_squared_error_of_standardised_logits_is_their_correlation():
  s, t = losses.standardise(STUDENT), losses.standardise(TEACHER)
  np.testing.assert_allclose(np.mean(s, axis=-1), 0, atol=1e-6)
  np.testing.assert_allclose(np.std(s, axis=-1, ddof=1), 1, rtol=1e-5)
  want = 2 * 9 * (1 - correlation(STUDENT, TEACHER))
  np.testing.assert_allclose(np.sum((s - t) ** 2, axis=-1), want, rtol=1e-5)


@pytest.mark.parametrize('constant', [0.0, -3.0, 1e4])
@pytest.mark.parametrize(
  'loss',
  [
    losses.dist,
    standardised_kd,
    lambda s, t, temperature: losses.cmkd(s, t, 'pearson', 1, 1, temperature),
  ],
)
def test_gradient_at_constant_logits_is_zero(loss, constant):
  """They have no direction, so a gradient could be arbitrarily large."""
  z = jnp.full((4, 10), constant)
  mean = lambda s: jnp.mean(loss(s, TEACHER, temperature=2.0))
  slope = jax.jit(jax.grad(mean))(z)
  np.testing.assert_array_equal(slope, np.zeros((4, 10)))


@pytest.mark.parametrize(('positives', 'negatives'), [(1, 1), (2, 1), (2, 2)])
def test_comparative_is_the_mean_over_all_comparisons(positives, negatives):
  size, errors = positives + negatives, []
  for order in itertools.permutations(range(4), size):
    first, rest = np.split(np.array(order), [positives])
    gap = lambda z, a=first, b=rest: z[a].mean(axis=0) - z[b].mean(axis=0)
    errors.append(np.mean((gap(STUDENT) - gap(TEACHER)) ** 2))
  got = losses.comparative(STUDENT, TEACHER, positives, negatives)
  np.testing.assert_allclose(got, np.mean(errors), rtol=1e-5)


@hypothesis.given(logits, logits)
def test_comparative_is_invariant_to_a_common_shift(s, t):
  for want in (t, s):
    shared = np.array([[5.0, -3.0, 0.0, 1.0, 7.0]], np.float32)
    got = losses.comparative(s + shared, want)
    np.testing.assert_allclose(
      got, losses.comparative(s, want), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize('size', [1, 2])
def test_comparative_is_0_where_there_is_nothing_to_compare(size):
  s, t = STUDENT[:size], TEACHER[:size]
  loss = jax.jit(lambda s: losses.comparative(s, t, 2, 1))
  assert loss(s) == 0
  np.testing.assert_array_equal(jax.grad(loss)(s), np.zeros((size, 10)))


def test_soft_ranks_become_ranks():
  got = losses.soft_ranks(jnp.asarray(STUDENT), 1e-4)
  want = scipy.stats.rankdata(STUDENT, axis=-1)
  np.testing.assert_allclose(got, want, atol=1e-4)
  tied = jnp.array([[2.0, 7.0, 2.0, 2.0]])
  np.testing.assert_allclose(losses.soft_ranks(tied, 1e-3), [[2, 4, 2, 2]])


@hypothesis.given(logits, st.sampled_from([1e-3, 0.1, 10.0]))
def test_soft_ranks_keep_order_and_mean(z, softness):
  ranks = losses.soft_ranks(z, softness)
  np.testing.assert_allclose(np.mean(ranks, axis=-1), 3, rtol=1e-5)
  for row, rank in zip(z, ranks, strict=True):
    assert np.all(np.diff(np.asarray(rank)[np.argsort(row)]) >= -1e-5)


def test_correlation_of_ranks_is_spearmans():
  pair = (losses.soft_ranks(z, 1e-4) for z in (STUDENT, TEACHER))
  want = [
    scipy.stats.spearmanr(s, t).statistic
    for s, t in zip(STUDENT, TEACHER, strict=True)
  ]
  np.testing.assert_allclose(losses.pearson(*pair), want, rtol=1e-5)
  growing = losses.soft_ranks(np.exp(STUDENT / 3) + 2, 1e-4)
  ranks = losses.soft_ranks(TEACHER, 1e-4)
  np.testing.assert_allclose(losses.pearson(growing, ranks), want, rtol=1e-5)


@pytest.mark.parametrize('hard', ['pearson', 'spearman'])
def test_cmkd_matches_numpy(hard):
  p = softmax(TEACHER)
  h = -np.sum(p * np.log(p), axis=-1) / np.log(10)
  unit = lambda z: (
    (z - z.mean(-1, keepdims=True)) / z.std(-1, keepdims=True, ddof=1)
  )
  gap = lambda z: z[:, :, None] - z[:, None]
  ranks = lambda z: 0.5 + np.sum(1 / (1 + np.exp(-gap(z) / 0.2)), axis=-1)
  s, t = unit(STUDENT), unit(TEACHER)
  values = 1 - correlation(softmax(s / 3), softmax(t / 3))
  order = 1 - correlation(ranks(s), ranks(t))
  w, v = (h, 1 - h) if hard == 'pearson' else (1 - h, h)
  want = 1.5 * w * values + 0.5 * v * order
  got = losses.cmkd(STUDENT, TEACHER, hard, 1.5, 0.5, 3.0, 0.2)
  np.testing.assert_allclose(got, want, rtol=1e-4)


@hypothesis.given(
  logits, st.floats(0.25, 4, width=32), st.floats(-9, 9, width=32)
)
def test_cmkd_is_invariant_to_the_students_scale(s, scale, shift):
  s = (s + np.array([1, -1, 0, 2, 0])).astype(np.float64)
  with jax.enable_x64(True):
    got, want = (cmkd(z, TEACHER[:3, :5]) for z in (scale * s + shift, s))
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda s, t: losses.dist(s, t, temperature=0), 'dist needs .* got 0'),
    (lambda s, t: losses.mlkd(s, t, (4.0, -1.0)), 'mlkd needs .* got -1.0'),
    (lambda s, t: losses.mlkd(s, t, ()), 'at least one temperature, got none'),
    (
      lambda s, t: losses.comparative(s, t, 1, 0),
      'positives=1 and negatives=0',
    ),
    (lambda s, t: losses.cmkd(s, t, 'both'), "'spearman'.*, got 'both'"),
    (
      lambda s, t: losses.cmkd(s, t, 'pearson', temperature=0),
      'cmkd needs a temperature above 0, got 0',
    ),
    (
      lambda s, t: losses.cmkd(s, t, 'pearson', softness=0),
      'cmkd needs a softness above 0, got 0',
    ),
    (
      lambda s, t: losses.standardise(s[:, :1]),
      'standardise .* got logits of 1',
    ),
  ],
)
def test_refuses(call, message):
  with pytest.raises(ValueError, match=message):
    call(STUDENT, TEACHER)


@pytest.mark.parametrize(
  'call',
  [
    losses.dist,
    losses.mlkd,
    losses.comparative,
    lambda s, t: losses.cmkd(s, t, 'pearson'),
    lambda s, t: losses.nkd(s, t, LABELS),
    lambda s, t: losses.grouped_kl(s, t, np.arange(10), 10),
  ],
)
def test_refuses_logits_of_other_shapes(call):
  with pytest.raises(AssertionError, match=r'\(4, 10\).*\(4, 9\)'):
    call(STUDENT, TEACHER[:, :9])
