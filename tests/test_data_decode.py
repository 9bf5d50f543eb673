"""Files to pixels: one picture in many formats, modes and orientations."""

import collections
import io
import struct

import numpy as np
import PIL.features
import PIL.Image
import pytest
from data_files import pixels

from jaxkd.data import decode
from jaxkd.data.decode import Rules, Undecodable

GREY = (np.arange(48, dtype=np.uint8) * 5).reshape(6, 8)
RGB = pixels(1)[0]


def encoded(image, format, **options):
  content = io.BytesIO()
  if isinstance(image, np.ndarray):
    image = PIL.Image.fromarray(image)
  image.save(content, format, **options)
  return content


def decoded(content, channels=3, remarks=None, **rules):
  rules = Rules(**rules)
  image = decode.decode(('the file', content), channels, rules, remarks)
  assert image.mode == ('RGB' if channels == 3 else 'L')
  return np.asarray(image)


def same(content, want, **options):
  np.testing.assert_array_equal(decoded(content, **options), want)


def rgb(grey):
  return np.stack([grey] * 3, axis=-1)


LOSSLESS = {
  'BMP': {},
  'DDS': {},
  'ICNS': None,  # has fixed sizes
  'JPEG2000': {'irreversible': False},
  'PCX': {},
  'PNG': {},
  'PPM': {},
  'QOI': {},
  'SGI': {},
  'TGA': {},
  'TIFF': {},
  'WEBP': {'lossless': True},
}


@pytest.mark.parametrize('format', sorted(LOSSLESS.keys() - {'ICNS'}))
def test_every_lossless_format_keeps_the_pixels(format):
  if format not in decode.formats():
    pytest.skip(f'this Pillow reads no {format}')
  same(encoded(RGB, format, **LOSSLESS[format]), RGB)


def test_all_that_this_pillow_reads_is_listed():
  wanted = set('.tiff .pgm .pnm .jfif .jpe .png .bmp .gif .tga .psd'.split())
  codecs = {'.avif': 'avif', '.jp2': 'jpg_2000', '.webp': 'webp'}
  wanted |= {s for s, codec in codecs.items() if PIL.features.check(codec)}
  assert wanted <= set(decode.suffixes())
  others = {s for s, c in codecs.items() if not PIL.features.check(c)}
  others |= set('.pdf .eps .ps .mpg .wmf .h5 .hdf .grib .txt'.split())
  assert not others & set(decode.suffixes())


def test_formats_without_a_mark_are_tried_last():
  marked = [PIL.Image.OPEN[name][1] is not None for name in decode.formats()]
  assert marked == sorted(marked, reverse=True) and not all(marked)


def test_a_format_without_a_codec_is_left_out(monkeypatch):
  monkeypatch.setattr(PIL.features, 'check', lambda name: name != 'webp')
  decode.formats.cache_clear()
  try:
    assert '.webp' not in decode.suffixes() and '.png' in decode.suffixes()
  finally:
    decode.formats.cache_clear()


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize(
  'kind, image',
  [
    ('8 bits', GREY),
    ('16 bits', GREY.astype(np.uint16) * 257),
    ('16 bits', GREY.astype(np.uint16) * 256 + 99),
    ('32 bits', GREY.astype(np.int32)),
    ('real', GREY.astype(np.float32) / 255),
  ],
)
def test_grey_of_every_depth(kind, image, channels):
  want = GREY if channels == 1 else rgb(GREY)
  same(encoded(image, 'TIFF'), want, channels=channels)
  if image.dtype != np.float32 and image.dtype != np.int32:
    same(encoded(image, 'PNG'), want, channels=channels)


def test_a_pgm_of_16_bits_is_scaled():
  body = (GREY * np.uint16(257)).astype('>u2').tobytes()
  same(io.BytesIO(b'P5 8 6 65535\n' + body), rgb(GREY))
  body = (
    (GREY * np.uint16(4)).astype('>u2').tobytes()
  )  # of a camera with 10 bits
  got = decoded(io.BytesIO(b'P5 8 6 1020\n' + body))
  assert np.abs(got.astype(int) - rgb(GREY)).max() <= 1


