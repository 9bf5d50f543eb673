"""Losses against NumPy in float64, published values, and their properties."""

from functools import partial

import chex
import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized

from jaxkd import losses

TOLERANCE = dict(rtol=2e-4, atol=1e-5)
LABELS = np.array([3, 1, 4, 1])

temperatures = st.sampled_from([0.5, 1.0, 4.0, 20.0])
logits = hnp.arrays(
  np.float32, (3, 5), elements=st.floats(-8, 8, width=32, allow_subnormal=False)
)


def wave(a: float, b: float, c: float, shape=(4, 10)) -> np.ndarray:
  """The inputs of the golden values: c sin(a i + b), i in C order."""
  return c * np.sin(a * np.arange(np.prod(shape)) + b).reshape(shape)


STUDENT, TEACHER = wave(0.7, 0.3, 2), wave(1.1, 0.5, 3)


def softmax(z: np.ndarray) -> np.ndarray:
  e = np.exp(z - z.max(axis=-1, keepdims=True))
  return e / e.sum(axis=-1, keepdims=True)


def one_hot(labels: np.ndarray, num_classes: int) -> np.ndarray:
  return np.eye(num_classes)[labels]


def random(*shape: int, seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).normal(size=shape) * 3


@partial(jax.jit, static_argnums=(0, 3))
def gradient(loss, z, other, setting=()):
  """Of the sum of loss(z, other, *setting) over the examples, at z."""
  return jax.grad(lambda z: jnp.sum(loss(z, other, *setting)))(z)


def dkd(s, t, *setting, **settings):
  labels = LABELS[: len(s)] % s.shape[-1]
  return losses.dkd(s, t, labels, *setting, **settings)


def divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
  return np.sum(p * np.log(p / q), axis=-1)


def tckd_and_nckd(s, t, labels, temperature):
  """Parts of T² KL: of the target or not, and among the other classes."""
  p, q = softmax(t / temperature), softmax(s / temperature)
  target = one_hot(labels, p.shape[-1]).astype(bool)
  pair = lambda x: np.stack([x[target], 1 - x[target]], axis=-1)
  other = lambda z: softmax(z[~target].reshape(*z.shape[:-1], -1) / temperature)
  tckd = divergence(pair(p), pair(q)).reshape(labels.shape)
  return temperature**2 * tckd, temperature**2 * divergence(other(t), other(s))


