"""Losses of logits against labels or against another network's logits."""

import chex
import jax
import jax.numpy as jnp
from jax import lax

from jaxkd.losses.numerics import at_least_float32, norm
from jaxkd.losses.temperature import (
  check_classes,
  check_temperature,
  expected,
  kl,
  log_soft,
  soft,
)
from jaxkd.types import Array


def _probabilities(labels: Array, num_classes: int) -> Array:
  """Returns labels as probabilities [..., K]; class indices become one-hot."""
  if jnp.issubdtype(labels.dtype, jnp.integer):
    return jax.nn.one_hot(labels, num_classes)
  return labels


def cross_entropy(logits: Array, labels: Array) -> Array:
  """Cross-entropy of softmax(logits) against labels, at temperature 1.

  Args:
    logits: [..., K].
    labels: class indices, integers [...], or probabilities, floats [..., K].

  Returns:
    Loss in nats, one per example: [...].

  >>> cross_entropy(jnp.zeros((1, 4)), jnp.array([2])).round(4)
  Array([1.3863], dtype=float32)
  """
  logits = at_least_float32(logits)
  targets = _probabilities(labels, logits.shape[-1])
  chex.assert_equal_shape([logits, targets])
  return -expected(targets, jax.nn.log_softmax(logits))


def brier(logits: Array, labels: Array, reduction: str = 'sum') -> Array:
  """Brier score: squared error of softmax(logits) against one-hot labels.

  Like cross-entropy, it is minimised by the Bayes posterior. The reduction acts
  like a choice of step size: with K classes, the gradient of 'mean' is K times
  smaller.

  Args:
    logits: [..., K].
    labels: class indices, integers [...], or probabilities, floats [..., K].
    reduction: over the classes, 'sum' or 'mean'.

  Returns:
    Squared error of probabilities, one per example: [...]; at most 2 for 'sum'.

  Raises:
    ValueError: unknown reduction.

  References:
    Brier, 1950. As a teacher's loss: Hamidi et al., ECCV 2024,
    https://arxiv.org/abs/2407.18041.

  >>> brier(jnp.zeros((1, 4)), jnp.array([2]))
  Array([0.75], dtype=float32)
  """
  p = jax.nn.softmax(at_least_float32(logits))
  return _squared_error('brier', p, labels, reduction)


def square_logits(
  logits: Array, labels: Array, reduction: str = 'sum'
) -> Array:
  """Square loss: squared error of the raw outputs against one-hot labels.

  It is minimised by outputs that are the Bayes posterior itself, so the trained
  outputs are probabilities, not logits: see `jaxkd.models.read_out`.

  Args:
    logits: [..., K], without any softmax.
    labels: class indices, integers [...], or probabilities, floats [..., K].
    reduction: over the classes, 'sum' or 'mean'.

  Returns:
    Squared error of outputs, one per example: [...].

  Raises:
    ValueError: unknown reduction.

  References:
    One reading of the MSE-trained teacher of Hamidi et al., ECCV 2024,
    https://arxiv.org/abs/2407.18041; see also Hui and Belkin, ICLR 2021,
    https://arxiv.org/abs/2006.07322.

  >>> square_logits(jnp.zeros((1, 4)), jnp.array([2]))
  Array([1.], dtype=float32)
  """
  return _squared_error('square_logits', logits, labels, reduction)


def _squared_error(
  loss: str, outputs: Array, labels: Array, reduction: str
) -> Array:
  """Returns the squared error of outputs [..., K] over the classes, [...]."""
  if reduction not in ('sum', 'mean'):
    raise ValueError(
      f"{loss} takes the reduction 'sum' or 'mean', got {reduction!r}"
    )
  reduce = jnp.sum if reduction == 'sum' else jnp.mean
  outputs = at_least_float32(outputs)
  targets = _probabilities(labels, outputs.shape[-1])
  chex.assert_equal_shape([outputs, targets])
  return reduce(jnp.square(outputs - targets), axis=-1)


def kd(student: Array, teacher: Array, temperature: float = 4.0) -> Array:
  """Hinton distillation: T² KL(teacher ‖ student) at temperature T.

  The factor T² makes the gradient's scale independent of T (§2 of the paper).

  Args:
    student: logits [..., K].
    teacher: logits [..., K]; the caller decides whether gradients flow here.
    temperature: T > 0, in units of logits.

  Returns:
    Loss in nats, one per example: [...].

  Raises:
    ValueError: a temperature that is not positive.

  References:
    Hinton, Vinyals, Dean, 2015, https://arxiv.org/abs/1503.02531, eq. 2-4.

  >>> kd(jnp.array([[0.0, 1.0]]), jnp.array([[0.0, 1.0]]))
  Array([0.], dtype=float32)
  """
  chex.assert_equal_shape([student, teacher])
  check_temperature('kd', temperature)
  log_q, log_p = log_soft(student, temperature), log_soft(teacher, temperature)
  return temperature**2 * kl(log_p, log_q)


