"""KL divergence decomposed by groups of classes, and losses that weight parts.

With P and Q the probabilities of groups of classes (teacher and student), and
p_g and q_g the distributions within group g,
  KL(p ‖ q) = KL(P ‖ Q) + sum over g of P_g KL(p_g ‖ q_g).
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxkd.losses.numerics import at_least_float32
from jaxkd.losses.temperature import check_temperature, kl, soft
from jaxkd.types import Array


class GroupedKL(NamedTuple):
  """The parts of KL(teacher ‖ student) for G groups of classes.

  teacher: the teacher's log-probabilities of the groups, [..., G]; -inf for a
    group without classes, or whose classes are all masked.
  student: the student's log-probabilities of the groups, [..., G].
  within: KL within each group, in nats, [..., G].
  """

  teacher: Array
  student: Array
  within: Array

  @property
  def between(self) -> Array:
    """KL of the groups' probabilities, in nats: [...]."""
    return kl(self.teacher, self.student)

  @property
  def total(self) -> Array:
    """KL of the whole distributions, in nats: [...]."""
    within = jnp.sum(jnp.exp(self.teacher) * self.within, axis=-1)
    return self.between + within


def grouped_kl(
  student: Array,
  teacher: Array,
  groups: Array,
  num_groups: int,
  temperature: float = 1.0,
) -> GroupedKL:
  """Decomposes KL(teacher ‖ student) at temperature T; without the factor T².

  Args:
    student: logits [..., K].
    teacher: logits [..., K]; the caller decides whether gradients flow here.
    groups: the group of each class, integers from 0 to G - 1, [..., K], or [K]
      if it is the same for all examples.
    num_groups: G. Groups may be empty: their probability and KL are 0.
    temperature: T > 0, in units of logits.

  Raises:
    ValueError: a temperature that is not positive.

  >>> z = jnp.array([[3.0, 1.0, 0.0]])
  >>> parts = grouped_kl(-z, z, jnp.array([0, 0, 1]), 2)
  >>> parts.between.round(3), parts.within.round(1)
  (Array([1.011], dtype=float32), Array([[1.5, 0. ]], dtype=float32))
  """
  chex.assert_equal_shape([student, teacher])
  chex.assert_type(groups, int)
  check_temperature('grouped_kl', temperature)
  log_mass_q, log_q = log_soft_grouped(student, groups, num_groups, temperature)
  log_mass_p, log_p = log_soft_grouped(teacher, groups, num_groups, temperature)
  return GroupedKL(log_mass_p, log_mass_q, kl(log_p, log_q))


def log_soft_grouped(
  logits: Array, groups: Array, num_groups: int, temperature: float
) -> tuple[Array, Array]:
  """Returns log softmax(logits / T) of groups, and of classes within groups.

  Args:
    logits: [..., K].
    groups: see `grouped_kl`.
    num_groups: G.
    temperature: T.

  Returns:
    The log-probabilities of the groups, [..., G], and the log-probabilities
    within each group, [..., G, K], which are 0 for classes outside the group
    and -inf for masked ones. In at least float32, because T² magnifies rounding
    errors.
  """
  z = at_least_float32(logits) / temperature
  member = jax.nn.one_hot(
    jnp.broadcast_to(groups, z.shape), num_groups, axis=-2, dtype=bool
  )
  z = jnp.expand_dims(z, -2)
  # Each group is shifted by its own maximum, so that a group whose logits are
  # far below another's keeps its precision. For a group that is empty, or whose
  # classes are all masked, it is -inf.
  top = jnp.max(z, axis=-1, where=member, initial=-jnp.inf)
  top = jax.lax.stop_gradient(top)
  possible = top > -jnp.inf
  z = z - jnp.expand_dims(jnp.where(possible, top, 0), -1)
  z = jnp.where(member, z, 0)
  size = jnp.sum(jnp.exp(z), axis=-1, where=member)
  log_size = jnp.log(jnp.where(possible, size, 1))
  log_mass = jax.nn.log_softmax(top + log_size)
  log_within = jnp.where(member, z - jnp.expand_dims(log_size, -1), 0)
  return log_mass, log_within


