"""Losses of logits against labels or against other logits."""

import chex
import jax
import jax.numpy as jnp

from jaxkd.types import Array


def _probabilities(labels: Array, num_classes: int) -> Array:
  """Returns labels as float probabilities [..., K]; indices become one-hot."""
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
  targets = _probabilities(labels, logits.shape[-1])
  chex.assert_equal_shape([logits, targets])
  return -jnp.sum(targets * jax.nn.log_softmax(logits), axis=-1)


def brier(logits: Array, labels: Array, reduction: str = 'sum') -> Array:
  """Brier score: squared error of softmax(logits) against one-hot labels.

  Its minimiser over all functions is the Bayes posterior, as cross-entropy's
  is. The choice of reduction is a choice of step size: with K classes, the
  gradient of 'mean' is K times smaller.

  Args:
    logits: [..., K].
    labels: class indices, integers [...], or probabilities, floats [..., K].
    reduction: over the classes, 'sum' or 'mean'.

  Returns:
    Squared probability, one per example: [...]; at most 2 for 'sum'.

  Raises:
    ValueError: another reduction.

  References:
    Brier, 1950. As a teacher's loss: Hamidi et al., ECCV 2024,
    https://arxiv.org/abs/2407.18041.

  >>> brier(jnp.zeros((1, 4)), jnp.array([2]))
  Array([0.75], dtype=float32)
  """
  if reduction not in ('sum', 'mean'):
    raise ValueError(
      f"brier takes the reduction 'sum' or 'mean', got {reduction!r}"
    )
  reduce = jnp.sum if reduction == 'sum' else jnp.mean
  targets = _probabilities(labels, logits.shape[-1])
  chex.assert_equal_shape([logits, targets])
  return reduce(jnp.square(jax.nn.softmax(logits) - targets), axis=-1)


def kd(student: Array, teacher: Array, temperature: float = 4.0) -> Array:
  """Hinton distillation: T² KL(teacher ‖ student) at temperature T.

  The factor T² keeps the gradient's scale independent of T (§2 of the paper).

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
  if temperature <= 0:
    raise ValueError(f'kd needs a temperature above 0, got {temperature}')
  log_q = jax.nn.log_softmax(student / temperature)
  log_p = jax.nn.log_softmax(teacher / temperature)
  return temperature**2 * jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)
