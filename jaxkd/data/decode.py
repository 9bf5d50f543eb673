"""Image files to pixels of 8 bits, with Pillow: one rule for each kind of file.

Whatever cannot be shown as its author meant it is refused with the file's name
and the setting that decides: no file becomes another picture without a word.

| pixels                    | become                                         |
|---------------------------|------------------------------------------------|
| grey or RGB of 8 bits     | themselves                                     |
| 1 bit                     | 0 and 255                                      |
| palette                   | the palette's colours                          |
| CMYK, YCbCr               | RGB by Pillow's formula, without a profile     |
| 16 bits                   | value // 256                                   |
| 32-bit integers           | themselves in 0..255; others are refused       |
| real numbers              | 255 x value in 0..1; others are refused        |
| transparent               | their colours; or over `Rules.background`      |
| several frames            | the first frame                                |
"""

import contextlib
import functools
import io
import pathlib
import re
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxkd.catalog import is_number
from jaxkd.data.contents import what

if TYPE_CHECKING:
  from PIL.Image import Image

# A name for error messages, and what Pillow opens.
File = tuple[str, pathlib.Path | io.BytesIO]

# Formats that Pillow identifies without reading their pixels itself: it calls
# Ghostscript (EPS) or Windows (WMF), or needs a handler that is not there.
NO_PIXELS = ('BUFR', 'EPS', 'GRIB', 'HDF5', 'IPTC', 'MPEG', 'WMF')
# Libraries that Pillow may have been built without, as `PIL.features` has them.
CODECS = {
  'AVIF': 'avif',
  'JPEG': 'jpg',
  'JPEG2000': 'jpg_2000',
  'PNG': 'zlib',
  'WEBP': 'webp',
}
USUAL = ('BMP', 'GIF', 'JPEG', 'PNG', 'PPM', 'TIFF', 'WEBP')
# Formats whose further frames are pictures, unlike an MPO's preview.
ANIMATED = ('AVIF', 'DCX', 'FLI', 'GIF', 'PNG', 'TIFF', 'WEBP')
GREY_MODES = ('1', 'L', 'LA', 'La', 'I', 'F')
ORIENTATION = 0x0112  # the tag in EXIF

# What the user of a data set should know about its files; `decode` counts them.
REMARKS = {
  'frames': 'Images with several frames, of which the first is used: {n}.',
  'transparent': (
    'Images with transparent pixels, whose colours are used as they are: {n}.'
    " data.settings.background='white' shows them over white."
  ),
  'dark': (
    'Images of 16 bits without a value above 4095, which are very dark: {n}. If'
    ' 4095 is their white, set data.settings.white=4095.'
  ),
}


class Rules(NamedTuple):
  """How files become pixels.

  Attributes:
    exif: whether pictures are turned as their EXIF orientation says, as viewers
      do; TIFF files always are.
    white: the value that is white in images of more than 8 bits per channel; 0:
      65535 for 16 bits, 255 for 32-bit integers, 1 for real numbers.
    background: a colour, as Pillow names it, that is put under transparent
      pixels; '': their own colours, as torchvision does.
    max_pixels: larger images are refused; 0: Pillow's limit, 178,956,970. A
      higher one is set in Pillow, for the whole process.
    colour: whether images with colour may become grey; else they are refused.
  """

  exif: bool = True
  white: float = 0.0
  background: str = ''
  max_pixels: int = 0
  colour: bool = True

  def check(self) -> None:
    """Raises ValueError for settings that mean nothing."""
    import PIL.ImageColor

    for name in ('white', 'max_pixels'):
      value = getattr(self, name)
      if not is_number(value) or value < 0:
        raise ValueError(
          f'data.settings.{name} must be a number of at least 0, got {value!r}'
        )
    try:
      PIL.ImageColor.getrgb(self.background or 'white')
    except (AttributeError, ValueError) as error:
      raise ValueError(
        'data.settings.background must be a colour like white or #808080, got'
        f' {self.background!r}'
      ) from error

  @property
  def identity(self) -> str:
    """The rules that change pixels, where they are not the default."""
    own = self.exif, float(self.white), self.background
    usual = PLAIN.exif, PLAIN.white, PLAIN.background
    return '' if own == usual else repr(own)


PLAIN = Rules()


class Header(NamedTuple):
  """What the head of a file says about its picture."""

  height: int
  width: int
  grey: bool


