"""Losses of the relations among the examples of a batch.

Each is a scalar: the relations of one example are with all others, so a value
for each example would not be its own. Under `jit` with a batch that is split
over devices, the relations are those of the global batch. All examples count:
training batches are never padded. A batch of one has no relations, and its loss
is zero. All losses compute in float32 at least.
"""

import chex
import jax.numpy as jnp

from jaxkd.losses.numerics import einsum, flat, norm, unit
from jaxkd.types import Array


def _check_same_batch(student: Array, teacher: Array) -> None:
  chex.assert_equal_shape_prefix([student, teacher], 1)


def sp(student: Array, teacher: Array) -> Array:
  """Similarity preserving: squared difference of matrices of similarity.

  A row of the matrix has the inner products of one example's features with
  those of all others, divided by the length of the row.

  Args:
    student: features [B, ...].
    teacher: features [B, ...] of any other shape.

  Returns:
    The mean over all pairs: a scalar.

  References:
    Tung and Mori, ICCV 2019, https://arxiv.org/abs/1907.09682, eq. 2 to 4.

  >>> sp(jnp.eye(2), jnp.ones((2, 3))).round(4)
  Array(0.2929, dtype=float32)
  """
  _check_same_batch(student, teacher)
  return jnp.mean(jnp.square(_similarity(student) - _similarity(teacher)))


def _similarity(x: Array) -> Array:
  """Returns inner products of examples in rows of length 1, [B, B]."""
  x = flat(x)
  return unit(einsum('id,jd->ij', x, x))


def pkt(student: Array, teacher: Array) -> Array:
  """Probabilistic knowledge transfer: divergence of neighbourhoods.

  The neighbourhood of an example is a distribution over the batch, itself
  included, in proportion to (1 + cosine) / 2.

  Args:
    student: features [B, ...].
    teacher: features [B, ...] of any other shape.

  Returns:
    Nats of KL(teacher ‖ student), divided by B and averaged over examples: a
    scalar.

  References:
    Passalis and Tefas, ECCV 2018, https://arxiv.org/abs/1803.10837, with the
    published code's cosine kernel, mean over all pairs, and 1e-7 in lengths and
    logarithms.

  >>> pkt(jnp.eye(2), jnp.ones((2, 3))).round(4)
  Array(0.0294, dtype=float32)
  """
  _check_same_batch(student, teacher)
  p, q = _neighbourhoods(teacher), _neighbourhoods(student)
  return jnp.mean(p * (jnp.log(p + 1e-7) - jnp.log(q + 1e-7)))


def _neighbourhoods(x: Array) -> Array:
  """Returns a distribution over the batch for each example, [B, B]."""
  x = flat(x)
  length = norm(x)
  x *= jnp.where(length > 0, 1 / (length + 1e-7), 0)
  affinity = (einsum('id,jd->ij', x, x) + 1) / 2
  return affinity / jnp.sum(affinity, axis=1, keepdims=True)


def _smooth_l1(x: Array) -> Array:
  """Returns x² / 2 up to 1 and |x| - 1 / 2 beyond, averaged."""
  size = jnp.abs(x)
  return jnp.mean(jnp.where(size < 1, jnp.square(x) / 2, size - 0.5))


def rkd_distance(student: Array, teacher: Array) -> Array:
  """Relational distillation by distances between examples.

  Distances of each network are in units of their mean over all pairs. Two
  examples in the same place are 1e-6 apart.

  Args:
    student: embeddings [B, ...].
    teacher: embeddings [B, ...] of any other shape.

  Returns:
    Smooth L1 difference, averaged over all pairs and the B zeros of an example
    with itself: a scalar.

  References:
    Park et al., CVPR 2019, https://arxiv.org/abs/1904.05068, eq. 5 to 7. The
    benchmark weighs it by 25.

  >>> places = jnp.array([[0.0], [1.0], [2.0]])
  >>> rkd_distance(places, places**2)
  Array(0.03125, dtype=float32)
  """
  _check_same_batch(student, teacher)
  return _smooth_l1(_distances(student) - _distances(teacher))


def _differences(x: Array) -> Array:
  """Returns the way from example i to example j, [B, B, D]."""
  # Not by a Gram matrix: |a|² + |b|² - 2 a · b loses near neighbours.
  x = flat(x)
  return x[None] - x[:, None]


def _distances(x: Array) -> Array:
  """Returns distances of examples in units of their mean, [B, B]."""
  square = jnp.sum(jnp.square(_differences(x)), axis=-1)
  apart = 1 - jnp.eye(len(x), dtype=square.dtype)
  distance = apart * jnp.sqrt(jnp.maximum(square, 1e-12))
  mean = jnp.sum(distance) / max(len(x) * (len(x) - 1), 1)
  return distance / jnp.maximum(mean, 1e-12)  # below only in a batch of one


def rkd_angle(student: Array, teacher: Array) -> Array:
  """Relational distillation by angles between three examples.

  The cosine of the angle at i between the directions to j and to k, for all
  triples; the direction to itself is zero.

  Args:
    student: embeddings [B, ...].
    teacher: embeddings [B, ...] of any other shape.

  Returns:
    Smooth L1 difference, averaged over all B³ triples: a scalar.

  References:
    Park et al., CVPR 2019, https://arxiv.org/abs/1904.05068, eq. 8 and 9. The
    benchmark weighs it by 50.

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
  """Correlation congruence: products of neighbouring gaps in the batch.

  The gap of an example is |s - t|; the loss is the inner product of the gaps
  of each example and the next one. It depends on the order of the batch.

  Args:
    student: embeddings [B, D].
    teacher: embeddings [B, D].

  Returns:
    Squared features, summed over D and averaged over the B - 1 neighbours: a
    scalar.

  References:
    Peng et al., ICCV 2019, https://arxiv.org/abs/1904.01802. Kept as in the
    benchmark's code, which is not the paper's difference of kernel matrices.

  >>> correlation_congruence(jnp.zeros((2, 3)), jnp.ones((2, 3)))
  Array(3., dtype=float32)
  """
  chex.assert_equal_shape([student, teacher])
  gap = jnp.abs(flat(student) - flat(teacher))
  return jnp.sum(gap[:-1] * gap[1:]) / max(len(gap) - 1, 1)
