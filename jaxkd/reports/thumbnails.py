"""Images of data sets, small, as addresses that hold the image itself."""

import base64
import io
import pathlib

import numpy as np
import PIL.Image

from jaxkd.data.base import Split

SIDE = 96  # the most pixels on a side
LOSSLESS = 64  # up to this side, images are PNG
SMALLEST = 4  # fewer pixels on a side are no picture


def of_split(split: Split, index: np.ndarray) -> list[str]:
  """Returns examples of a split as data URIs, '' for those without pixels.

  Args:
    split: of images.
    index: int [M], of the examples.
  """
  if not len(index):
    return []
  if split.image is not None:
    images = split.image[index]
  else:
    assert split.load is not None, 'one of image and load'
    images = split.load(np.asarray(index, np.int32), None)
  return [of_image(image) for image in images]


def of_image(image: np.ndarray) -> str:
  """Returns an image [H, W, C] as a data URI.

  Real numbers are scaled so that the least is black and the greatest white;
  images of other than 1 or 3 channels are grey, by the mean of the channels.

  Returns:
    '' for an array that is no picture: fewer than four pixels on a side.
  """
  if image.ndim != 3 or min(image.shape[:2]) < SMALLEST:
    return ''
  if image.dtype != np.uint8:
    low, span = float(image.min()), float(np.ptp(image)) or 1.0
    image = ((image - low) / span * 255).astype(np.uint8)
  if image.shape[2] == 3:
    picture = PIL.Image.fromarray(image)
  else:
    picture = PIL.Image.fromarray(image.mean(2).astype(np.uint8))
  picture.thumbnail((SIDE, SIDE))
  lossless = max(picture.size) <= LOSSLESS
  stream = io.BytesIO()
  kind = 'PNG' if lossless else 'JPEG'
  picture.save(stream, kind, **({} if lossless else {'quality': 85}))
  return uri(stream.getvalue(), f'image/{kind.lower()}')


def of_png(path: pathlib.Path) -> str:
  """Returns a PNG file as a data URI."""
  return uri(path.read_bytes(), 'image/png')


def uri(content: bytes, kind: str) -> str:
  """Returns bytes as a data URI of a MIME type."""
  return f'data:{kind};base64,{base64.b64encode(content).decode()}'