@pytest.mark.parametrize(
  'dtype, white, factor',
  [
    (np.uint16, 4095, 16),
    (np.uint16, 255, 1),
    (np.int32, 65535, 256),
    (np.float32, 255, 1),
    (np.float32, 65535, 257),
  ],
)
def test_white_is_a_setting(dtype, white, factor):
  image = (GREY.astype(np.int64) * factor).astype(dtype)
  same(encoded(image, 'TIFF'), rgb(GREY), white=white)


@pytest.mark.parametrize(
  'image, message',
  [
    (GREY.astype(np.int32) * 300, r'integers in 0\.\.70500, but white is 255'),
    (GREY.astype(np.int32) - 9, r'integers in -9\.\.226'),
    (GREY.astype(np.float32), r'real numbers in 0\.\.235, but white is 1'),
    (GREY / np.float32(99) - 1, r'real numbers in -1\.\.'),
    (GREY * np.float32(np.nan), 'real numbers in nan'),
    (GREY * np.float32(1e-6), 'black where white is 1:'),
    (GREY.astype(np.uint16), r'16 bits in 0\.\.235, which is black'),
  ],
)
def test_values_that_no_rule_covers_are_refused(image, message):
  """Never silently another picture."""
  with pytest.raises(Undecodable, match=f'the file .*{message}.*white to'):
    decoded(encoded(image, 'TIFF'))


def test_dark_pictures_are_read_if_their_white_is_set():
  same(encoded(GREY.astype(np.uint16), 'PNG'), 0 * rgb(GREY), white=65535)


@pytest.mark.parametrize('dtype', [np.uint16, np.int32, np.float32])
def test_black_stays_black(dtype):
  same(encoded(np.zeros((6, 8), dtype), 'TIFF'), 0 * rgb(GREY))


def test_white_may_be_zero_in_tiff():
  """PhotometricInterpretation 0, which Pillow ignores beyond 8 bits."""
  image = (255 - GREY).astype(np.uint16) * 257
  same(encoded(image, 'TIFF', tiffinfo={262: 0}), rgb(GREY))


def test_tiff_of_12_bits_is_scaled_by_its_bits():
  """Pillow cannot write one: two pixels in three bytes."""
  value = GREY.astype(int).ravel() * 16 + 15
  bits = ''.join(f'{x:012b}' for x in value)
  body = bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
  shorts = {256: 8, 257: 6, 258: 12, 259: 1, 262: 1, 277: 1, 278: 6}
  entries = [(tag, 3, 1, x) for tag, x in shorts.items()]
  start = 8 + 2 + 12 * (len(shorts) + 2) + 4
  entries += [(273, 4, 1, start), (279, 4, 1, len(body))]
  file = struct.pack('<2sHIH', b'II', 42, 8, len(entries))
  file += b''.join(struct.pack('<HHII', *entry) for entry in sorted(entries))
  same(io.BytesIO(file + bytes(4) + body), rgb(GREY))


def test_dark_images_of_16_bits_are_counted():
  remarks = collections.Counter()
  decoded(encoded(GREY.astype(np.uint16) * 16, 'PNG'), remarks=remarks)
  decoded(encoded(GREY.astype(np.uint16) * 257, 'PNG'), remarks=remarks)
  assert remarks == {'dark': 1}


def test_palettes_bits_and_cmyk():
  black = GREY > 99
  same(encoded(PIL.Image.fromarray(black), 'PNG'), rgb(black * np.uint8(255)))
  palette = PIL.Image.fromarray(rgb(GREY)).quantize(64)
  for options in {}, {'transparency': bytes([9] * 64)}:
    same(encoded(palette, 'PNG', **options), rgb(GREY))
  cmyk = PIL.Image.fromarray(RGB).convert('CMYK')
  same(encoded(cmyk, 'TIFF'), RGB)


