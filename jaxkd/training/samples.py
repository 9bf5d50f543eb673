"""A picture of training images as the networks see them."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxkd.data import batches
from jaxkd.data.base import Dataset, View
from jaxkd.problems import Problem
from jaxkd.types import Array

IMAGES = 64  # at most
LARGEST = 1024  # pixels; of larger images there are fewer


def grid(
  dataset: Dataset,
  problem: Problem,
  batch_size: int,
  seed: int,
  view_seed: int,
) -> np.ndarray | None:
  """Returns the augmented images of the first batch of an epoch, as a grid.

  Args:
    dataset: whose training split is shown.
    problem: makes training views of it.
    batch_size: of which at most `IMAGES` are shown.
    seed: of the order.
    view_seed: of the views.

  Returns:
    uint8 [H, W, C], without normalisation; real numbers, which have no black
    and white, from the least to the greatest. None if the examples are not
    pictures of one or three channels.
  """
  height, width, channels = dataset.image_shape
  if min(height, width) < 2 or channels not in (1, 3):
    return None
  full, _ = batches.train_batches(len(dataset.train), batch_size, seed, 0)
  columns = max(1, min(8, LARGEST // width))
  rows = max(1, min(IMAGES // columns, LARGEST // height))
  index = full[0][: columns * rows]
  rows = math.ceil(len(index) / columns)
  split = dataset.train
  if split.load is None:
    raw = {name: x[index] for name, x in split.arrays.items()}
    raw = {**raw, 'index': index}
  else:
    raw = next(batches.prefetch(split, [index], view_seed, 0))
  view = dataset.view
  seen = np.asarray(_seen(problem, view, raw, np.uint32(view_seed)))
  pixels = seen * np.array(view.std) + np.array(view.mean)
  if view.scale == 1:
    pixels = (pixels - pixels.min()) / (np.ptp(pixels) or 1)
  cells = np.zeros((rows * columns, height, width, channels), np.uint8)
  cells[: len(index)] = np.round(255 * np.clip(pixels, 0, 1))
  cells = cells.reshape(rows, columns, height, width, channels)
  return cells.swapaxes(1, 2).reshape(rows * height, columns * width, channels)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _seen(problem: Problem, view: View, raw: Any, seed: Array) -> Array:
  """Returns the images of a batch in the views of the first epoch."""
  return problem.train_view(raw, jnp.int32(0), seed, view)['image']
