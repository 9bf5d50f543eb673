"""Losses of logits that compare correlations and differences.

They return a scalar, as published: the mean over the batch.
"""

from collections.abc import Sequence

import chex
import jax.numpy as jnp

from jaxkd.losses.logits import centred, kd
from jaxkd.losses.numerics import at_least_float32, einsum, norm
from jaxkd.losses.temperature import check_temperature, soft
from jaxkd.types import Array


def pearson(x: Array, y: Array, axis: int = -1) -> Array:
  """Returns the Pearson correlation of x and y along an axis: [...].

  If x or y is constant, the correlation and its gradient are 0.
  """
  x, y = centred(x, axis), centred(y, axis)
  lengths = jnp.squeeze(norm(x, axis) * norm(y, axis), axis)
  # 1e-8 is from the published code of DIST: it suppresses classes that have
  # nearly no probability in a batch.
  rho = jnp.sum(x * y, axis) / (lengths + 1e-8)
  return jnp.where(lengths > 0, rho, 0)


def dist(
  student: Array,
  teacher: Array,
  beta: float = 1.0,
  gamma: float = 1.0,
  temperature: float = 1.0,
) -> Array:
  """Distillation from a stronger teacher: T² (beta inter + gamma intra).

  Both are means of 1 - Pearson's correlation of the softened probabilities of
  student and teacher [B, K]: 'inter' over the classes of each example (rows),
  'intra' over the examples of each class (columns). They are invariant to
  affine maps of the teacher's probabilities.

  Args:
    student: logits [B, K].
    teacher: logits [B, K]; the caller decides whether gradients flow here.
    beta: weight of the inter-class relations.
    gamma: weight of the intra-class relations.
    temperature: T > 0, in units of logits.

  Returns:
    The mean over the batch, a dimensionless scalar; float32 or better. In a
    batch of one, the columns are constant and 'intra' is 1.

  Raises:
    ValueError: a temperature that is not positive.

  References:
    Huang et al., NeurIPS 2022, https://arxiv.org/abs/2205.10536, eq. 8-10.
    Defaults and the factor T² are the published code's; T is 4 on CIFAR-100.

  >>> z = jnp.array([[2.0, 1.0, 0.0], [0.0, 3.0, 0.0]])
  >>> dist(z, z).round(4) + 0
  Array(0., dtype=float32)
  >>> dist(-z, z).round(2)
  Array(3.27, dtype=float32)
  """
  chex.assert_rank(student, 2)
  chex.assert_equal_shape([student, teacher])
  check_temperature('dist', temperature)
  q, p = soft(student, temperature), soft(teacher, temperature)
  inter = 1 - jnp.mean(pearson(q, p, axis=1))
  intra = 1 - jnp.mean(pearson(q, p, axis=0))
  return temperature**2 * (beta * inter + gamma * intra)


def mlkd(
  student: Array,
  teacher: Array,
  temperatures: Sequence[float] = (2.0, 3.0, 4.0, 5.0, 6.0),
  instance_weight: float = 1.0,
  batch_weight: float = 1.0,
  class_weight: float = 1.0,
) -> Array:
  """Multi-level logit distillation, summed over temperatures.

  With P [B, K] the softened probabilities, there are three levels at each
  temperature: instances, T² KL(teacher ‖ student); batch, |ΔPPᵀ|² / B; and
  classes, |ΔPᵀP|² / K, where Δ is the difference of student and teacher.

  Args:
    student: logits [B, K].
    teacher: logits [B, K]; the caller decides whether gradients flow here.
    temperatures: each T > 0, in units of logits.
    instance_weight: weight of the instance level, which is in nats.
    batch_weight: weight of the batch level, which is dimensionless.
    class_weight: weight of the class level, which is dimensionless.

  Returns:
    The mean over the batch, a scalar; float32 or better.

  Raises:
    ValueError: no temperature, or one that is not positive.

  References:
    Jin, Wang and Lin, CVPR 2023, https://doi.org/10.1109/CVPR52729.2023.02325.
    Temperatures and equal weights are the published code's. Deviation: that
    code also applies both networks to a second, strongly augmented view, whose
    instance level and cross-entropy it adds, and multiplies the levels of the
    first view by the fraction of examples (or classes) whose confidence is at
    most the median, about a half.

  >>> z = jnp.array([[2.0, 1.0, 0.0], [0.0, 3.0, 0.0]])
  >>> mlkd(z, z)
  Array(0., dtype=float32)
  """
  chex.assert_rank(student, 2)
  chex.assert_equal_shape([student, teacher])
  if not temperatures:
    raise ValueError('mlkd needs at least one temperature, got none')
  total = jnp.zeros((), at_least_float32(student).dtype)
  for temperature in temperatures:
    check_temperature('mlkd', temperature)
    q, p = soft(student, temperature), soft(teacher, temperature)
    instances = jnp.mean(
      kd(at_least_float32(student), at_least_float32(teacher), temperature)
    )
    batch = _square_gap('ik,jk->ij', q, p) / len(q)
    classes = _square_gap('ik,il->kl', q, p) / q.shape[-1]
    total += instance_weight * instances
    total += batch_weight * batch + class_weight * classes
  return total


def _square_gap(products: str, q: Array, p: Array) -> Array:
  """Returns the squared Frobenius distance of two Gram matrices."""
  return jnp.sum(jnp.square(einsum(products, q, q) - einsum(products, p, p)))


def comparative(
  student: Array, target: Array, positives: int = 1, negatives: int = 1
) -> Array:
  """Comparative distillation: differences between groups of examples.

  A comparison is the mean output of some examples minus the mean output of
  other examples. The loss is the squared error of the student's comparisons,
  averaged over classes and over all possible comparisons in the batch. For
  sampling without replacement, this equals (1 / positives + 1 / negatives)
  times the unbiased variance of the residuals student - target over the batch,
  which is how it is computed.

  The loss is invariant to a vector that is added to all of the student's
  logits. The arg-max depends on the final bias, which the loss does not train:
  initialise it with 0.

  Args:
    student: logits [B, K].
    target: the teacher's logits [B, K], or one-hot labels. A class that is
      masked for an example has no residual there.
    positives: number of examples on one side of a comparison; 1 and 1 are
      pairs, 2 and 1 triples.
    negatives: number of examples on the other side.

  Returns:
    The mean over all comparisons, a scalar in squared units of logits; float32
    or better; 0 if the batch is too small for a comparison.

  Raises:
    ValueError: a side without examples.

  References:
    https://arxiv.org/abs/2311.02253, WACV 2025. Deviation: the published code
    samples 100,000 comparisons from the data set in advance and uses each
    example as often as they contain it.

  >>> z = jnp.array([[2.0, 1.0], [0.0, 3.0], [1.0, 2.0]])
  >>> comparative(z, jnp.zeros((3, 2)))
  Array(2., dtype=float32)
  >>> comparative(z + jnp.array([[5.0, -1.0]]), z)
  Array(0., dtype=float32)
  """
  chex.assert_rank(student, 2)
  chex.assert_equal_shape([student, target])
  if positives < 1 or negatives < 1:
    raise ValueError(
      'comparative needs an example on each side, got'
      f' positives={positives} and negatives={negatives}'
    )
  residual = at_least_float32(student) - at_least_float32(target)
  residual = jnp.where(target > -jnp.inf, residual, 0)
  if len(residual) < positives + negatives:
    return jnp.zeros((), residual.dtype)
  variance = jnp.var(residual, axis=0, ddof=1)
  return (1 / positives + 1 / negatives) * jnp.mean(variance)
