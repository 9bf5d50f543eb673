"""Losses between the features of one stage of two networks.

Maps are [B, H, W, C] and have the same height and width in both networks. All
losses compute in at least float32 and return one value per example.
"""

import math

import chex
import jax
import jax.numpy as jnp
from jax.scipy.stats import norm as normal

from jaxkd.losses.numerics import at_least_float32, einsum, flat, unit
from jaxkd.losses.sizes import adaptive_average_pool
from jaxkd.types import Array


def hint(student: Array, teacher: Array) -> Array:
  """Hint loss of FitNets: mean squared difference of features.

  Args:
    student: features [B, ...] in the teacher's shape (after a regressor).
    teacher: features [B, ...].

  Returns:
    Squared features, averaged over all axes but B: [B].

  References:
    Romero et al., ICLR 2015, https://arxiv.org/abs/1412.6550, eq. 3, with the
    mean instead of half the sum.

  >>> hint(jnp.zeros((1, 2)), jnp.array([[1.0, 3.0]]))
  Array([5.], dtype=float32)
  """
  chex.assert_equal_shape([student, teacher])
  return jnp.mean(jnp.square(flat(student) - flat(teacher)), axis=1)


def smooth_l1(student: Array, teacher: Array) -> Array:
  """Smooth L1 loss: d² / 2 for differences d below 1, |d| - 1/2 above.

  Args:
    student: features [B, ...] in the teacher's shape.
    teacher: features [B, ...].

  Returns:
    Averaged over all axes but B: [B].

  References:
    Girshick, ICCV 2015, https://arxiv.org/abs/1504.08083, eq. 3.

  >>> smooth_l1(jnp.zeros((1, 2)), jnp.array([[1.0, 3.0]]))
  Array([1.5], dtype=float32)
  """
  chex.assert_equal_shape([student, teacher])
  size = jnp.abs(flat(student) - flat(teacher))
  loss = jnp.where(size < 1, jnp.square(size) / 2, size - 0.5)
  return jnp.mean(loss, axis=1)


def _attention_map(x: Array) -> Array:
  """Returns the normalised attention map of a map [B, ..., C]: [B, HW]."""
  return unit(flat(jnp.mean(jnp.square(at_least_float32(x)), axis=-1)))


def _attention_gap(student: Array, teacher: Array) -> Array:
  """Returns the difference of the attention maps, [B, HW]."""
  chex.assert_equal_shape_prefix([student, teacher], student.ndim - 1)
  return _attention_map(student) - _attention_map(teacher)


def attention(student_map: Array, teacher_map: Array) -> Array:
  """Attention transfer: squared difference of attention maps.

  An attention map is the mean of f² over the channels, flattened and divided by
  its Euclidean norm.

  Args:
    student_map: [B, H, W, C].
    teacher_map: [B, H, W, C'] of the same size.

  Returns:
    The mean over H and W: [B]; at most 4 / (H W).

  References:
    Zagoruyko and Komodakis, ICLR 2017, https://arxiv.org/abs/1612.03928, eq. 2.
    As in the published code, the squared difference is averaged over H and W;
    the paper has the norm of the difference.

  >>> one, other = jnp.eye(2).reshape(2, 1, 1, 2, 1)
  >>> attention(one, other)
  Array([1.], dtype=float32)
  """
  return jnp.mean(jnp.square(_attention_gap(student_map, teacher_map)), axis=1)


def factor(student: Array, teacher: Array) -> Array:
  """Factor transfer: absolute difference of the factors' attention maps.

  Args:
    student: the translator's map [B, H, W, C].
    teacher: the paraphraser's map [B, H, W, C'] of the same size.

  Returns:
    The absolute difference, see `attention`, averaged over H and W: [B].

  References:
    Kim, Park and Kwak, NeurIPS 2018, https://arxiv.org/abs/1802.04977. As in
    the benchmark's code, the attention maps of the factors are compared, not
    the factors themselves.

  >>> one, other = jnp.eye(2).reshape(2, 1, 1, 2, 1)
  >>> factor(one, other)
  Array([1.], dtype=float32)
  """
  return jnp.mean(jnp.abs(_attention_gap(student, teacher)), axis=1)