@pytest.mark.parametrize('mode', ['RGBA', 'LA'])
def test_transparency_is_dropped_or_over_a_background(mode):
  alpha = np.repeat(np.uint8([[0, 128, 255, 255]]), 6, 0).repeat(2, 1)
  picture = PIL.Image.fromarray(rgb(GREY)).convert(mode[:-1])
  picture.putalpha(PIL.Image.fromarray(alpha))
  remarks = collections.Counter()
  same(encoded(picture, 'PNG'), rgb(GREY), remarks=remarks)
  assert remarks == {'transparent': 1}
  weight = alpha[..., None] / 255
  want = weight * rgb(GREY) + (1 - weight) * 255
  got = decoded(encoded(picture, 'PNG'), background='white')
  assert np.abs(got - want).max() <= 1
  opaque = collections.Counter()
  decoded(encoded(picture.convert('RGB').convert('RGBA'), 'PNG'), 3, opaque)
  assert not opaque


def test_a_transparent_colour_counts_as_transparency():
  content = encoded(RGB, 'PNG', transparency=tuple(RGB[0, 0].tolist()))
  same(content, RGB)
  assert (decoded(content, background='#ff0000')[0, 0] == (255, 0, 0)).all()


@pytest.mark.parametrize('format', ['GIF', 'TIFF', 'PNG', 'WEBP'])
def test_the_first_of_several_frames_is_used(format):
  frames = [
    PIL.Image.fromarray(rgb(GREY)),
    PIL.Image.fromarray(rgb(GREY[::-1])),
  ]
  options = {'lossless': True} if format == 'WEBP' else {}
  content = encoded(
    frames[0], format, save_all=True, append_images=frames[1:], **options
  )
  remarks = collections.Counter()
  same(content, rgb(GREY), remarks=remarks)
  assert remarks == {'frames': 1}
  decoded(encoded(frames[0], format, **options), remarks=remarks)
  assert remarks == {'frames': 1}


# What a viewer does to the stored pixels, for each value of the EXIF tag.
UPRIGHT = {
  1: lambda x: x,
  2: lambda x: x[:, ::-1],
  3: lambda x: x[::-1, ::-1],
  4: lambda x: x[::-1],
  5: lambda x: x.swapaxes(0, 1),
  6: lambda x: np.rot90(x, -1),
  7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
  8: lambda x: np.rot90(x, 1),
}


@pytest.mark.parametrize('format', ['PNG', 'WEBP', 'JPEG'])
@pytest.mark.parametrize('orientation', UPRIGHT)
def test_exif_orientation(orientation, format):
  exif = PIL.Image.Exif()
  exif[decode.ORIENTATION] = orientation
  options = {'lossless': True} if format == 'WEBP' else {}
  plain = decoded(encoded(rgb(GREY), format, **options))
  content = encoded(rgb(GREY), format, exif=exif, **options)
  same(content, UPRIGHT[orientation](plain))
  same(content, plain, exif=False)


def test_exif_that_is_corrupt_is_ignored():
  exif = b'Exif\0\0MM\0\x2a\xff\xff\xff\xff'
  content = encoded(rgb(GREY), 'PNG', exif=exif)
  same(content, rgb(GREY))


