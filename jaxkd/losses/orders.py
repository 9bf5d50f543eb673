"""The order of a teacher's classes, with the label's class first."""

import chex
import jax
import jax.numpy as jnp
from jax import lax

from jaxkd.losses.numerics import at_least_float32
from jaxkd.losses.temperature import check_temperature, soft
from jaxkd.types import Array


def label_first(logits: Array, labels: Array) -> Array:
  """Returns the classes from the label's on, then by falling logit.

  Args:
    logits: [..., K]; equal ones are in the order of their classes.
    labels: class indices, integers [...].

  Returns:
    A permutation of the classes for each example, int32 [..., K].

  >>> label_first(jnp.array([[3.0, 1.0, 2.0]]), jnp.array([1]))
  Array([[1, 0, 2]], dtype=int32)
  """
  chex.assert_shape(labels, logits.shape[:-1])
  chex.assert_type(labels, int)
  is_label = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
  return jnp.argsort(jnp.where(is_label, -jnp.inf, -logits), axis=-1)


def reordered(logits: Array, labels: Array) -> Array:
  """Returns logits whose largest is the label's, in the order of the others.

  The largest value goes to the label's class, the second to the class of the
  largest logit among the others, and so on. Where the label's logit was the
  largest, nothing changes.

  Args:
    logits: of the teacher, [..., K].
    labels: class indices, integers [...].

  References:
    Limantoro, IEEE Signal Processing Letters 2025,
    https://arxiv.org/abs/2508.16544.

  >>> reordered(jnp.array([[3.0, 1.0, 2.0]]), jnp.array([1]))
  Array([[2., 3., 1.]], dtype=float32)
  """
  rank = jnp.argsort(label_first(logits, labels), axis=-1)
  falling = -jnp.sort(-logits, axis=-1)
  return jnp.take_along_axis(falling, rank, axis=-1)


def pld(
  student: Array, teacher: Array, labels: Array, temperature: float = 1.0
) -> Array:
  """Plackett-Luce distillation: the weighted likelihood of the teacher's order.

  The order c_1, ..., c_K is `label_first` of the teacher. With z the student's
  logits and p the teacher's probabilities at temperature T, the loss is
    sum over k of p(c_k) (log sum over l >= k of exp z(c_l) - z(c_k)).
  Its first term is the cross-entropy of the label, weighted by the teacher's
  probability of it, so that no other loss of labels is needed.

  Args:
    student: logits [..., K].
    teacher: logits [..., K]; the caller decides whether gradients flow here.
    labels: class indices, integers [...].
    temperature: T > 0 of the weights, in units of logits.

  Returns:
    Loss in nats, one per example: [...]; convex in the student's logits;
    float32 or better.

  Raises:
    ValueError: a temperature that is not positive.

  References:
    Bassam, Zhu and Bian, 2025, https://arxiv.org/abs/2506.12542, section 4. T
    is 4 on CIFAR-100. We take it for that of the teacher's probabilities alone,
    the only ones in the loss.

  >>> pld(jnp.zeros((1, 2)), jnp.zeros((1, 2)), jnp.array([1])).round(4)
  Array([0.3466], dtype=float32)
  """
  chex.assert_equal_shape([student, teacher])
  check_temperature('pld', temperature)
  order = label_first(teacher, labels)
  z, p = (
    jnp.take_along_axis(x, order, axis=-1)
    for x in (at_least_float32(student), soft(teacher, temperature))
  )
  # A masked class adds nothing to the sums of others; its own term is infinite.
  possible = z > -jnp.inf
  z = jnp.where(possible, z, -1e30)
  later = lax.cumlogsumexp(z, axis=z.ndim - 1, reverse=True)
  terms = jnp.where(possible, later - z, jnp.inf)
  return jnp.sum(p * jnp.where(p > 0, terms, 0), axis=-1)
