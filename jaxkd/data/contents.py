"""What files that are called images are instead, by how they begin."""

import io
import pathlib
import re

# How files that are often called .jpg begin, and what they are.
CONTENTS = (
  (
    rb'\s*<!doctype html|\s*<html|\s*<head',
    'an HTML page, as a failed download leaves it',
  ),
  (
    rb'version https://git-lfs',
    'a Git LFS pointer: `git lfs pull` fetches the image',
  ),
  (rb'(\s*<\?xml[^>]*>)?\s*(<!--.*?-->)?\s*<svg', 'an SVG drawing'),
  (rb'\s*<\?xml', 'an XML document'),
  (rb'%PDF', 'a PDF document'),
  (rb'%!PS|\xc5\xd0\xd3\xc6', 'an EPS drawing'),
  (rb'PK\x03\x04', 'a ZIP archive'),
  (rb'\x1f\x8b', 'a gzip archive'),
  (
    rb'.{4}ftyp(hei|hev|mif|msf)',
    'a HEIC photograph, which Pillow does not read',
  ),
  (rb'.{4}ftypavi[fs]', 'an AVIF image, for which this Pillow has no codec'),
  (rb'.{4}ftyp', 'a video'),
  (rb'\x00\x05\x16[\x00\x07]', 'metadata of macOS'),
  (rb'\x93NUMPY', 'a NumPy array'),
  (rb'\s*[{\[]\s*["{\[]', 'JSON text'),
)


def what(content: pathlib.Path | io.BytesIO) -> str:
  """Returns what a file is instead of an image, '' if unknown."""
  try:
    if isinstance(content, io.BytesIO):
      content.seek(0)
      head = content.read(1024)
    else:
      with open(content, 'rb') as stream:
        head = stream.read(1024)
  except OSError:
    return ''
  if not head:
    return 'it is empty, 0 bytes'
  if not head.strip(b'\0'):
    return 'it holds nothing but zeros'
  for pattern, name in CONTENTS:
    if re.match(pattern, head, re.IGNORECASE | re.DOTALL):
      return f'it is {name}'
  try:
    text = head.decode()
  except UnicodeDecodeError:
    return ''
  plain = all(letter.isprintable() or letter.isspace() for letter in text)
  return 'it is text' if plain else ''
