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


def _check_temperature(loss: str, temperature: float) -> None:
  if temperature <= 0:
    raise ValueError(f'{loss} needs a temperature above 0, got {temperature}')


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
  return _squared_error('brier', jax.nn.softmax(logits), labels, reduction)


def square_logits(
  logits: Array, labels: Array, reduction: str = 'sum'
) -> Array:
  """Square loss: squared error of the raw outputs against one-hot labels.

  Its minimiser over all functions is the Bayes posterior itself, so the outputs
  are then to be read as probabilities and not as logits: see
  `jaxkd.models.read_out`.

  Args:
    logits: [..., K], without any softmax.
    labels: class indices, integers [...], or probabilities, floats [..., K].
    reduction: over the classes, 'sum' or 'mean'.

  Returns:
    Squared output, one per example: [...].

  Raises:
    ValueError: another reduction.

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
  targets = _probabilities(labels, outputs.shape[-1])
  chex.assert_equal_shape([outputs, targets])
  return reduce(jnp.square(outputs - targets), axis=-1)


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
  _check_temperature('kd', temperature)
  log_q = jax.nn.log_softmax(student / temperature)
  log_p = jax.nn.log_softmax(teacher / temperature)
  return temperature**2 * jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def soft_cross_entropy(
  student: Array,
  teacher: Array,
  smoothing: float = 0.0,
  temperature: float = 1.0,
) -> Array:
  """Cross-entropy of the student against the teacher's smoothed softmax.

  The target is (1 - smoothing) softmax(teacher / T) + smoothing / K. There is
  no factor T², so the gradient, softmax(student / T) less the target, all over
  T, shrinks as T grows. The value is at least the target's entropy.

  Args:
    student: logits [..., K].
    teacher: logits [..., K]; the caller decides whether gradients flow here.
    smoothing: weight of the uniform distribution in the target, 0 to 1.
    temperature: T > 0, in units of logits, of both softmaxes.

  Returns:
    Loss in nats, one per example: [...].

  Raises:
    ValueError: a smoothing outside of [0, 1], or a temperature that is not
      positive.

  References:
    Hinton, Vinyals, Dean, 2015, https://arxiv.org/abs/1503.02531, eq. 1-2;
    Szegedy et al., CVPR 2016, https://arxiv.org/abs/1512.00567, section 7. With
    smoothing 0.1, the loss from the dynamic teacher to the student in the
    published code of gap preserving distillation (Guo et al., ICLR 2025,
    https://arxiv.org/abs/2410.04140).

  >>> soft_cross_entropy(jnp.zeros((1, 4)), jnp.ones((1, 4)), 0.1).round(4)
  Array([1.3863], dtype=float32)
  """
  chex.assert_equal_shape([student, teacher])
  _check_temperature('soft_cross_entropy', temperature)
  if not 0 <= smoothing <= 1:
    raise ValueError(
      f'soft_cross_entropy needs a smoothing from 0 to 1, got {smoothing}'
    )
  p = jax.nn.softmax(teacher / temperature)
  targets = (1 - smoothing) * p + smoothing / student.shape[-1]
  return -jnp.sum(targets * jax.nn.log_softmax(student / temperature), axis=-1)


def _split(
  logits: Array, is_target: Array, temperature: float
) -> tuple[Array, Array]:
  """Returns logits as DKD's two distributions see them, at temperature T.

  They are computed in float32 at least: T² magnifies what rounding costs.

  Args:
    logits: [..., K].
    is_target: booleans [..., K], one of them true.
    temperature: T.

  Returns:
    The log-odds of the target against all other classes, [...], and the log
    probabilities of the other classes among themselves, [..., K], with 0 in the
    target's place.
  """
  z = jnp.asarray(logits)
  z = z.astype(jnp.promote_types(z.dtype, jnp.float32)) / temperature
  top = jnp.max(z, axis=-1, keepdims=True, where=~is_target, initial=-jnp.inf)
  z -= jax.lax.stop_gradient(top)  # or the others' differences are rounded away
  target = jnp.sum(jnp.where(is_target, z, 0), axis=-1)
  rest = jax.nn.logsumexp(z, axis=-1, where=~is_target)
  others = jnp.where(is_target, 0, z - jnp.expand_dims(rest, -1))
  return target - rest, others


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
  is the divergence of (p_y, 1 - p_y) from (q_y, 1 - q_y), and NCKD that of the
  distributions over the other classes alone. KL = TCKD + (1 - p_y) NCKD.

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
    published code lowers the target's logit by 1000 to take it out of NCKD;
    here it is left out of the sum, which is the same for any logits.

  >>> z = jnp.array([[2.0, 1.0, 0.0]])
  >>> dkd(z, z, jnp.array([0]))
  Array([0.], dtype=float32)
  >>> dkd(z, -z, jnp.array([0]), alpha=0.0, beta=1.0).round(3)
  Array([0.497], dtype=float32)
  """
  chex.assert_equal_shape([student, teacher])
  chex.assert_shape(labels, student.shape[:-1])
  chex.assert_type(labels, int)
  _check_temperature('dkd', temperature)
  if student.shape[-1] < 2:
    raise ValueError('dkd needs at least 2 classes, got logits of 1')
  is_target = jax.nn.one_hot(labels, student.shape[-1], dtype=bool)
  odds_q, log_q = _split(student, is_target, temperature)
  odds_p, log_p = _split(teacher, is_target, temperature)
  tckd = sum(
    jax.nn.sigmoid(p) * (jax.nn.log_sigmoid(p) - jax.nn.log_sigmoid(q))
    for p, q in ((odds_p, odds_q), (-odds_p, -odds_q))
  )
  nckd = jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)
  return temperature**2 * (alpha * tckd + beta * nckd)
