"""Image files to pixels, on the host: decode, resize, crop.

The views are those that are usual for ImageNet: training, a random crop of 8 to
100 % of the area with an aspect ratio of 3/4 to 4/3, resized (Szegedy et al.,
CVPR 2015, https://arxiv.org/abs/1409.4842); test, the shorter side resized to
8/7 of the size, then a centre crop.
"""

import contextlib
import io
import math
import pathlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
  from PIL.Image import Image

# A name for error messages, and what Pillow opens.
File = tuple[str, pathlib.Path | io.BytesIO]

SUFFIXES = ('.bmp', '.gif', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.webp')
TEST_MARGIN = 256 / 224


def decode(file: File, channels: int = 3) -> 'Image':
  """Returns an image in mode 'RGB' (3 channels) or 'L' (1 channel).

  Raises:
    ValueError: the file cannot be decoded.
  """
  with _opened(file) as image:
    image.load()
    if image.mode.startswith('I'):
      # Pillow would clip 16 bits to 8 instead of scaling them.
      image = _from_array((np.asarray(image) >> 8).astype(np.uint8))
    if 'transparency' in image.info:
      image = image.convert('RGBA')
    return image.convert('RGB' if channels == 3 else 'L')


def size_of(file: File) -> tuple[int, int]:
  """Returns (H, W) from an image's header.

  Raises:
    ValueError: the file is not an image.
  """
  with _opened(file) as image:
    return image.height, image.width


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
  fetch: Callable[[np.ndarray], list[File]], size: int, channels: int
) -> Callable[[np.ndarray, np.ndarray | None], np.ndarray]:
  """Returns a `Split.load` with the views that are usual for ImageNet.

  Args:
    fetch: the files of examples, given their indices [B].
    size: height and width of the result.
    channels: 3 or 1.
  """

  def load(index, seeds):
    files = [decode(file, channels) for file in fetch(index)]
    if seeds is None:
      views = [centre(image, size, TEST_MARGIN) for image in files]
    else:
      views = [
        random_crop(image, size, seed)
        for image, seed in zip(files, seeds, strict=True)
      ]
    return np.stack([_pixels(view) for view in views])

  return load


def whole(
  fetch: Callable[[np.ndarray], list[File]],
  index: np.ndarray,
  size: int,
  channels: int,
) -> np.ndarray:
  """Returns uint8 [B, size, size, C]: the largest central squares."""
  files = (decode(file, channels) for file in fetch(index))
  return np.stack([_pixels(centre(image, size)) for image in files])


@contextlib.contextmanager
def _opened(file: File) -> Iterator['Image']:
  """Opens with Pillow; explains an error here or while it is used."""
  import PIL.Image

  name, content = file
  try:
    with PIL.Image.open(content) as image:
      yield image
  except (OSError, SyntaxError, ValueError) as error:
    raise ValueError(
      f'{name} cannot be decoded as an image ({error}): replace or remove it'
    ) from error


def _from_array(pixels: np.ndarray) -> 'Image':
  import PIL.Image

  return PIL.Image.fromarray(pixels)


def _pixels(image: 'Image') -> np.ndarray:
  """Returns uint8 [H, W, C], with an axis also for grey."""
  pixels = np.asarray(image)
  return pixels.reshape(*pixels.shape[:2], -1)


def _resize(
  image: 'Image', size: int, box: tuple[float, float, float, float]
) -> 'Image':
  import PIL.Image

  return image.resize((size, size), PIL.Image.Resampling.BILINEAR, box)
