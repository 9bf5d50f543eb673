"""Losses over the relations between consecutive stages of a network.

A relation of two consecutive maps of one network is compared with the same
relation in the other network. All losses compute in at least float32 and return
one value per example.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
from jax import lax

from jaxkd.losses.numerics import at_least_float32, einsum, unit
from jaxkd.losses.sizes import match
from jaxkd.types import Array

Pair = tuple[Array, Array]  # two maps, in the order of the network


def _flow(pair: Pair) -> Array:
  """Returns the FSP matrix of two maps, [B, C, C']."""
  first, last = match(*map(at_least_float32, pair))
  flow = einsum('bhwc,bhwd->bcd', first, last)
  return flow / (first.shape[1] * first.shape[2])


def fsp(student: Pair, teacher: Pair) -> Array:
  """Flow of solution procedure (FSP): squared difference of FSP matrices.

  The FSP matrix of two consecutive maps contains the products of each channel
  of the first with each channel of the second, averaged over positions. The
  larger map is pooled to the size of the smaller one.

  Args:
    student: maps [B, H, W, C] and [B, H', W', C'].
    teacher: maps of any size with the same numbers of channels.

  Returns:
    Features to the fourth power, averaged over C and C': [B].

  Raises:
    ValueError: different numbers of channels.

  References:
    Yim et al., CVPR 2017, "A Gift from Knowledge Distillation", eq. 1 and 2,
    with the mean instead of the sum.

  >>> ones, zeros = jnp.ones((1, 4, 4, 2)), jnp.zeros((1, 2, 2, 3))
  >>> fsp((ones, zeros + 1), (ones, zeros))
  Array([1.], dtype=float32)
  """
  for s, t in zip(student, teacher, strict=True):
    _check_same('fsp', 'channels', s.shape[-1], t.shape[-1])
  gap = _flow(student) - _flow(teacher)
  return jnp.mean(jnp.square(gap), axis=(1, 2))


def svd_channels(student: Sequence[Array], teacher: Sequence[Array]) -> Array:
  """Distillation of singular vectors of (positions x channels) matrices.

  Each of the teacher's maps is reduced to the first right singular vector of
  its matrix of positions by channels, each of the student's maps to the one of
  its first four vectors that is most similar to the teacher's, with the sign of
  the teacher's. The loss is the squared difference of the RBF kernels
  exp(-(v_i - v'_j)² / 8) of two consecutive stages, for all i and j.

  If singular values are equal up to rounding, only the space of their vectors
  is determined, and the derivative of a rotation within that space is infinite.
  The gradient leaves it out or, for a rotation towards a fifth vector, bounds
  it.

  Args:
    student: maps [B, H, W, C], at least two, in the order of the network.
    teacher: maps of any sizes, each with as many channels as the student's.

  Returns:
    Squared difference of kernels, summed over i, j and pairs of stages: [B].

  Raises:
    ValueError: different numbers of channels or of maps, or fewer than two.

  References:
    Lee, Kim and Song, ECCV 2018, https://arxiv.org/abs/1807.06819, as in
    RepDistiller. Deviation: the signs of the teacher's vectors, which depend on
    the decomposition in that code, are chosen so that their sums are positive.

  >>> maps = [jnp.ones((1, 4, 4, 2)), jnp.ones((1, 2, 2, 3))]
  >>> svd_channels(maps, maps)
  Array([0.], dtype=float32)
  """
  return _svd('svd_channels', 'channels', student, teacher, _by_channels)


def svd_rows(student: Sequence[Array], teacher: Sequence[Array]) -> Array:
  """Distillation of singular vectors of (rows and channels x columns) matrices.

  As `svd_channels`, but with matrices [H C, W] instead of [H W, C]. This is
  another loss, for which the widths of the maps, not the channels, must agree.

  Args:
    student: maps [B, H, W, C], at least two, in the order of the network.
    teacher: maps, each with as many columns as the student's.

  Returns:
    Squared difference of kernels, summed over i, j and pairs of stages: [B].

  Raises:
    ValueError: different numbers of columns or of maps, or fewer than two.

  References:
    See `svd_channels`; mdistiller's code computes this loss.

  >>> maps = [jnp.ones((1, 4, 4, 2)), jnp.ones((1, 2, 2, 3))]
  >>> svd_rows(maps, maps)
  Array([0.], dtype=float32)
  """
  return _svd('svd_rows', 'columns', student, teacher, _by_columns)


def _check_same(loss: str, what: str, student: int, teacher: int) -> None:
  if student != teacher:
    raise ValueError(
      f'{loss} needs as many {what} in the maps of both networks, got'
      f' {student} for the student and {teacher} for the teacher: choose other'
      ' taps, or use a regressor'
    )


def _by_channels(x: Array) -> Array:
  """Returns a map as a matrix of positions by channels, [B, HW, C]."""
  return x.reshape(len(x), -1, x.shape[3])


def _by_columns(x: Array) -> Array:
  """Returns a map as a matrix of rows and channels by columns, [B, HC, W]."""
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
  vectors = []
  for maps in zip(student, teacher, strict=True):
    s, t = (matrix(at_least_float32(x)) for x in maps)
    _check_same(loss, what, s.shape[-1], t.shape[-1])
    vectors.append(_aligned(s, t))
  total = 0.0
  for (s, t), (next_s, next_t) in pairwise(vectors):
    gap = _kernel(next_s, s) - _kernel(next_t, t)
    total += jnp.sum(jnp.square(gap), axis=(1, 2))
  return jnp.asarray(total)


def _kernel(v: Array, previous: Array) -> Array:
  """Returns exp(-(v_i - previous_j)² / 8), [B, N, N']."""
  return jnp.exp(-jnp.square(v[:, :, None] - previous[:, None, :]) / 8)


def _aligned(student: Array, teacher: Array) -> Pair:
  """Returns a vector [B, N] for each of two matrices [B, M, N]."""
  t = _right_vectors(teacher, 1)[..., 0]
  t *= jnp.where(jnp.sum(t, axis=1, keepdims=True) < 0, -1, 1)
  s = _right_vectors(student, 4)
  cosine = einsum('bnk,bn->bk', s, t)
  best = jnp.argmax(jnp.abs(cosine), axis=1)
  sign = jax.nn.one_hot(best, s.shape[2], dtype=s.dtype) * jnp.sign(cosine)
  return einsum('bnk,bk->bn', s, sign), t


def _right_vectors(x: Array, count: int) -> Array:
  """Returns the first right singular vectors of matrices [B, M, N].

  Returns:
    Unit vectors, the columns of [B, N, count]; zero if the singular value is
    zero or does not exist.
  """
  if x.shape[1] >= x.shape[2]:
    return _eigenvectors(einsum('bmn,bmk->bnk', x, x), count)
  left = _eigenvectors(einsum('bmn,bkn->bmk', x, x), count)
  return unit(einsum('bmn,bmk->bnk', x, left), axis=1)


# By the bytes of a number: more would not improve the precision.
_ROUNDS = {4: 5, 8: 6}  # of eighth powers: the powers 8^5 and 8^6
_STEPS = {4: 32, 8: 128}  # of conjugate gradients


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _eigenvectors(gram: Array, count: int) -> Array:
  """Returns the eigenvectors [B, N, count] of the largest eigenvalues.

  It uses only matrix products: they are fast on accelerators, and on CPU two
  LAPACK calls in one program can deadlock.

  Args:
    gram: positive semidefinite, [B, N, N].
    count: number of vectors; fewer are faster.
  """
  return _eigenpairs(gram, count)[1]


@_eigenvectors.defjvp
def _(count, primals, tangents):
  """First-order perturbation, dv_k = sum of v_j (v_j · dG v_k) / (λ_k - λ_j).

  For the `count` computed eigenvectors it is this sum, without terms whose
  denominator is at the level of rounding errors. For all others it is the
  solution x of (λ_k - rest) x = dG v_k, where rest is G with the computed
  eigenvectors removed.
  """
  (gram,), (change,) = primals, tangents
  values, v = _eigenpairs(gram, count)
  noise = 10 * jnp.finfo(gram.dtype).eps * values[..., :1]

  def inverse(x):
    nonzero = jnp.abs(x) > noise
    return jnp.where(nonzero, 1 / jnp.where(nonzero, x, 1), 0)

  pull = einsum('bnm,bmk->bnk', change, v)
  inside = einsum('bnj,bnk->bjk', v, pull)
  outside = pull - einsum('bnj,bjk->bnk', v, inside)
  inside *= inverse(values - jnp.swapaxes(values, 1, 2))
  rest = gram - einsum('bnk,bmk->bnm', v * values, v)
  outside = _solve(rest, inverse(values), noise, outside)
  return v, einsum('bnj,bjk->bnk', v, inside) + outside


def _solve(gram: Array, scale: Array, noise: Array, b: Array) -> Array:
  """Returns scale (1 - scale gram)⁻¹ b, linear in b.

  If an eigenvalue of gram equals 1 / scale, up to rounding or to the resolution
  of the power iteration, the inverse is bounded.

  Args:
    gram: symmetric, with no eigenvalue above the smallest 1 / scale, [B, N, N].
    scale: of each column, not negative, [B, 1, k].
    noise: rounding error of the eigenvalues of gram, [B, 1, 1].
    b: [B, N, k].
  """
  # Products of the matrix with rows are twice as fast on CPU.
  scale, rows = jnp.swapaxes(scale, 1, 2), jnp.swapaxes(b, 1, 2)
  tolerance = jnp.maximum(noise * scale, 8.0 ** -_ROUNDS[gram.dtype.itemsize])

  def matvec(x):
    return x - scale * einsum('bnm,bkn->bkm', gram, x)

  def solve(matvec, b):
    return _conjugate_gradients(matvec, b, tolerance)

  x = lax.custom_linear_solve(matvec, rows, solve, symmetric=True)
  return jnp.swapaxes(scale * x, 1, 2)


def _conjugate_gradients(
  matvec: Callable[[Array], Array], b: Array, tolerance: Array
) -> Array:
  """Returns rows x [B, k, N] with matvec(x) = b.

  The iteration for a row stops when it has converged, or when the curvature
  along the search direction is below `tolerance`.

  Args:
    matvec: product of rows with positive semidefinite matrices.
    b: [B, k, N].
    tolerance: the smallest curvature p · matvec(p) / p · p, [B, k, 1].

  References:
    Hestenes and Stiefel, 1952, "Methods of Conjugate Gradients for Solving
    Linear Systems".
  """

  def dot(x, y):
    return jnp.sum(x * y, axis=2, keepdims=True)

  def step(state, _):
    x, r, p, old = state
    image = matvec(p)
    curvature = dot(p, image)
    active = (curvature > tolerance * dot(p, p)) & (old > converged)
    length = jnp.where(active, old / jnp.where(active, curvature, 1), 0)
    x, r = x + length * p, r - length * image
    new = dot(r, r)
    p = jnp.where(active, r + new / jnp.where(active, old, 1) * p, 0)
    return (x, r, p, new), None

  # Divided by the largest entry, squares neither overflow nor underflow.
  size = jnp.max(jnp.abs(b), axis=2, keepdims=True)
  r = b / jnp.where(size > 0, size, 1)
  converged = jnp.square(jnp.finfo(b.dtype).eps)
  state = jnp.zeros_like(r), r, r, dot(r, r)
  (x, *_), _ = lax.scan(step, state, length=_STEPS[b.dtype.itemsize])
  return size * x


def _eigenpairs(gram: Array, count: int) -> Pair:
  """Returns the largest eigenvalues [B, 1, count] and their eigenvectors."""
  noise = 10 * jnp.finfo(gram.dtype).eps * jnp.trace(gram, axis1=1, axis2=2)

  def deflate(gram, _):
    v = _first_eigenvector(gram)
    value = einsum('bn,bnm,bm->b', v, gram, v)
    value = jnp.where(value > noise, value, 0)[:, None]
    v = jnp.where(value > 0, v, 0)
    return gram - einsum('bn,bm->bnm', value * v, v), (value, v)

  _, (values, vectors) = lax.scan(deflate, gram, length=count)
  return jnp.moveaxis(values, 0, 2), jnp.moveaxis(vectors, 0, 2)


def _first_eigenvector(gram: Array) -> Array:
  """Returns the eigenvector of the largest eigenvalue, [B, N].

  Power iteration: powers of the matrix by repeated squaring, and the last
  eighth power of one column only. The remaining share of the second eigenvector
  is (1 - g)^(8^5) in float32 and (1 - g)^(8^6) in float64, where g is the gap
  between the first two eigenvalues, relative to the first; for g = 1e-3, it is
  negligible. In float32, rounding mixes eigenvectors with a smaller gap anyway.
  """

  def scaled(x):
    # The largest entry is on the diagonal, so eigenvalues are at most N, and
    # their eighth powers do not overflow.
    size = jnp.max(jnp.abs(x), axis=(1, 2), keepdims=True)
    return x / jnp.where(size > 0, size, 1)

  def eighth_power(_, x):
    for _ in range(3):
      x = einsum('bnm,bmk->bnk', x, x)
    return scaled(x)

  rounds = _ROUNDS[gram.dtype.itemsize]
  power = lax.fori_loop(1, rounds, eighth_power, scaled(gram))
  largest = jnp.argmax(jnp.diagonal(power, axis1=1, axis2=2), axis=1)
  v = jnp.take_along_axis(power, largest[:, None, None], axis=2)
  for _ in range(7):
    v = einsum('bnm,bmk->bnk', power, v)
  return unit(scaled(v)[..., 0])