class Undecodable(ValueError):  # noqa: N818
  """A file that is not an image, or whose pixels no rule covers.

  Attributes:
    problem: the file's name, and what is wrong with it.
    remedy: what its owner can do.
  """

  def __init__(self, problem: str, remedy: str):
    super().__init__(f'{problem}: {remedy}')
    self.problem = problem
    self.remedy = remedy


@functools.cache
def formats() -> dict[str, tuple[str, ...]]:
  """Returns the suffixes of each format that this Pillow reads by itself."""
  import PIL.features
  import PIL.Image

  PIL.Image.init()
  suffixes = {}
  for suffix, name in PIL.Image.registered_extensions().items():
    readable = name in PIL.Image.OPEN and name not in NO_PIXELS
    if readable and (name not in CODECS or PIL.features.check(CODECS[name])):
      suffixes.setdefault(name, []).append(suffix)

  def rank(name):
    # Formats without a mark at their beginning would take any file.
    _, accepts = PIL.Image.OPEN[name]
    return accepts is None, name not in USUAL, name

  return {
    name: tuple(sorted(suffixes[name])) for name in sorted(suffixes, key=rank)
  }


def suffixes() -> tuple[str, ...]:
  """Returns the suffixes of image files, in lower case."""
  return tuple(sorted(s for names in formats().values() for s in names))


def header(file: File, rules: Rules = PLAIN) -> Header:
  """Reads an image's size and whether it is grey.

  Raises:
    Undecodable: the file is not an image, or too large.
  """
  with _opened(file, rules) as image, _explained(file):
    return Header(image.height, image.width, _is_grey(image))


def decode(
  file: File,
  channels: int = 3,
  rules: Rules = PLAIN,
  remarks: Counter[str] | None = None,
) -> 'Image':
  """Returns an image in mode 'RGB' (3 channels) or 'L' (1 channel).

  Args:
    file: to read.
    channels: 3 or 1.
    rules: for what is not plain.
    remarks: counts what `REMARKS` has sentences for.

  Raises:
    Undecodable: the file cannot be decoded, or no rule covers it.
  """
  with _opened(file, rules) as image:
    with _explained(file):
      several = remarks is not None and _has_frames(image)
      image.load()
      method = _transposition(image) if rules.exif else None
      grey = channels == 3 or rules.colour or _is_grey(image)
    if not grey:
      raise Undecodable(
        f'{file[0]} has colour, but all images that were looked at are grey',
        'set --config.data.channels=3, or 1 to make it grey',
      )
    result = image
    if _is_deep(image):
      result = _from_deep(file[0], image, rules, remarks)
    with _explained(file):
      result = _without_alpha(result, rules, remarks)
      result = result.convert('RGB' if channels == 3 else 'L')
      if method is not None:
        result = result.transpose(method)
  if remarks is not None and several:
    remarks['frames'] += 1
  return result


@contextlib.contextmanager
def _opened(file: File, rules: Rules) -> Iterator['Image']:
  """Opens with Pillow and checks the size of the picture."""
  import PIL.Image

  name, content = file
  limit = rules.max_pixels
  pillow_limit = PIL.Image.MAX_IMAGE_PIXELS
  if pillow_limit is not None and limit > pillow_limit:
    PIL.Image.MAX_IMAGE_PIXELS = limit
  bombs = PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning
  with _explained(file):
    try:
      image = PIL.Image.open(content, formats=tuple(formats()))
    except bombs as error:
      pixels, most = re.findall(r'\d+', str(error))[:2]
      raise _too_large(name, int(pixels), int(most)) from error
  with image:
    if limit and image.width * image.height > limit:
      raise _too_large(name, image.width * image.height, limit)
    yield image


def _too_large(name: str, pixels: int, limit: int) -> Undecodable:
  return Undecodable(
    f'{name} has {pixels:,} pixels, and images of more than {limit:,} are'
    ' refused, because a small file can fill the memory (a decompression bomb)',
    f'set --config.data.settings.max_pixels={pixels} if it is as it should be,'
    ' else replace or remove it',
  )


@contextlib.contextmanager
def _explained(file: File) -> Iterator[None]:
  """Explains whatever Pillow raises for a file.

  Its readers raise nearly every kind of error for files that are corrupt.
  """
  try:
    yield
  except (Undecodable, MemoryError):
    raise
  except Exception as error:
    reason = what(file[1]) or str(error) or type(error).__name__
    if reason.startswith('cannot identify'):  # and the file's name again
      reason = 'it has no format that Pillow reads'
    raise Undecodable(
      f'{file[0]} cannot be decoded as an image ({reason})',
      'replace or remove it',
    ) from error


