"""The views of image files, on the host: crops and resizes.

The views are those that are usual for ImageNet: training, a random crop of 8 to
100 % of the area with an aspect ratio of 3/4 to 4/3, resized (Szegedy et al.,
CVPR 2015, https://arxiv.org/abs/1409.4842); test, the shorter side resized to
8/7 of the size, then a centre crop.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from jaxkd.data.decode import PLAIN, File, Rules, decode

if TYPE_CHECKING:
  from PIL.Image import Image

TEST_MARGIN = 256 / 224


def centre(image: 'Image', size: int, margin: float = 1.0) -> 'Image':
  """Returns the central square, resized to `size` by `size` pixels.

  With margin m the square has 1/m of the shorter side: the same as resizing the
  shorter side to m * size and cropping the centre, in one resampling.
  """
  width, height = image.size
  side = min(width, height) / margin
  left, top = (width - side) / 2, (height - side) / 2
  return _resize(image, size, (left, top, left + side, top + side))


def random_crop(image: 'Image', size: int, seed: int) -> 'Image':
  """Returns a random part, resized to `size` by `size` pixels.

  As in torchvision's RandomResizedCrop with its defaults: ten attempts at an
  area in 8..100 % and an aspect ratio in 3/4..4/3 (log-uniform), then the
  central part of the nearest allowed ratio.

  Args:
    image: any size.
    size: of the result.
    seed: the result is a function of the image and this number.
  """
  rng = np.random.Generator(np.random.PCG64(int(seed)))
  width, height = image.size
  for _ in range(10):
    area = width * height * rng.uniform(0.08, 1.0)
    ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
    w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
    if 0 < w <= width and 0 < h <= height:
      left = int(rng.integers(width - w + 1))
      top = int(rng.integers(height - h + 1))
      return _resize(image, size, (left, top, left + w, top + h))
  w, h = min(width, height * 4 / 3), min(height, width * 4 / 3)
  left, top = (width - w) / 2, (height - h) / 2
  return _resize(image, size, (left, top, left + w, top + h))


def loader(
  fetch: Callable[[np.ndarray], list[File]],
  size: int,
  channels: int,
  rules: Rules = PLAIN,
) -> Callable[[np.ndarray, np.ndarray | None], np.ndarray]:
  """Returns a `Split.load` with the views that are usual for ImageNet.

  Args:
    fetch: the files of examples, given their indices [B].
    size: height and width of the result.
    channels: 3 or 1.
    rules: for decoding.
  """

  def load(index, seeds):
    files = [decode(file, channels, rules) for file in fetch(index)]
    if seeds is None:
      views = [centre(image, size, TEST_MARGIN) for image in files]
    else:
      views = [
        random_crop(image, size, seed)
        for image, seed in zip(files, seeds, strict=True)
      ]
    return np.stack([pixels(view) for view in views])

  return load


def pixels(image: 'Image') -> np.ndarray:
  """Returns uint8 [H, W, C], with an axis also for grey."""
  array = np.asarray(image)
  return array.reshape(*array.shape[:2], -1)


def _resize(
  image: 'Image', size: int, box: tuple[float, float, float, float]
) -> 'Image':
  import PIL.Image

  return image.resize((size, size), PIL.Image.Resampling.BILINEAR, box)