def nst(student: Array, teacher: Array) -> Array:
  """Neuron selectivity transfer: maximum mean discrepancy between channels.

  It is k(s, s) + k(t, t) - 2 k(s, t), each the mean of the kernel over all
  pairs of channels. A channel is represented by its activations over the map,
  normalised to unit length; the kernel is the squared inner product.

  Args:
    student: map [B, H, W, C].
    teacher: map [B, H, W, C'] of the same size.

  Returns:
    Squared cosines: [B].

  References:
    Huang and Wang, 2017, https://arxiv.org/abs/1707.01219, eq. 5 with the
    polynomial kernel of d = 2 and c = 0. As in the benchmark's code.

  >>> one, other = jnp.eye(2).reshape(2, 1, 1, 2, 1)
  >>> nst(one, other)
  Array([2.], dtype=float32)
  """
  chex.assert_equal_shape_prefix([student, teacher], student.ndim - 1)
  s, t = (
    unit(at_least_float32(x).reshape(len(x), -1, x.shape[-1]), axis=1)
    for x in (student, teacher)
  )
  pixels, c_s, c_t = s.shape[1], s.shape[2], t.shape[2]

  # The sum over pairs of (a · b)² is |AᵀB|² and also <AAᵀ, BBᵀ>, so the
  # discrepancy is a distance of Gram matrices of the pixels. The two formulas
  # are equal; which one needs fewer operations depends on the shapes.
  def pixel_gram(x):
    return einsum('bpc,bqc->bpq', x, x) / x.shape[2]

  def kernel(a, b):
    return jnp.mean(jnp.square(einsum('bpc,bpd->bcd', a, b)), axis=(1, 2))

  if pixels * (c_s + c_t) < c_s**2 + c_t**2 + c_s * c_t:
    return jnp.sum(jnp.square(pixel_gram(s) - pixel_gram(t)), axis=(1, 2))
  return kernel(s, s) + kernel(t, t) - 2 * kernel(s, t)


def hcl(
  student: Array, teacher: Array, levels: tuple[int, ...] = (4, 2, 1)
) -> Array:
  """Hierarchical context loss: squared difference at several resolutions.

  The maps themselves have weight 1; pooled to l x l, each level has half the
  weight of the previous one. Levels that are not smaller than the map are left
  out. The sum is divided by the sum of the weights.

  Args:
    student: map [B, H, W, C].
    teacher: map [B, H, W, C].
    levels: l of each level, from fine to coarse.

  Returns:
    Squared features, averaged over H, W, C and resolutions: [B].

  References:
    Chen et al., CVPR 2021, https://arxiv.org/abs/2104.09044, section 3.3;
    weights and levels from the published code.

  >>> hcl(jnp.zeros((1, 8, 8, 2)), jnp.ones((1, 8, 8, 2)))
  Array([1.], dtype=float32)
  """
  chex.assert_rank([student, teacher], 4)
  chex.assert_equal_shape([student, teacher])
  # Pooling is linear, so the difference can be pooled.
  gap = at_least_float32(student) - at_least_float32(teacher)
  used = [level for level in levels if level < min(gap.shape[1:3])]
  pooled = [adaptive_average_pool(gap, (level, level)) for level in used]
  errors = [jnp.mean(jnp.square(x), axis=(1, 2, 3)) for x in (gap, *pooled)]
  weights = [0.5**i for i in range(len(errors))]
  return jnp.average(jnp.stack(errors), axis=0, weights=jnp.asarray(weights))


def ofd_margin(scale: Array, bias: Array) -> Array:
  """The expected value of the negative responses of each channel.

  The output of BatchNorm is assumed to be normally distributed with mean `bias`
  and standard deviation |scale|. If a channel is negative with a probability of
  at most 0.001, its margin is -3 |scale|; if scale is 0, it is min(bias, 0),
  the limit.

  Args:
    scale: of the BatchNorm before the activation, [C].
    bias: of the same BatchNorm, [C].

  Returns:
    Margins for `ofd`: [C], at most 0.

  References:
    Heo et al., ICCV 2019, https://arxiv.org/abs/1904.01866, section 3.2; the
    bound and the value beyond it are from the published code.

  >>> ofd_margin(jnp.array([2.0, 0.0]), jnp.array([9.0, -1.0]))
  Array([-6., -1.], dtype=float32)
  """
  chex.assert_equal_shape([scale, bias])
  scale, bias = jnp.abs(at_least_float32(scale)), at_least_float32(bias)
  spread = scale > 0
  x = jnp.where(spread, bias / jnp.where(spread, scale, 1), 0)
  negative = normal.cdf(-x)
  mean = bias - scale * normal.pdf(x) / jnp.maximum(negative, 1e-3)
  margin = jnp.where(negative > 1e-3, mean, -3 * scale)
  return jnp.minimum(margin, 0)  # changes only channels with scale 0


