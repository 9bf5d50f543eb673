"""Losses of one sigmoid for each class: an example has any number of labels."""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp

from jaxkd.losses.numerics import at_least_float32
from jaxkd.losses.temperature import check_temperature
from jaxkd.types import Array


def binary_cross_entropy(
  logits: Array,
  labels: Array,
  positive_weight: float | Sequence[float] = 1.0,
  reduction: str = 'sum',
) -> Array:
  """Cross-entropy of sigmoid(logits) against each class's label.

  Args:
    logits: [..., K].
    labels: multi-hot integers or probabilities, [..., K]; or class indices,
      integers [...], which become one-hot.
    positive_weight: factor on the terms of labels that are present: a number,
      or one for each class.
    reduction: over the classes, 'sum' or 'mean'.

  Returns:
    Loss in nats, one per example: [...]. At a weight of 1, the sum is the
    negative log-likelihood of all labels of an example.

  Raises:
    ValueError: unknown reduction; weights that are negative or not one for each
      class.

  References:
    Cox, 1958, https://doi.org/10.1111/j.2517-6161.1958.tb00292.x.

  >>> binary_cross_entropy(jnp.zeros((1, 2)), jnp.array([[1, 0]])).round(4)
  Array([1.3863], dtype=float32)
  """
  logits, labels = at_least_float32(logits), jnp.asarray(labels)
  num_classes = logits.shape[-1]
  if jnp.issubdtype(labels.dtype, jnp.integer) and labels.ndim < logits.ndim:
    labels = jax.nn.one_hot(labels, num_classes)
  chex.assert_equal_shape([logits, labels])
  weight = jnp.asarray(positive_weight, logits.dtype)
  if weight.shape not in ((), (num_classes,)):
    raise ValueError(
      'binary_cross_entropy needs a positive_weight, or one for each of the'
      f' {num_classes} classes, got {len(weight)}'
    )
  weight = jnp.broadcast_to(weight, logits.shape)
  target = labels.astype(logits.dtype)
  present, absent = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
  terms = weight * _product(target, present) + _product(1 - target, absent)
  return -_reduce('binary_cross_entropy', reduction)(terms, axis=-1)


def binary_kd(
  student: Array,
  teacher: Array,
  temperature: float = 1.0,
  reduction: str = 'sum',
) -> Array:
  """Distillation of sigmoids: T² KL(teacher ‖ student), summed over classes.

  The divergence is that of Bernoulli distributions with the probabilities
  sigmoid(logits / T); 0 log 0 is 0. Deviation: the paper has T = 1.

  Args:
    student: logits [..., K].
    teacher: logits [..., K]; the caller decides whether gradients flow here.
    temperature: T > 0, in units of logits.
    reduction: over the classes, 'sum' or 'mean'.

  Returns:
    Loss in nats, one per example: [...].

  Raises:
    ValueError: a temperature that is not positive; unknown reduction.

  References:
    Yang et al., ICCV 2023, https://arxiv.org/abs/2308.06453, section 3.2.

  >>> binary_kd(jnp.array([[0.0, 1.0]]), jnp.array([[0.0, 1.0]]))
  Array([0.], dtype=float32)
  """
  chex.assert_equal_shape([student, teacher])
  check_temperature('binary_kd', temperature)
  s, t = (at_least_float32(x) / temperature for x in (student, teacher))
  terms = jnp.zeros(())
  for sign in (1, -1):  # the class is there, and is not
    p = jax.nn.sigmoid(sign * t)
    log_p, log_q = jax.nn.log_sigmoid(sign * t), jax.nn.log_sigmoid(sign * s)
    terms += _product(p, log_p) - _product(p, log_q)
  return temperature**2 * _reduce('binary_kd', reduction)(terms, axis=-1)


def _product(weight: Array, value: Array) -> Array:
  """Returns weight * value, and 0 where the weight is 0 and value infinite."""
  counts = weight > 0
  return jnp.where(counts, weight * jnp.where(counts, value, 0), 0)


def _reduce(loss: str, reduction: str):
  if reduction not in ('sum', 'mean'):
    raise ValueError(
      f"{loss} takes the reduction 'sum' or 'mean', got {reduction!r}"
    )
  return jnp.sum if reduction == 'sum' else jnp.mean
