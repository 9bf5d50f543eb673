"""Losses of how one stage of a network becomes the next.

What is compared between the networks is a relation of two consecutive maps of
one network. All losses compute in float32 at least and return one value per
example.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import jax
import jax.numpy as jnp
from jax import lax

from jaxkd.losses.numerics import at_least_float32, einsum, unit
from jaxkd.losses.sizes import adaptive_average_pool
from jaxkd.types import Array

# The two maps between which something flows, in the order of the network.
Pair = tuple[Array, Array]


def _flow(pair: Pair) -> Array:
  """Returns the mean product of two maps over positions, [B, C, C']."""
  size = tuple(
    min(sizes) for sizes in zip(*(x.shape[1:3] for x in pair), strict=True)
  )
  first, last = (adaptive_average_pool(at_least_float32(x), size) for x in pair)
  return einsum('bhwc,bhwd->bcd', first, last) / (size[0] * size[1])


def fsp(student: Pair, teacher: Pair) -> Array:
  """Flow of solution procedure: squared difference of Gram matrices.

  The matrix of two consecutive maps is the mean over positions of all products
  of a channel of one with a channel of the other; the larger map is pooled to
  the size of the smaller one.

  Args:
    student: maps [B, H, W, C] and [B, H', W', C'].
    teacher: maps of any size with the same numbers of channels.

  Returns:
    Features to the fourth power, averaged over C and C': [B].

  Raises:
    ValueError: other numbers of channels.

  References:
    Yim et al., CVPR 2017, "A Gift from Knowledge Distillation", eq. 1 and 2,
    with the mean for the sum.

  >>> ones, zeros = jnp.ones((1, 4, 4, 2)), jnp.zeros((1, 2, 2, 3))
  >>> fsp((ones, zeros + 1), (ones, zeros))
  Array([1.], dtype=float32)
  """
  for s, t in zip(student, teacher, strict=True):
    _check_same('fsp', 'channels', s.shape[-1], t.shape[-1])
  gap = _flow(student) - _flow(teacher)
  return jnp.mean(jnp.square(gap), axis=(1, 2))


def svd_channels(student: Sequence[Array], teacher: Sequence[Array]) -> Array:
  """Distillation by singular vectors: channels that respond together.

  Each map becomes the first right singular vector of its matrix of positions
  by channels. Of the student's first four vectors it is the one that is most
  like the teacher's, with the teacher's sign. Two consecutive stages become
  exp(-(v_i - v'_j)² / 8) for all i, j; student and teacher are compared in it.

  Vectors whose singular values are equal, to rounding, are determined only
  together. The gradient is without their turn into one another, of which the
  derivative is infinite.

  Args:
    student: maps [B, H, W, C], at least two, in the order of the network.
    teacher: maps of any sizes, each with as many channels as the student's.

  Returns:
    Squared kernels, summed over i, j and pairs of stages: [B].

  Raises:
    ValueError: other numbers of channels, or of maps.

  References:
    Lee, Kim and Song, ECCV 2018, https://arxiv.org/abs/1807.06819, as in
    RepDistiller. Deviation: the signs of the teacher's vectors, which that code
    leaves to the decomposition, are those that make their sums positive.

  >>> maps = [jnp.ones((1, 4, 4, 2)), jnp.ones((1, 2, 2, 3))]
  >>> svd_channels(maps, maps)
  Array([0.], dtype=float32)
  """
  return _svd('svd_channels', 'channels', student, teacher, _by_channels)


def svd_rows(student: Sequence[Array], teacher: Sequence[Array]) -> Array:
  """Distillation by singular vectors, of the columns along a row of the map.

  `svd_channels` with another matrix, of all rows of all channels, H C, by the
  W columns: another loss, which needs maps of equal width, not of equal
  channels.

  Args:
    student: maps [B, H, W, C], at least two, in the order of the network.
    teacher: maps, each as wide as the student's.

  Returns:
    Squared kernels, summed over i, j and pairs of stages: [B].

  Raises:
    ValueError: other widths, or numbers of maps.

  References:
    See `svd_channels`; this is what mdistiller's code computes.

  >>> maps = [jnp.ones((1, 4, 4, 2)), jnp.ones((1, 2, 2, 3))]
  >>> svd_rows(maps, maps)
  Array([0.], dtype=float32)
  """
  return _svd('svd_rows', 'columns', student, teacher, _by_columns)


def _check_same(loss: str, what: str, student: int, teacher: int) -> None:
  if student != teacher:
    raise ValueError(
      f'{loss} needs as many {what} in the maps of both networks, got'
      f' {student} for the student and {teacher} for the teacher; choose other'
      ' taps, or a regressor in between'
    )


def _by_channels(x: Array) -> Array:
  """Returns a map as a matrix of positions by channels, [B, HW, C]."""
  return x.reshape(len(x), -1, x.shape[3])


def _by_columns(x: Array) -> Array:
  """Returns a map as a matrix of rows by columns, [B, HC, W]."""
  return jnp.swapaxes(x, 2, 3).reshape(len(x), -1, x.shape[2])


def _svd(
  loss: str,
  what: str,
  student: Sequence[Array],
  teacher: Sequence[Array],
  matrix: Callable[[Array], Array],
) -> Array:
  if len(student) != len(teacher) or len(student) < 2:
    raise ValueError(
      f'{loss} needs two or more maps, as many of both networks, got'
      f' {len(student)} of the student and {len(teacher)} of the teacher'
    )
  kept = []
  for maps in zip(student, teacher, strict=True):
    s, t = (matrix(at_least_float32(x)) for x in maps)
    _check_same(loss, what, s.shape[-1], t.shape[-1])
    kept.append(_aligned(s, t))
  total = 0.0
  for (s, t), (next_s, next_t) in pairwise(kept):
    gap = _kernel(next_s, s) - _kernel(next_t, t)
    total += jnp.sum(jnp.square(gap), axis=(1, 2))
  return jnp.asarray(total)


def _kernel(v: Array, before: Array) -> Array:
  """Returns exp(-(v_i - before_j)² / 8), [B, N, N']."""
  return jnp.exp(-jnp.square(v[:, :, None] - before[:, None, :]) / 8)


def _aligned(student: Array, teacher: Array) -> Pair:
  """Returns the vectors [B, N] that stand for matrices [B, M, N]."""
  t = _right_vectors(teacher, 1)[..., 0]
  t *= jnp.where(jnp.sum(t, axis=1, keepdims=True) < 0, -1, 1)
  s = _right_vectors(student, 4)
  cosine = einsum('bnk,bn->bk', s, t)
  best = jnp.argmax(jnp.abs(cosine), axis=1)
  sign = jax.nn.one_hot(best, s.shape[2], dtype=s.dtype) * jnp.sign(cosine)
  return einsum('bnk,bk->bn', s, sign), t


def _right_vectors(x: Array, count: int) -> Array:
  """Returns the first right singular vectors of matrices [B, M, N].

  They come from the smaller of the two Gram matrices, which takes a hundredth
  of the time of a singular value decomposition.

  Returns:
    Columns of [B, N, count], or of as many as min(M, N), in unit length; zero
    where the singular value is zero.
  """
  if x.shape[1] >= x.shape[2]:
    return _eigenvectors(einsum('bmn,bmk->bnk', x, x), count)
  left = _eigenvectors(einsum('bmn,bkn->bmk', x, x), count)
  return unit(einsum('bmn,bmk->bnk', x, left), axis=1)


def _eigenvectors(gram: Array, count: int) -> Array:
  """Returns the eigenvectors [B, N, count] of the largest eigenvalues.

  The gradient is that of first-order perturbation, dv_k = sum over j of
  v_j (v_j · dG v_k) / (λ_k - λ_j), without the terms whose denominator is
  nothing but rounding.
  """
  values, vectors = jnp.linalg.eigh(lax.stop_gradient(gram))
  values, v = values[:, None, ::-1], vectors[..., ::-1]
  first, value = v[..., :count], values[..., :count]
  noise = 10 * jnp.finfo(gram.dtype).eps * values[..., :1]
  gap = value - jnp.swapaxes(values, 1, 2)  # [B, N, count]
  known = jnp.abs(gap) > noise
  inside = einsum('bnj,bnk->bjk', v, einsum('bmn,bnk->bmk', gram, first))
  inside *= jnp.where(known, 1 / jnp.where(known, gap, 1), 0)
  turn = einsum('bnj,bjk->bnk', v, inside)
  # Zero in value: it is there for its derivative.
  return (first + turn - lax.stop_gradient(turn)) * (value > noise)