def ofd(student: Array, teacher: Array, margin: Array) -> Array:
  """Overhaul of feature distillation (OFD): partial squared difference.

  Applied to maps before the activation. The target is the teacher's response,
  but at least the margin. Where the target is not positive, the loss is zero if
  the student's response is below it.

  Args:
    student: the connector's map [B, H, W, C].
    teacher: map [B, H, W, C].
    margin: at most 0, [C]; see `ofd_margin`.

  Returns:
    Squared features, summed over H, W and C: [B].

  References:
    Heo et al., ICCV 2019, https://arxiv.org/abs/1904.01866, eq. 2 and 3.

  >>> s, t = jnp.array([[[[-2.0, 1.0]]]]), jnp.array([[[[-3.0, 3.0]]]])
  >>> ofd(s, t, jnp.array([-1.0, -1.0]))
  Array([4.], dtype=float32)
  """
  chex.assert_equal_shape([student, teacher])
  chex.assert_shape(margin, student.shape[-1:])
  s, t = flat(student), flat(teacher)
  floor = jnp.broadcast_to(margin, student.shape).reshape(s.shape)
  target = jnp.maximum(t, floor.astype(t.dtype))
  active = (s > target) | (target > 0)
  return jnp.sum(jnp.where(active, jnp.square(s - target), 0), axis=1)


def activation_boundary(
  student: Array, teacher: Array, margin: float = 1.0
) -> Array:
  """Activation boundaries: squared hinge loss on the signs of the responses.

  Applied to maps before the activation. The student should be at least `margin`
  where the teacher is positive, and at most -margin elsewhere.

  Args:
    student: the connector's map [B, ...].
    teacher: map [B, ...].
    margin: in units of the student's features.

  Returns:
    Squared features, summed over all axes but B: [B].

  References:
    Heo et al., AAAI 2019, https://arxiv.org/abs/1811.03233, eq. 4. The
    benchmark's code has a weight of 3 / 1000.

  >>> activation_boundary(jnp.array([[0.0, 2.0]]), jnp.array([[-1.0, 1.0]]))
  Array([1.], dtype=float32)
  """
  chex.assert_equal_shape([student, teacher])
  s, t = flat(student), flat(teacher)
  violation = jnp.where(t > 0, margin - s, margin + s)
  return jnp.sum(jnp.square(jnp.maximum(violation, 0)), axis=1)


_MIN_VARIANCE = 1e-5


def vid_log_scale(variance: float = 5.0) -> float:
  """Returns the `log_scale` of `vid` for a variance above 1e-5.

  >>> round(vid_log_scale(), 5)
  4.99323
  """
  return math.log(math.expm1(variance - _MIN_VARIANCE))


def vid(student: Array, teacher: Array, log_scale: Array) -> Array:
  """Variational information distillation: Gaussian negative log-likelihood.

  (s - t)² / (2 σ²) + log(σ²) / 2, with σ² = log(1 + exp(log_scale)) + 1e-5 for
  each channel; the constant log(2π) / 2 is left out.

  Args:
    student: the regressor's map [B, ..., C], the mean.
    teacher: map [B, ..., C].
    log_scale: the trained parameter of the variances, [C]; initialised with
      `vid_log_scale()`.

  Returns:
    Loss in nats, averaged over all axes but B: [B]; can be negative.

  References:
    Ahn et al., CVPR 2019, https://arxiv.org/abs/1904.05835, eq. 5 and 6, with
    the mean instead of the sum; the constants are from the published code.

  >>> zeros = jnp.zeros((1, 3))
  >>> vid(zeros, zeros, jnp.full(3, vid_log_scale(1.0))).round(4)
  Array([0.], dtype=float32)
  """
  chex.assert_equal_shape([student, teacher])
  chex.assert_shape(log_scale, student.shape[-1:])
  error = jnp.square(at_least_float32(student) - at_least_float32(teacher))
  # Per channel, so that each logarithm is computed only once.
  variance = jax.nn.softplus(at_least_float32(log_scale)) + _MIN_VARIANCE
  scaled = error * jnp.broadcast_to(1 / variance, error.shape)
  return (jnp.mean(flat(scaled), axis=1) + jnp.mean(jnp.log(variance))) / 2
