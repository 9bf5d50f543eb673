"""Losses over the relations between the examples of a batch.

They return a scalar, because each relation belongs to several examples. Under
`jit` with a sharded batch, the relations are those of the global batch. There
is no mask, because training batches are never padded. A batch of one has no
relations, and its loss is zero. All losses compute in at least float32.
"""

import chex
import jax.numpy as jnp

from jaxkd.losses.numerics import einsum, flat, norm, unit
from jaxkd.types import Array


def _check_same_batch(student: Array, teacher: Array) -> None:
  chex.assert_equal_shape_prefix([student, teacher], 1)


def sp(student: Array, teacher: Array) -> Array:
  """Similarity preserving: squared difference of similarity matrices.

  A row of the similarity matrix contains the inner products of one example's
  features with those of all examples, divided by the norm of the row.

  Args:
    student: features [B, ...].
    teacher: features [B, ...] of any other shape.

  Returns:
    The mean over all pairs of examples, a scalar.

  References:
    Tung and Mori, ICCV 2019, https://arxiv.org/abs/1907.09682, eq. 2 to 4.

  >>> sp(jnp.eye(2), jnp.ones((2, 3))).round(4)
  Array(0.2929, dtype=float32)
  """
  _check_same_batch(student, teacher)
  return jnp.mean(jnp.square(_similarity(student) - _similarity(teacher)))


def _similarity(x: Array) -> Array:
  """Returns the inner products of examples with normalised rows, [B, B]."""
  x = flat(x)
  return unit(einsum('id,jd->ij', x, x))


def pkt(student: Array, teacher: Array) -> Array:
  """Probabilistic knowledge transfer: KL of similarity distributions.

  The similarity distribution of an example is a distribution over the batch,
  including the example itself, proportional to (1 + cosine) / 2.

  Args:
    student: features [B, ...].
    teacher: features [B, ...] of any other shape.

  Returns:
    KL(teacher ‖ student) in nats, divided by B and averaged over the examples,
    a scalar.

  References:
    Passalis and Tefas, ECCV 2018, https://arxiv.org/abs/1803.10837. The cosine
    kernel, the mean over all pairs and 1e-7 in norms and logarithms are from
    the published code.

  >>> pkt(jnp.eye(2), jnp.ones((2, 3))).round(4)
  Array(0.0294, dtype=float32)
  """
  _check_same_batch(student, teacher)
  p, q = _similarities(teacher), _similarities(student)
  return jnp.mean(p * (jnp.log(p + 1e-7) - jnp.log(q + 1e-7)))


def _similarities(x: Array) -> Array:
  """Returns the similarity distribution of each example, [B, B]."""
  x = flat(x)
  length = norm(x)
  x *= jnp.where(length > 0, 1 / (length + 1e-7), 0)
  affinity = (einsum('id,jd->ij', x, x) + 1) / 2
  return affinity / jnp.sum(affinity, axis=1, keepdims=True)


def _smooth_l1(x: Array) -> Array:
  """Returns the mean of x² / 2 where |x| < 1, and |x| - 1 / 2 elsewhere."""
  size = jnp.abs(x)
  return jnp.mean(jnp.where(size < 1, jnp.square(x) / 2, size - 0.5))


def rkd_distance(student: Array, teacher: Array) -> Array:
  """Relational distillation (RKD): distances between examples.

  The distances of each network are divided by their mean over all pairs. The
  distance of two different examples is at least 1e-6.

  Args:
    student: embeddings [B, ...].
    teacher: embeddings [B, ...] of any other shape.

  Returns:
    Smooth L1 loss of the distances, averaged over all B² pairs, including each
    example with itself: a scalar.

  References:
    Park et al., CVPR 2019, https://arxiv.org/abs/1904.05068, eq. 5 to 7. The
    benchmark's weight is 25.

  >>> x = jnp.array([[0.0], [1.0], [2.0]])
  >>> rkd_distance(x, x**2)
  Array(0.03125, dtype=float32)
  """
  _check_same_batch(student, teacher)
  return _smooth_l1(_distances(student) - _distances(teacher))


def _differences(x: Array) -> Array:
  """Returns the difference x_j - x_i of all pairs of examples, [B, B, D]."""
  # Not with a Gram matrix: |a|² + |b|² - 2 a · b cancels for near neighbours.
  x = flat(x)
  return x[None] - x[:, None]


def _distances(x: Array) -> Array:
  """Returns distances of examples divided by their mean, [B, B]."""
  square = jnp.sum(jnp.square(_differences(x)), axis=-1)
  off_diagonal = 1 - jnp.eye(len(x), dtype=square.dtype)
  distance = off_diagonal * jnp.sqrt(jnp.maximum(square, 1e-12))
  mean = jnp.sum(distance) / max(len(x) * (len(x) - 1), 1)
  return distance / jnp.maximum(mean, 1e-12)  # the mean of a batch of one is 0


def rkd_angle(student: Array, teacher: Array) -> Array:
  """Relational distillation (RKD): angles between three examples.

  The cosine of the angle at example i between the directions to j and k, for
  all triples; the direction of an example to itself is the zero vector.

  Args:
    student: embeddings [B, ...].
    teacher: embeddings [B, ...] of any other shape.

  Returns:
    Smooth L1 loss of the cosines, averaged over all B³ triples: a scalar.

  References:
    Park et al., CVPR 2019, https://arxiv.org/abs/1904.05068, eq. 8 and 9. The
    benchmark's weight is 50.

  >>> corner = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
  >>> rkd_angle(corner, corner)
  Array(0., dtype=float32)
  """
  _check_same_batch(student, teacher)
  return _smooth_l1(_cosines(student) - _cosines(teacher))


def _cosines(x: Array) -> Array:
  """Returns cosines of the angles at the first of three examples, [B, B, B]."""
  direction = unit(_differences(x))
  return einsum('ijd,ikd->ijk', direction, direction)


def correlation_congruence(student: Array, teacher: Array) -> Array:
  """Correlation congruence: products of errors of neighbours in the batch.

  The error of an example is |s - t|, elementwise; the loss is the inner product
  of the errors of each example and the next one. It depends on the order of the
  batch.

  Args:
    student: embeddings [B, D].
    teacher: embeddings [B, D].

  Returns:
    Squared features, summed over D and averaged over the B - 1 pairs of
    neighbours: a scalar.

  References:
    Peng et al., ICCV 2019, https://arxiv.org/abs/1904.01802. Deviation: as in
    the benchmark's code, it is not the paper's difference of kernel matrices.

  >>> correlation_congruence(jnp.zeros((2, 3)), jnp.ones((2, 3)))
  Array(3., dtype=float32)
  """
  chex.assert_equal_shape([student, teacher])
  gap = jnp.abs(flat(student) - flat(teacher))
  return jnp.sum(gap[:-1] * gap[1:]) / max(len(gap) - 1, 1)
