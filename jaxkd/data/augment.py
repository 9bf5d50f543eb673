"""Crop, flip and normalise, on the device, inside the jitted step.

As in the distillation literature on CIFAR: zero-pad the uint8 image, crop it at
random, mirror half of the crops, divide by 255, normalise. Padded pixels are
black, hence -mean/std and not 0 after normalisation. Real-valued data are
divided by a scale of their own.
"""

import functools
import zlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxkd.data.base import View
from jaxkd.types import Array


def view_count(view: View) -> int:
  """Returns how many different training views an image has."""
  return (2 * view.pad + 1) ** 2 * (2 if view.flip else 1)


def view_number(
  index: Array, epoch: Array | int, *, seed: Array | int, view: View
) -> Array:
  """Returns the random number of each example's view in an epoch.

  A function of (seed, epoch, index_i) alone: batch composition, device count
  and the step a run resumed from do not matter.

  Args:
    index: int32 [B], the examples' positions in their split.
    epoch: int32 scalar.
    seed: the run's seed, at least 0.
    view: whose number of views counts.

  Returns:
    int32 [B], uniform in 0..view_count(view)-1; see `view_offsets`.
  """
  # Threefry by name: under `vmap` other generators do not promise that an
  # example's bits are independent of its neighbours.
  key = jax.random.key(seed, impl='threefry2x32')
  key = jax.random.fold_in(key, zlib.crc32(b'augment'))
  key = jax.random.fold_in(key, epoch)

  def bits(i):
    return jax.random.bits(jax.random.fold_in(key, i), (), 'uint32')

  # A remainder favours small numbers, by less than one part in ten million.
  number = jax.vmap(bits)(index) % jnp.uint32(view_count(view))
  return number.astype(jnp.int32)


def view_offsets(number: Array, view: View) -> tuple[Array, Array, Array]:
  """Splits a view's number into crop offsets and a flip.

  Args:
    number: int32 [B], in 0..view_count(view)-1.
    view: the crop's padding and whether it flips.

  Returns:
    dy and dx, int32 [B] in 0..2*pad, from the padded image's top left corner;
    flip, bool [B].
  """
  side = 2 * view.pad + 1
  return number // side % side, number % side, number // side**2 > 0


def train_view(
  image: Array,
  index: Array,
  epoch: Array | int,
  *,
  seed: Array | int,
  view: View,
  dtype: jnp.dtype = jnp.float32,
) -> Array:
  """Returns one random view of each image, normalised.

  Args:
    image: uint8 or float32 [B, H, W, C].
    index: int32 [B], the examples' positions in their split.
    epoch: int32 scalar.
    seed: the run's seed, at least 0.
    view: padding, flip, scale, mean and std.
    dtype: of the result; the arithmetic is float32.

  Returns:
    [B, H, W, C]: zero-padded, cropped, then flipped, then normalised.
  """
  chex.assert_rank([image, index], [4, 1])
  chex.assert_equal_shape_prefix([image, index], 1)
  if view_count(view) > 1:
    number = view_number(index, epoch, seed=seed, view=view)
    image = crop(image, *view_offsets(number, view), view.pad)
  return eval_view(image, view=view, dtype=dtype)


def crop(image: Array, dy: Array, dx: Array, flip: Array, pad: int) -> Array:
  """Zero-pads, crops at (dy, dx) to the original size, mirrors where `flip`.

  A gather of pixels is slow on TPUs. There, a view of uint8 or real numbers is
  two products with matrices of zeros and ones, which have the same bits. The
  choice is made when a program is lowered.

  Args:
    image: [B, H, W, C], any dtype.
    dy: int32 [B], in 0..2*pad.
    dx: int32 [B], in 0..2*pad.
    flip: bool [B].
    pad: zero pixels on each side.

  Returns:
    [B, H, W, C].
  """
  _, height, width, _ = image.shape
  x = np.arange(width, dtype=np.int32)
  columns = dx[:, None] + jnp.where(flip[:, None], x[None, ::-1], x[None])
  rows = dy[:, None] + np.arange(height, dtype=np.int32)[None]
  gathered = functools.partial(crop_by_gather, pad=pad)
  if image.dtype != np.uint8 and not jnp.issubdtype(image.dtype, np.floating):
    return gathered(image, rows, columns)
  return lax.platform_dependent(
    image,
    rows,
    columns,
    tpu=functools.partial(crop_by_products, pad=pad),
    default=gathered,
  )


def crop_by_gather(
  image: Array, rows: Array, columns: Array, *, pad: int
) -> Array:
  """Picks rows and columns of each image inside a border of zeros.

  Args:
    image: [B, H, W, C].
    rows: int32 [B, H'], counted from the border's first row.
    columns: int32 [B, W'], likewise.
    pad: width of the border.

  Returns:
    [B, H', W', C].
  """
  around = ((0, 0), (pad, pad), (pad, pad), (0, 0))

  def one(image, rows, columns):
    # One gather: a slice followed by a select costs half as much again.
    return image.at[rows[:, None], columns[None, :]].get(
      mode='promise_in_bounds'
    )

  return jax.vmap(one)(jnp.pad(image, around), rows, columns)


def crop_by_products(
  image: Array, rows: Array, columns: Array, *, pad: int
) -> Array:
  """Does the same as `crop_by_gather`, as two matrix products.

  Each sum has one term, or none for a pixel of the border. Whole numbers up to
  255 are exact in bfloat16; other real numbers are exact in the highest
  precision, which splits them into parts.
  """
  exact = image.dtype == np.uint8
  dtype = jnp.bfloat16 if exact else jnp.promote_types(image.dtype, np.float32)
  precision = None if exact else lax.Precision.HIGHEST
  product = functools.partial(
    jnp.einsum, precision=precision, preferred_element_type=dtype
  )

  def picks(where: Array, size: int) -> Array:
    of = np.arange(pad, pad + size, dtype=np.int32)
    return (where[:, :, None] == of[None, None]).astype(dtype)

  _, height, width, _ = image.shape
  x = image.astype(dtype)
  x = product('byh,bhwc->bywc', picks(rows, height), x)
  x = product('bxw,bywc->byxc', picks(columns, width), x)
  return x.astype(image.dtype)


def eval_view(
  image: Array, *, view: View, dtype: jnp.dtype = jnp.float32
) -> Array:
  """Returns images [..., C] normalised: (image / scale - mean) / std.

  Args:
    image: uint8 or float32 [..., C].
    view: scale, mean and std.
    dtype: of the result; the arithmetic is float32.
  """
  shape = (1,) * (image.ndim - 1) + (len(view.mean),)
  chex.assert_axis_dimension(image, -1, len(view.mean))
  mean = np.array(view.mean, np.float32).reshape(shape)
  std = np.array(view.std, np.float32).reshape(shape)
  unit = image.astype(jnp.float32) / view.scale
  return ((unit - mean) / std).astype(dtype)