class AgainstNumpyTest(chex.TestCase):
  @chex.variants(with_jit=True, without_jit=True)
  @parameterized.product(leading=[(), (2, 3)])
  def test_cross_entropy(self, leading):
    z = random(*leading, 5)
    y = np.arange(np.prod(leading, dtype=int)).reshape(leading) % 5
    want = -np.sum(one_hot(y, 5) * np.log(softmax(z)), axis=-1)
    got = self.variant(losses.cross_entropy)(z, jnp.asarray(y))
    np.testing.assert_allclose(got, want, **TOLERANCE)

  @chex.variants(with_jit=True, without_jit=True)
  def test_cross_entropy_of_probabilities(self):
    z, y = random(2, 3, 5), softmax(random(2, 3, 5, seed=1))
    want = -np.sum(y * np.log(softmax(z)), axis=-1)
    got = self.variant(losses.cross_entropy)(z, y)
    np.testing.assert_allclose(got, want, **TOLERANCE)

  @chex.variants(with_jit=True, without_jit=True)
  @parameterized.product(reduction=['sum', 'mean'])
  def test_brier(self, reduction):
    z, y = random(2, 3, 5), np.arange(6).reshape(2, 3) % 5
    error = (softmax(z) - one_hot(y, 5)) ** 2
    want = getattr(np, reduction)(error, axis=-1)
    loss = self.variant(losses.brier, static_argnums=2)
    np.testing.assert_allclose(loss(z, y, reduction), want, **TOLERANCE)

  @chex.variants(with_jit=True, without_jit=True)
  @parameterized.product(reduction=['sum', 'mean'])
  def test_square_logits(self, reduction):
    z, y = random(2, 3, 5), np.arange(6).reshape(2, 3) % 5
    error = (z - one_hot(y, 5)) ** 2
    want = getattr(np, reduction)(error, axis=-1)
    loss = self.variant(losses.square_logits, static_argnums=2)
    np.testing.assert_allclose(loss(z, y, reduction), want, **TOLERANCE)

  @chex.variants(with_jit=True, without_jit=True)
  @parameterized.product(leading=[(), (2, 3)], temperature=[1.0, 4.0])
  def test_kd(self, leading, temperature):
    s, t = random(*leading, 5), random(*leading, 5, seed=1)
    p, q = softmax(t / temperature), softmax(s / temperature)
    want = temperature**2 * divergence(p, q)
    got = self.variant(losses.kd, static_argnums=2)(s, t, temperature)
    np.testing.assert_allclose(got, want, **TOLERANCE)

  @chex.variants(with_jit=True, without_jit=True)
  @parameterized.product(
    leading=[(), (2, 3)], smoothing=[0.0, 0.1, 1.0], temperature=[1.0, 4.0]
  )
  def test_soft_cross_entropy(self, leading, smoothing, temperature):
    s, t = random(*leading, 5), random(*leading, 5, seed=1)
    target = (1 - smoothing) * softmax(t / temperature) + smoothing / 5
    want = -np.sum(target * np.log(softmax(s / temperature)), axis=-1)
    loss = self.variant(losses.soft_cross_entropy, static_argnums=(2, 3))
    got = loss(s, t, smoothing, temperature)
    np.testing.assert_allclose(got, want, **TOLERANCE)

  @chex.variants(with_jit=True, without_jit=True)
  @parameterized.product(leading=[(), (2, 3)], temperature=[1.0, 4.0])
  def test_dkd(self, leading, temperature):
    s, t = random(*leading, 5), random(*leading, 5, seed=1)
    y = np.arange(np.prod(leading, dtype=int)).reshape(leading) % 5
    tckd, nckd = tckd_and_nckd(s, t, y, temperature)
    loss = self.variant(losses.dkd, static_argnums=(3, 4, 5))
    for alpha, beta in ((1.0, 0.0), (0.0, 1.0), (1.5, 8.0)):
      got = loss(s, t, y, alpha, beta, temperature)
      want = alpha * tckd + beta * nckd
      np.testing.assert_allclose(got, want, **TOLERANCE)


@pytest.mark.parametrize(
  ('loss', 'want'),
  [
    (lambda s, t: losses.cross_entropy(s, LABELS), 2.88296662648),
    (lambda s, t: losses.kd(s, t, 4.0), 3.0618594069),
    (lambda s, t: losses.kd(s, t, 1.0), 1.69503738965),
    (lambda s, t: dkd(s, t, 1.0, 8.0, 4.0), 21.9831282569),
    (lambda s, t: dkd(s, t, 1.0, 0.0, 4.0), 0.693172094668),
    (lambda s, t: dkd(s, t, 0.0, 1.0, 4.0), 2.66124452027),
  ],
  ids=['cross_entropy', 'kd at 4', 'kd at 1', 'dkd', 'tckd', 'nckd'],
)
def test_equals_the_original_code(loss, want):
  """Computed with the CIFAR-100 benchmark's PyTorch code in float64."""
  with jax.enable_x64(True):
    got = loss(jnp.asarray(STUDENT), jnp.asarray(TEACHER))
    assert got.dtype == np.float64
    np.testing.assert_allclose(np.mean(got), want, rtol=1e-9)


def test_gradient_equals_the_original_code():
  """Of SLKD's loss: its two learning teachers are fused for the student."""
  teachers = wave(0.5, 0.1, 2.5), wave(0.9, 0.4, 1.5)

  def total(student):
    from_labels = 1.1 * losses.cross_entropy(student, LABELS)
    from_teacher = 0.9 * losses.kd(student, TEACHER)
    fused = losses.kd(student, sum(teachers) / 2)
    return jnp.mean(from_labels + from_teacher + fused)

  with jax.enable_x64(True):
    norm = np.linalg.norm(jax.grad(total)(jnp.asarray(STUDENT)))
  np.testing.assert_allclose(norm, 0.799726110327, rtol=1e-9)