def soft_cross_entropy(
  student: Array,
  teacher: Array,
  smoothing: float = 0.0,
  temperature: float = 1.0,
) -> Array:
  """Cross-entropy of the student against the teacher's smoothed softmax.

  The target is (1 - smoothing) softmax(teacher / T) + smoothing / K. There is
  no factor T², so the gradient, (softmax(student / T) - target) / T, shrinks as
  T grows. The minimum of the loss is the target's entropy.

  Args:
    student: logits [..., K].
    teacher: logits [..., K]; the caller decides whether gradients flow here.
    smoothing: weight of the uniform distribution in the target, 0 to 1.
    temperature: T > 0, in units of logits, of both softmaxes.

  Returns:
    Loss in nats, one per example: [...].

  Raises:
    ValueError: a smoothing outside [0, 1], or a temperature that is not
      positive.

  References:
    Hinton, Vinyals, Dean, 2015, https://arxiv.org/abs/1503.02531, eq. 1-2;
    Szegedy et al., CVPR 2016, https://arxiv.org/abs/1512.00567, section 7. With
    smoothing 0.1, it is the loss between dynamic teacher and student in the
    published code of gap preserving distillation (Guo et al., ICLR 2025,
    https://arxiv.org/abs/2410.04140).

  >>> soft_cross_entropy(jnp.zeros((1, 4)), jnp.ones((1, 4)), 0.1).round(4)
  Array([1.3863], dtype=float32)
  """
  chex.assert_equal_shape([student, teacher])
  check_temperature('soft_cross_entropy', temperature)
  if not 0 <= smoothing <= 1:
    raise ValueError(
      f'soft_cross_entropy needs a smoothing from 0 to 1, got {smoothing}'
    )
  p = soft(teacher, temperature)
  targets = (1 - smoothing) * p + smoothing / student.shape[-1]
  return -expected(targets, log_soft(student, temperature))


def centred(x: Array, axis: int = -1) -> Array:
  """Returns x minus its mean along an axis; exactly 0 where x is constant."""
  # Without the first subtraction, constant x would not be exactly 0.
  x = x - lax.stop_gradient(lax.slice_in_dim(x, 0, 1, axis=axis))
  return x - jnp.mean(x, axis=axis, keepdims=True)


def standardise(logits: Array) -> Array:
  """Returns z-scores of logits: (logits - mean) / standard deviation.

  Mean and (unbiased) standard deviation are over the classes of each example.
  Standardised logits keep the relations of the classes, but not the scale of
  the logits, which a small student then need not match.

  Args:
    logits: [..., K], with K at least 2.

  Returns:
    [..., K], dimensionless; float32 or better. Constant logits become 0 with
    gradient 0; in the published code their gradient is 1e7 times the incoming
    one. Logits of masked classes stay -inf, and mean and deviation are those of
    the other classes.

  Raises:
    ValueError: a single class.

  References:
    Sun et al., CVPR 2024, https://arxiv.org/abs/2403.01427. 1e-7 is added to
    the deviation, as in the published code.

  >>> standardise(jnp.array([[2.0, 1.0, 0.0]])).round(3) + 0
  Array([[ 1.,  0., -1.]], dtype=float32)
  """
  check_classes('standardise', logits)
  logits = at_least_float32(logits)
  possible = logits > -jnp.inf
  count = jnp.sum(possible, axis=-1, keepdims=True)
  z = jnp.where(possible, logits, jnp.max(logits, axis=-1, keepdims=True))
  # Without this subtraction, constant logits would not be exactly 0.
  z = jnp.where(possible, z - lax.stop_gradient(z[..., :1]), 0)
  z = z - jnp.sum(z, axis=-1, keepdims=True) / jnp.maximum(count, 1)
  z = jnp.where(possible, z, 0)
  deviation = norm(z) / jnp.sqrt(jnp.maximum(count - 1, 1))
  z = jnp.where(deviation > 0, z / (deviation + 1e-7), 0)
  return jnp.where(possible, z, -jnp.inf)