def primary_classes(
  logits: Array,
  labels: Array,
  coverage: float = 0.93,
  size: int | None = None,
) -> Array:
  """Returns the primary classes of each example: its n largest logits.

  n is the smallest number of classes whose total probability in the batch's
  mean softmax, at temperature 1, is at least `coverage`. The label's class is
  always among the n. No gradient flows.

  Args:
    logits: [B, K]; the student's in the published code.
    labels: class indices, integers [B].
    coverage: total probability, 0 to 1.
    size: n, which overrides `coverage`.

  Returns:
    Booleans [B, K], n of which are true for each example. They depend on the
    whole batch.

  Raises:
    ValueError: a coverage outside [0, 1]; a size below 1.

  References:
    Zhao et al., AAAI 2023, https://arxiv.org/abs/2304.04462, section 3. The
    published code, for 85,742 classes, searches n in steps of one hundred.

  >>> z = jnp.log(jnp.array([[0.5, 0.3, 0.1, 0.1]]))
  >>> primary_classes(z, jnp.array([3]), coverage=0.75)
  Array([[ True, False, False,  True]], dtype=bool)
  """
  chex.assert_rank(logits, 2)
  chex.assert_shape(labels, logits.shape[:1])
  if not 0 <= coverage <= 1:
    raise ValueError(
      f'primary_classes needs a coverage from 0 to 1, got {coverage}'
    )
  if size is not None and size < 1:
    raise ValueError(f'primary_classes needs a size of 1 or more, got {size}')
  z = jax.lax.stop_gradient(at_least_float32(logits))
  mean = jnp.sort(jnp.mean(soft(z, 1.0), axis=0), descending=True)
  covering = 1 + jnp.sum(jnp.cumsum(mean) < coverage)
  is_label = jax.nn.one_hot(labels, z.shape[-1], dtype=bool)
  order = jnp.argsort(jnp.where(is_label, -jnp.inf, -z))
  return jnp.argsort(order) < (covering if size is None else size)


def grouped_kd(
  student: Array,
  teacher: Array,
  primary: Array,
  binary_weight: float = 1.0,
  primary_weight: float = 8.0,
  secondary_weight: float = 0.0,
  temperature: float = 4.0,
) -> Array:
  """Grouped distillation: T² times weighted parts of KL for two groups.

  The parts are the KL between the groups, within the primary classes and within
  the secondary classes. `dkd` is the case in which only the label's class is
  primary.

  Args:
    student: logits [..., K].
    teacher: logits [..., K]; the caller decides whether gradients flow here.
    primary: booleans [..., K], true for primary classes: see
      `primary_classes`.
    binary_weight: weight of the KL between the groups.
    primary_weight: weight of the KL within the primary classes.
    secondary_weight: weight of the KL within the secondary classes.
    temperature: T > 0, in units of logits.

  Returns:
    Loss in nats, one per example: [...]; float32 or better.

  Raises:
    ValueError: a temperature that is not positive.

  References:
    Zhao et al., AAAI 2023, https://arxiv.org/abs/2304.04462; the defaults are
    those of the published code.

  >>> z = jnp.array([[2.0, 1.0, 0.0]])
  >>> grouped_kd(z, -z, jnp.array([[True, True, False]])).round(3)
  Array([5.01], dtype=float32)
  """
  chex.assert_equal_shape([student, teacher, primary])
  check_temperature('grouped_kd', temperature)
  groups = jnp.where(primary, 0, 1)
  parts = grouped_kl(student, teacher, groups, 2, temperature)
  within = (
    primary_weight * parts.within[..., 0]
    + secondary_weight * parts.within[..., 1]
  )
  return temperature**2 * (binary_weight * parts.between + within)


def ltkd(
  student: Array,
  teacher: Array,
  groups: Array,
  num_groups: int,
  alpha: float = 1.0,
  beta: float = 1.0,
  temperature: float = 4.0,
) -> Array:
  """Long-tailed distillation: T² (alpha KL between + beta KL within groups).

  Between the groups, the teacher's probabilities are divided by their mean over
  the batch and normalised, which removes the teacher's bias towards frequent
  classes. Within, all groups have the same weight instead of the teacher's
  probability.

  Args:
    student: logits [B, K].
    teacher: logits [B, K]; the caller decides whether gradients flow here.
    groups: the group of each class, integers [K], from 0 to G - 1: in the paper
      0 for the most frequent third of the classes, 1 for the middle and 2 for
      the rarest third.
    num_groups: G; no group is empty.
    alpha: weight of the KL between the groups.
    beta: weight of the sum over groups of the KL within them.
    temperature: T > 0, in units of logits. The paper's alpha, beta and T were
      not available: the default weights are those of the parts of KL itself,
      and the default T is that of the benchmark's other losses.

  Returns:
    Loss in nats, one per example: [B]; float32 or better. It depends on the
    whole batch.

  Raises:
    ValueError: a temperature that is not positive.

  References:
    https://arxiv.org/abs/2506.18496. There is no published code.

  >>> z = jnp.array([[2.0, 0.0, 1.0], [1.0, 2.0, 0.0], [0.0, 1.0, 2.0]])
  >>> ltkd(z, z, jnp.array([0, 1, 2]), 3).round(4) + 0
  Array([0., 0., 0.], dtype=float32)
  """
  chex.assert_rank(student, 2)
  check_temperature('ltkd', temperature)
  parts = grouped_kl(student, teacher, groups, num_groups, temperature)
  # The logarithm of the sum over the batch: constants cancel in the softmax.
  mass = jax.nn.logsumexp(parts.teacher, axis=0, keepdims=True)
  possible = mass > -jnp.inf  # a group whose classes are all masked is not
  balanced = parts.teacher - jnp.where(possible, mass, 0)
  between = kl(jax.nn.log_softmax(balanced), parts.student)
  return temperature**2 * (
    alpha * between + beta * jnp.sum(parts.within, axis=-1)
  )