@hypothesis.given(logits, st.integers(0, 4))
def test_an_index_equals_its_one_hot_vector(z, label):
  index = jnp.full(3, label)
  vector = jax.nn.one_hot(index, 5)
  for loss in (losses.cross_entropy, losses.brier, losses.square_logits):
    np.testing.assert_array_equal(loss(z, index), loss(z, vector))


@hypothesis.given(logits, logits, st.floats(-50, 50, width=32), temperatures)
def test_a_shift_of_all_logits_does_not_matter(s, t, shift, temperature):
  y = jnp.array([0, 4, 2])
  for loss in (
    lambda z: losses.cross_entropy(z, y),
    lambda z: losses.brier(z, y),
    lambda z: losses.kd(z, t, temperature),
    lambda z: losses.kd(s, z, temperature),
    lambda z: losses.soft_cross_entropy(z, t, 0.1, temperature),
    lambda z: losses.soft_cross_entropy(s, z, 0.1, temperature),
    lambda z: losses.dkd(z, t, y, 1.0, 1.0, temperature),
    lambda z: losses.dkd(s, z, y, 1.0, 1.0, temperature),
  ):
    # The shift rounds the logits, which T² magnifies by T.
    np.testing.assert_allclose(
      loss(s + shift), loss(s), rtol=2e-4, atol=1e-5 * (1 + temperature)
    )


@hypothesis.given(logits)
def test_brier_is_a_squared_distance_of_distributions(z):
  y = jnp.array([0, 4, 2])
  score = losses.brier(z, y)
  assert np.all((score >= 0) & (score <= 2))
  np.testing.assert_allclose(losses.brier(z, y, 'mean') * 5, score, rtol=1e-5)


def test_brier_reaches_its_bounds():
  z = jnp.array([[1e4, 0.0, 0.0], [0.0, 0.0, 1e4]])
  np.testing.assert_array_equal(losses.brier(z, jnp.array([0, 0])), [0, 2])


@hypothesis.given(logits, logits)
def test_the_expected_loss_is_least_at_the_posterior(z, posterior):
  """The expected loss over labels is that of their posterior, and a constant.

  So cross-entropy and both squared errors have the same minimiser: for
  y ~ p, E |q - e_y|² = |q - p|² + 1 - |p|², and -E log q_y = H(p) + KL(p, q).
  """
  p = softmax(posterior.astype(np.float64))
  with jax.enable_x64(True):
    exact = jnp.asarray(z, jnp.float64)

    def expected(loss):
      of_label = [loss(exact, jnp.full(3, y)) for y in range(5)]
      return np.sum(p * np.stack(of_label, axis=-1), axis=-1)

    scores = [expected(x) for x in (losses.brier, losses.square_logits)]
    nats = expected(losses.cross_entropy)
  q = softmax(z.astype(np.float64))
  left = 1 - np.sum(p**2, axis=-1)
  for score, outputs in zip(scores, (q, z.astype(np.float64)), strict=True):
    want = np.sum((outputs - p) ** 2, axis=-1) + left
    np.testing.assert_allclose(score, want, rtol=1e-10)
  entropy = -np.sum(p * np.log(p), axis=-1)
  np.testing.assert_allclose(nats, entropy + divergence(p, q), rtol=1e-10)