@pytest.mark.parametrize(
  'content, what',
  [
    (b'', 'empty, 0 bytes'),
    (b'\n<!DOCTYPE html>\n<html>', 'an HTML page'),
    (b'<HTML><body>404', 'an HTML page'),
    (b'version https://git-lfs.github.com/spec/v1\noid', 'git lfs pull'),
    (b'<?xml version="1.0"?>\n<svg xmlns="">', 'an SVG drawing'),
    (b'%PDF-1.4', 'a PDF'),
    (b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n', 'an EPS'),
    (b'PK\x03\x04....', 'a ZIP archive'),
    (b'\0\0\0\x18ftypheic\0\0\0\0', 'a HEIC photograph'),
    (b'\0\0\0\x18ftypmp42\0\0\0\0', 'a video'),
    (bytes(200), 'nothing but zeros'),
    (b'\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X', 'metadata of macOS'),
    (b'{"error": "not found"}', 'JSON'),
    (bytes(range(99, 200)), 'no format that Pillow reads'),
    (b'not an image\n', 'it is text'),
    (encoded(RGB, 'PNG').getvalue()[:120], 'truncated'),
    (encoded(RGB, 'JPEG').getvalue()[:-20], 'truncated'),
    (encoded(RGB, 'PNG').getvalue()[:40], 'the file cannot be decoded'),
  ],
)
def test_files_that_are_no_images_are_named(tmp_path, content, what):
  path = tmp_path / 'x.jpg'
  path.write_bytes(content)
  for source in path, io.BytesIO(content):
    with pytest.raises(Undecodable, match=f'the file cannot .*{what}|{what}'):
      decoded(source)


def test_every_cut_and_every_flipped_byte_is_an_image_or_a_message():
  """No error but our own comes out of a file that is corrupt."""
  rng = np.random.default_rng(0)
  for format in 'PNG', 'GIF', 'JPEG', 'TIFF', 'BMP', 'WEBP', 'TGA':
    whole = encoded(RGB, format).getvalue()
    for at in range(0, len(whole), 1 + len(whole) // 20):
      flipped = bytearray(whole)
      flipped[at] ^= int(rng.integers(1, 256))
      for content in whole[:at], bytes(flipped):
        try:
          decoded(io.BytesIO(content), max_pixels=10**6)
        except Undecodable:
          pass


@pytest.mark.parametrize(
  'side', [10000, 14000]
)  # a warning, an error of Pillow
def test_a_decompression_bomb_is_explained(side, monkeypatch):
  content = encoded(PIL.Image.new('1', (side, side)), 'PNG')
  limit = PIL.Image.MAX_IMAGE_PIXELS
  monkeypatch.setattr(PIL.Image, 'MAX_IMAGE_PIXELS', limit)
  with pytest.raises(
    Undecodable, match=rf'the file has {side**2:,} pixels.*max_pixels={side**2}'
  ):
    decode.header(('the file', content))
  rules = Rules(max_pixels=side**2)
  assert decode.header(('the file', content), rules)[:2] == (side, side)


def test_max_pixels_can_be_lower_than_pillows():
  content = encoded(RGB, 'PNG')
  same(content, RGB, max_pixels=64)
  with pytest.raises(Undecodable, match='has 64 pixels, and .* more than 63'):
    decoded(content, max_pixels=63)


def test_headers_say_whether_there_is_colour():
  def grey(image, format='PNG'):
    return decode.header(('x', encoded(image, format))).grey

  assert grey(GREY) and grey(GREY > 9) and grey(GREY.astype(np.uint16))
  assert grey(GREY.astype(np.float32), 'TIFF')
  assert grey(PIL.Image.fromarray(GREY).convert('LA'))
  assert grey(PIL.Image.fromarray(GREY).convert('P'))
  assert not grey(rgb(GREY)) and not grey(PIL.Image.fromarray(RGB).quantize())


@pytest.mark.parametrize(
  'rules, message',
  [
    ({'background': 'nocolour'}, "background must be a colour .*'nocolour'"),
    ({'white': -1}, 'white must be a number of at least 0, got -1'),
    ({'white': float('nan')}, 'white must be'),
    ({'max_pixels': -1}, 'max_pixels must be'),
  ],
)
def test_rules_that_mean_nothing_are_refused(rules, message):
  with pytest.raises(ValueError, match=message):
    Rules(**rules).check()