def _is_grey(image: 'Image') -> bool:
  """Returns whether an image has no colour; decodes it if it has a palette."""
  if image.mode in ('P', 'PA'):
    palette = np.reshape(image.getpalette('RGB') or (), (-1, 3))
    return bool((palette == palette[:, :1]).all())
  return image.mode in GREY_MODES or _is_deep(image)


def _is_deep(image: 'Image') -> bool:
  """Returns whether its pixels have more than 8 bits."""
  return image.mode == 'F' or image.mode.startswith('I')


def _has_frames(image: 'Image') -> bool:
  animated = image.format in ANIMATED and getattr(image, 'is_animated', False)
  return bool(animated)


def _transposition(image: 'Image'):
  """Returns Pillow's method that turns a picture upright, or None."""
  import PIL.Image

  turn = PIL.Image.Transpose
  try:
    # TIFF files have been turned, and their tag removed, while they were read.
    orientation = image.getexif().get(ORIENTATION, 1)
  except Exception:  # EXIF that is corrupt says nothing, as in viewers.
    return None
  return {
    2: turn.FLIP_LEFT_RIGHT,
    3: turn.ROTATE_180,
    4: turn.FLIP_TOP_BOTTOM,
    5: turn.TRANSPOSE,
    6: turn.ROTATE_270,
    7: turn.TRANSVERSE,
    8: turn.ROTATE_90,
  }.get(orientation)


def _from_deep(
  name: str, image: 'Image', rules: Rules, remarks: Counter[str] | None
) -> 'Image':
  """Scales pixels of more than 8 bits by their white."""
  import PIL.Image

  pixels = np.asarray(image)
  usual, kind = _white(image)
  white = rules.white or usual
  remedy = (
    'set --config.data.settings.white to the value that is white in all of the'
    ' images, or convert them to 8 bits'
  )
  least, greatest = pixels.min(), pixels.max()
  if not (np.isfinite(least) and 0 <= least and greatest <= white):
    raise Undecodable(
      f'{name} is an image of {kind} in {least:g}..{greatest:g}, but white is'
      f' {white:g}',
      remedy,
    )
  if pixels.dtype.kind == 'f':
    eight = np.rint(pixels * (255 / white)).astype(np.uint8)
  else:
    # White becomes 255, and 65535 is a shift by 8 bits.
    scaled = pixels.astype(np.int64) * 256 // (int(white) + 1)
    eight = scaled.astype(np.uint8)
  if greatest > 0 and not eight.any() and rules.white != usual:
    raise Undecodable(
      f'{name} is an image of {kind} in {least:g}..{greatest:g}, which is black'
      f' where white is {white:g}',
      remedy,
    )
  if remarks is not None and white == 65535 and 0 < greatest <= 4095:
    remarks['dark'] += 1
  tags = getattr(image, 'tag_v2', {})
  if tags.get(262) == 0:  # PhotometricInterpretation: 0 is white
    eight = 255 - eight
  return PIL.Image.fromarray(eight)


def _white(image: 'Image') -> tuple[float, str]:
  """Returns the value that is white, and what the pixels are, in words."""
  if image.mode == 'F':
    return 1.0, 'real numbers'
  if image.mode == 'I' and image.format not in ('PNG', 'PPM'):
    return 255.0, '32-bit integers'
  bits = getattr(image, 'tag_v2', {}).get(258, (16,))  # BitsPerSample
  if bits[0] == 12:
    return 4095.0, '12 bits'
  return 65535.0, '16 bits'


def _without_alpha(
  image: 'Image', rules: Rules, remarks: Counter[str] | None
) -> 'Image':
  """Returns an image whose transparency is dropped or over the background."""
  import PIL.Image

  if 'transparency' in image.info or image.mode in ('RGBa', 'PA'):
    image = image.convert('RGBA')
  elif image.mode == 'La':
    image = image.convert('LA')
  if image.mode not in ('RGBA', 'LA'):
    return image
  if image.getchannel('A').getextrema() == (255, 255):
    return image
  if rules.background:
    image = image.convert('RGBA')
    under = PIL.Image.new('RGBA', image.size, rules.background)
    return PIL.Image.alpha_composite(under, image)
  if remarks is not None:
    remarks['transparent'] += 1
  return image
