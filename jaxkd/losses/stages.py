"""Losses of how one stage of a network becomes the next.

What is compared between the networks is a relation of two consecutive maps of
one network. All losses compute in float32 at least and return one value per
example.
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

# The two maps between which something flows, in the order of the network.
Pair = tuple[Array, Array]


def _flow(pair: Pair) -> Array:
  """Returns the mean product of two maps over positions, [B, C, C']."""
  first, last = match(*map(at_least_float32, pair))
  flow = einsum('bhwc,bhwd->bcd', first, last)
  return flow / (first.shape[1] * first.shape[2])


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
  together. Of their turn into one another the derivative is infinite; in the
  gradient it is left out or, towards a fifth vector, bounded.

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

  Returns:
    Columns of [B, N, count] in unit length; zero where the singular value is
    zero, or where there is none.
  """
  if x.shape[1] >= x.shape[2]:
    return _eigenvectors(einsum('bmn,bmk->bnk', x, x), count)
  left = _eigenvectors(einsum('bmn,bkn->bmk', x, x), count)
  return unit(einsum('bmn,bmk->bnk', x, left), axis=1)


# By the bytes of a number: more would give float32 nothing but rounding.
_ROUNDS = {4: 5, 8: 6}  # of an eighth power each: powers of 8^5 and 8^6
_STEPS = {4: 32, 8: 128}  # of conjugate gradients


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _eigenvectors(gram: Array, count: int) -> Array:
  """Returns the eigenvectors [B, N, count] of the largest eigenvalues.

  By products of matrices alone: they are what accelerators are quick at, and
  on CPU two calls of LAPACK in one program can wait for each other forever.

  Args:
    gram: positive semidefinite, [B, N, N].
    count: vectors wanted, the fewer the quicker.
  """
  return _eigenpairs(gram, count)[1]


@_eigenvectors.defjvp
def _(count, primals, tangents):
  """First-order perturbation, dv_k = sum of v_j (v_j · dG v_k) / (λ_k - λ_j).

  Over the other vectors that are known it is this sum, without terms whose
  denominator is nothing but rounding; over the others it is the solution x of
  (λ_k - rest) x = dG v_k, where rest is G without the known vectors.
  """
  (gram,), (change,) = primals, tangents
  values, v = _eigenpairs(gram, count)
  noise = 10 * jnp.finfo(gram.dtype).eps * values[..., :1]

  def inverse(x):
    known = jnp.abs(x) > noise
    return jnp.where(known, 1 / jnp.where(known, x, 1), 0)

  pull = einsum('bnm,bmk->bnk', change, v)
  inside = einsum('bnj,bnk->bjk', v, pull)
  outside = pull - einsum('bnj,bjk->bnk', v, inside)
  inside *= inverse(values - jnp.swapaxes(values, 1, 2))
  rest = gram - einsum('bnk,bmk->bnm', v * values, v)
  outside = _solve(rest, inverse(values), noise, outside)
  return v, einsum('bnj,bjk->bnk', v, inside) + outside


def _solve(gram: Array, scale: Array, noise: Array, b: Array) -> Array:
  """Returns scale (1 - scale gram)⁻¹ b, linear in b.

  Where an eigenvalue of gram is 1 / scale, to rounding or as near as the power
  iteration tells no two apart, the inverse is bounded.

  Args:
    gram: symmetric, with no eigenvalue above the smallest 1 / scale, [B, N, N].
    scale: of each column, not negative, [B, 1, k].
    noise: rounding of eigenvalues of gram, [B, 1, 1].
    b: [B, N, k].
  """
  # Products of the matrix with rows are twice as fast on CPU.
  scale, rows = jnp.swapaxes(scale, 1, 2), jnp.swapaxes(b, 1, 2)
  flat = jnp.maximum(noise * scale, 8.0 ** -_ROUNDS[gram.dtype.itemsize])

  def times(x):
    return x - scale * einsum('bnm,bkn->bkm', gram, x)

  def solve(times, b):
    return _conjugate_gradients(times, b, flat)

  x = lax.custom_linear_solve(times, rows, solve, symmetric=True)
  return jnp.swapaxes(scale * x, 1, 2)


def _conjugate_gradients(
  times: Callable[[Array], Array], b: Array, flat: Array
) -> Array:
  """Returns rows x [B, k, N] with times(x) = b.

  A row is done where it has converged, and where what is left of it is a
  direction of which `times` keeps less than the share `flat`.

  Args:
    times: product of rows with positive semidefinite matrices.
    b: [B, k, N].
    flat: the larger, the smaller x may become, [B, k, 1].

  References:
    Hestenes and Stiefel, 1952, "Methods of Conjugate Gradients for Solving
    Linear Systems".
  """

  def dot(x, y):
    return jnp.sum(x * y, axis=2, keepdims=True)

  def step(state, _):
    x, r, p, before = state
    image = times(p)
    slope = dot(p, image)
    on = (slope > flat * dot(p, p)) & (before > converged)
    length = jnp.where(on, before / jnp.where(on, slope, 1), 0)
    x, r = x + length * p, r - length * image
    after = dot(r, r)
    p = jnp.where(on, r + after / jnp.where(on, before, 1) * p, 0)
    return (x, r, p, after), None

  # In units of the largest entry, squares neither overflow nor vanish.
  size = jnp.max(jnp.abs(b), axis=2, keepdims=True)
  r = b / jnp.where(size > 0, size, 1)
  converged = jnp.square(jnp.finfo(b.dtype).eps)
  state = jnp.zeros_like(r), r, r, dot(r, r)
  (x, *_), _ = lax.scan(step, state, length=_STEPS[b.dtype.itemsize])
  return size * x


def _eigenpairs(gram: Array, count: int) -> Pair:
  """Returns the largest eigenvalues [B, 1, count] and their vectors."""
  noise = 10 * jnp.finfo(gram.dtype).eps * jnp.trace(gram, axis1=1, axis2=2)

  def take_out(gram, _):
    v = _first_eigenvector(gram)
    value = einsum('bn,bnm,bm->b', v, gram, v)
    value = jnp.where(value > noise, value, 0)[:, None]
    v = jnp.where(value > 0, v, 0)
    return gram - einsum('bn,bm->bnm', value * v, v), (value, v)

  _, (values, vectors) = lax.scan(take_out, gram, length=count)
  return jnp.moveaxis(values, 0, 2), jnp.moveaxis(vectors, 0, 2)


def _first_eigenvector(gram: Array) -> Array:
  """Returns the eigenvector of the largest eigenvalue, [B, N].

  A power of the matrix, taken by squaring, is as good as its projection; the
  last eighth power is taken of one column alone. What is left of the second
  vector is (1 - g)^(8^5) in float32, (1 - g)^(8^6) in float64, for a gap of g
  between the eigenvalues as a share of the first: of 1e-3, nothing. In
  float32, rounding mixes closer ones anyway.
  """

  def scaled(x):
    # The largest entry is on the diagonal, so that eigenvalues are at most N:
    # their eighth powers are far from overflow.
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