@pytest.mark.parametrize(
  ('num_classes', 'printed'),
  [
    (10, ('0.95', '0.019', '0.19', '0.20', '2.0')),
    (100, ('0.995', '2.0e-4', '2.0e-2', '2.0e-2', '2.0')),
    (1000, ('1.0', '2e-6', '2e-3', '2e-3', '2.0')),
  ],
)
def test_gradient_at_a_uniform_output(num_classes, printed):
  """How much smaller it is for other losses than for cross-entropy."""
  z, y = np.zeros(num_classes, np.float32), jnp.array(0)
  exact = np.sqrt(1 - 1 / num_classes)
  for (loss, setting, want), rounded in zip(
    (
      (losses.cross_entropy, (), exact),
      (losses.brier, ('mean',), 2 / num_classes**2 * exact),
      (losses.brier, ('sum',), 2 / num_classes * exact),
      (losses.square_logits, ('mean',), 2 / num_classes),
      (losses.square_logits, ('sum',), 2),
    ),
    printed,
    strict=True,
  ):
    got = float(np.linalg.norm(gradient(loss, z, y, setting)))
    np.testing.assert_allclose(got, want, rtol=1e-5)
    digits = len(rounded.split('e')[0].lstrip('0.').replace('.', ''))
    assert float(f'{got:.{digits - 1}e}') == float(rounded)


@hypothesis.given(logits, temperatures)
def test_kd_is_zero_and_flat_at_the_teacher(t, temperature):
  np.testing.assert_array_equal(losses.kd(t, t, temperature), np.zeros(3))
  slope = gradient(losses.kd, t, t, (temperature,))
  np.testing.assert_allclose(slope, np.zeros_like(t), atol=1e-5 * temperature)


@hypothesis.given(logits, logits, temperatures)
def test_kd_is_not_negative(s, t, temperature):
  assert np.all(losses.kd(s, t, temperature) >= -1e-6 * temperature**2)


@hypothesis.given(logits, logits, temperatures)
def test_gradient_of_kd_is_a_difference_of_softmaxes(s, t, temperature):
  p, q = softmax(t / temperature), softmax(s / temperature)
  np.testing.assert_allclose(
    gradient(losses.kd, s, t, (temperature,)),
    temperature * (q - p),
    rtol=2e-4,
    atol=1e-5 * temperature,
  )


@pytest.mark.parametrize('temperature', [1e2, 1e3, 1e4])
def test_gradient_of_kd_keeps_its_scale_at_high_temperatures(temperature):
  """It tends to the difference of the centred logits over K."""
  with jax.enable_x64(True):
    got = gradient(losses.kd, STUDENT, TEACHER, (temperature,))
  centred = lambda z: z - z.mean(axis=-1, keepdims=True)
  want = (centred(STUDENT) - centred(TEACHER)) / 10
  np.testing.assert_allclose(got, want, atol=3 / temperature)


def test_kd_has_a_gradient_at_the_teacher():
  loss = lambda t, s: losses.kd(s, t)
  assert jnp.all(gradient(loss, TEACHER, STUDENT) != 0)


@pytest.mark.parametrize('loss', [losses.brier, losses.square_logits])
def test_squared_errors_name_their_reductions(loss):
  message = f"{loss.__name__} takes .* 'sum' or 'mean', got 'batch'"
  with pytest.raises(ValueError, match=message):
    loss(STUDENT, LABELS, 'batch')


@pytest.mark.parametrize('temperature', [0, -4.0, np.nan, np.inf, True, '4'])
@pytest.mark.parametrize('loss', [losses.kd, losses.soft_cross_entropy, dkd])
def test_refuses_a_temperature(loss, temperature):
  message = f'{loss.__name__} needs .* above 0, got {temperature!r}'
  with pytest.raises(ValueError, match=message):
    loss(STUDENT, TEACHER, temperature=temperature)


@pytest.mark.parametrize('loss', [losses.kd, losses.soft_cross_entropy, dkd])
def test_refuses_logits_of_other_shapes(loss):
  with pytest.raises(AssertionError, match=r'\(4, 10\).*\(4, 9\)'):
    loss(STUDENT, TEACHER[:, :9])


@pytest.mark.parametrize(
  'loss', [losses.cross_entropy, losses.brier, losses.square_logits]
)
def test_refuses_probabilities_of_other_classes(loss):
  with pytest.raises(AssertionError, match=r'\(4, 10\), \(4, 9\)'):
    loss(STUDENT, np.ones((4, 9)) / 9)
