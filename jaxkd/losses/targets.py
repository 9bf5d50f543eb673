"""Losses that separate the target class from the other classes."""

import chex
import jax
import jax.numpy as jnp

from jaxkd.losses.groups import grouped_kl, log_soft_grouped
from jaxkd.losses.temperature import (
  check_classes,
  check_positive,
  check_temperature,
  kl,
)
from jaxkd.types import Array


def _target_and_others(logits: Array, labels: Array) -> Array:
  """Returns groups [..., K]: 0 for the label's class, 1 for the others."""
  chex.assert_shape(labels, logits.shape[:-1])
  chex.assert_type(labels, int)
  is_target = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
  return jnp.where(is_target, 0, 1)


def dkd(
  student: Array,
  teacher: Array,
  labels: Array,
  alpha: float = 1.0,
  beta: float = 8.0,
  temperature: float = 4.0,
) -> Array:
  """Decoupled distillation: T² (alpha TCKD + beta NCKD) at temperature T.

  With p the teacher's and q the student's probabilities and y the label, TCKD
  (target class) is the KL of the binary distributions (p_y, 1 - p_y) and
  (q_y, 1 - q_y), and NCKD (non-target classes) is the KL of the distributions
  over the other classes. KL(p ‖ q) = TCKD + (1 - p_y) NCKD.

  Args:
    student: logits [..., K], with K at least 2.
    teacher: logits [..., K]; the caller decides whether gradients flow here.
    labels: class indices, integers [...].
    alpha: weight of TCKD.
    beta: weight of NCKD.
    temperature: T > 0, in units of logits.

  Returns:
    Loss in nats, one per example: [...]; float32 or better.

  Raises:
    ValueError: a single class, or a temperature that is not positive.

  References:
    Zhao et al., CVPR 2022, https://arxiv.org/abs/2203.08679, eq. 7. The
    published code subtracts 1000 from the target's logit to exclude it from
    NCKD; here it is left out of the sum, which is exact for any logits.

  >>> z = jnp.array([[2.0, 1.0, 0.0]])
  >>> dkd(z, z, jnp.array([0]))
  Array([0.], dtype=float32)
  >>> dkd(z, -z, jnp.array([0]), alpha=0.0, beta=1.0).round(3)
  Array([0.497], dtype=float32)
  """
  chex.assert_equal_shape([student, teacher])
  check_temperature('dkd', temperature)
  check_classes('dkd', student)
  groups = _target_and_others(student, labels)
  parts = grouped_kl(student, teacher, groups, 2, temperature)
  return temperature**2 * (alpha * parts.between + beta * parts.within[..., 1])


def nkd(
  student: Array,
  teacher: Array,
  labels: Array,
  gamma: float = 1.5,
  temperature: float = 1.0,
) -> Array:
  """Normalised distillation: target class, and normalised non-target classes.

  With p and q the probabilities of teacher and student and y the label, it is
    -p_y log q_y + gamma T² H(p', q'),
  where p_y and q_y are at temperature 1, and H is the cross-entropy of the
  distributions over the other classes at temperature T. If the student equals
  the teacher, the loss is not 0, and only its second term is minimal.

  Args:
    student: logits [..., K], with K at least 2.
    teacher: logits [..., K]; the caller decides whether gradients flow here.
    labels: class indices, integers [...].
    gamma: weight of the non-target classes.
    temperature: T > 0, in units of logits.

  Returns:
    Loss in nats, one per example: [...]; float32 or better.

  Raises:
    ValueError: a single class, or a temperature that is not positive.

  References:
    Yang et al., ICCV 2023, https://arxiv.org/abs/2303.13005. Gamma 1.5 and T 1
    are those of the published code for ImageNet.

  >>> nkd(jnp.zeros((1, 3)), jnp.zeros((1, 3)), jnp.array([0])).round(4)
  Array([1.4059], dtype=float32)
  """
  chex.assert_equal_shape([student, teacher])
  check_temperature('nkd', temperature)
  check_classes('nkd', student)
  groups = _target_and_others(student, labels)
  (log_p, _), (log_q, _) = (
    log_soft_grouped(z, groups, 2, 1.0) for z in (teacher, student)
  )
  (_, others_p), (_, others_q) = (
    log_soft_grouped(z, groups, 2, temperature) for z in (teacher, student)
  )
  target = -jnp.exp(log_p[..., 0]) * log_q[..., 0]
  # Classes outside the group are 0 in both: -exp(0) * 0 adds nothing.
  others = -jnp.exp(others_p[..., 1, :]) * others_q[..., 1, :]
  return target + gamma * temperature**2 * jnp.sum(others, axis=-1)


def rld(
  student: Array,
  teacher: Array,
  labels: Array,
  alpha: float = 1.0,
  beta: float = 8.0,
  temperature: float = 4.0,
  confidence_temperature: float = 1.0,
) -> Array:
  """Refined logit distillation: alpha SCD + beta MCD.

  With p and q the probabilities of teacher and student and y the label,
    SCD = T'² KL((max p, 1 - max p) ‖ (q_y, 1 - q_y)) at the temperature T',
  the sample's confidence: the student is as sure of the label as the teacher is
  of its own prediction; and
    MCD = T² KL(p' ‖ q') at the temperature T,
  the masked correlation, where p' and q' are distributions over the classes
  whose teacher logit is below that of y. Without any such class, MCD is 0.

  Args:
    student: logits [..., K], with K at least 2.
    teacher: logits [..., K]; the caller decides whether gradients flow here.
    labels: class indices, integers [...].
    alpha: weight of SCD.
    beta: weight of MCD.
    temperature: T > 0 of MCD, in units of logits.
    confidence_temperature: T' > 0 of SCD, likewise.

  Returns:
    Loss in nats, one per example: [...]; float32 or better.

  Raises:
    ValueError: a single class, or a temperature that is not positive.

  References:
    Sun et al., ICCV 2025, https://arxiv.org/abs/2408.07703. Where the code
    (https://github.com/zju-SWJ/RLD) sets excluded logits to -1e9, they are left
    out of the sums here.

  >>> z = jnp.array([[2.0, 1.0, 0.0]])
  >>> rld(z, z, jnp.array([0]))
  Array([0.], dtype=float32)
  """
  chex.assert_equal_shape([student, teacher])
  check_temperature('rld', temperature)
  check_positive('rld', 'confidence_temperature', confidence_temperature)
  check_classes('rld', student)
  predicted = jnp.argmax(teacher, axis=-1)
  log_p, log_q = (
    log_soft_grouped(
      z, _target_and_others(z, target), 2, confidence_temperature
    )[0]
    for z, target in ((teacher, predicted), (student, labels))
  )
  confidence = confidence_temperature**2 * kl(log_p, log_q)
  of_label = jnp.take_along_axis(teacher, labels[..., None], axis=-1)
  groups = jnp.where(teacher < of_label, 1, 0)
  parts = grouped_kl(student, teacher, groups, 2, temperature)
  correlation = temperature**2 * parts.within[..., 1]
  return alpha * confidence + beta * correlation
