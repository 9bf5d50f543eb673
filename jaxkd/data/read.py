"""Reads lists of image files: headers, pixels, and what is unreadable."""

import collections
from collections.abc import Callable
from concurrent import futures
from typing import NamedTuple

import numpy as np

from jaxkd.data import images
from jaxkd.data.base import Split, unit_mean
from jaxkd.data.decode import (
  PLAIN,
  REMARKS,
  File,
  Rules,
  Undecodable,
  decode,
  header,
)

SMALL = 64  # pixels: up to here images are icons, beyond it photographs
SAMPLE = 1000  # files whose headers speak for a set too large for memory
GREY_NOTE = (
  'All images are grey and have 1 channel: data.channels=3 makes them RGB.'
)
Failures = dict[int, Undecodable]  # by index
PROBED = 100  # files of each of its splits that are decoded beforehand
CHUNK = 256  # files that a thread decodes, at most
SHOWN = 10  # files that a message names


class Source(NamedTuple):
  """Where the images of a split come from.

  label: see `Split`.
  fetch: the files of examples, given their indices [B].
  weight: see `Split`.
  """

  label: np.ndarray
  fetch: Callable[[np.ndarray], list[File]]
  weight: np.ndarray | None = None

  def take(self, keep: np.ndarray) -> 'Source':
    """Returns the examples `keep` (int [M]), of weights with mean 1 again."""
    weight = None if self.weight is None else unit_mean(self.weight[keep])
    fetch = self.fetch
    return Source(self.label[keep], lambda index: fetch(keep[index]), weight)


class Survey(NamedTuple):
  """What the headers of a data set's images say.

  size: height and width, in pixels, of the result.
  channels: 1 if all images are grey, else 3.
  complete: whether every header was read.
  notes: what the user should know of the choice.
  """

  size: int
  channels: int
  complete: bool
  notes: tuple[str, ...] = ()


def survey(
  sources: tuple[Source, ...],
  image_size: int | None,
  channels: int,
  memory: int,
  rules: Rules = PLAIN,
) -> Survey:
  """Chooses the size and the channels that are not set.

  The size is the images' own if they all share one square size of at most 64
  pixels, else 224. Reading ends with the image that decides. Of a set that does
  not fit into memory, only `SAMPLE` evenly spaced images are looked at.

  Args:
    sources: the splits.
    image_size: if it is set.
    channels: if they are set, else 0.
    memory: bytes of decoded images.
    rules: for decoding.

  Raises:
    ValueError: no image can be decoded.
  """
  if image_size and channels:
    return Survey(image_size, channels, True)
  n = sum(len(source.label) for source in sources)
  first, failure, small = None, None, False
  size, grey, index = image_size, True, np.arange(n)
  at = 0
  while at < len(index) and not (size and (channels or not grey)):
    try:
      this = header(_file(sources, index[at]), rules)
    except Undecodable as error:  # reported when all are decoded
      failure = failure or error
    else:
      if first is None:
        first = this
        small = first.height == first.width <= SMALL
        side = image_size or (first.height if small else 224)
        if n * side * side * (channels or 3) > memory:
          index = np.linspace(0, n - 1, min(n, SAMPLE)).astype(int)
      if not size and not (small and this[:2] == first[:2]):
        size = 224
      grey = grey and this.grey
    at += 1
  if first is None:
    assert failure is not None, 'a data set has images'
    raise failure
  size = size or first.height
  if channels:
    return Survey(size, channels, True)
  if not grey:
    return Survey(size, 3, True)
  return Survey(size, 1, len(index) == n, (GREY_NOTE,))


def _file(sources: tuple[Source, ...], i: int) -> File:
  """Returns file i of all splits, one after the other."""
  for source in sources:
    if i < len(source.label):
      return source.fetch(np.array([i]))[0]
    i -= len(source.label)
  raise IndexError('there are fewer files')


def read(
  source: Source,
  size: int,
  channels: int,
  rules: Rules,
  remarks: collections.Counter[str],
) -> tuple[Split, Failures]:
  """Decodes a whole split: the largest central squares.

  Args:
    source: N images.
    size: height and width of the result.
    channels: 3 or 1.
    rules: for decoding.
    remarks: counts what `decode` remarks.

  Returns:
    The split, and why some of its images, by index, could not be decoded; their
    pixels are undefined.
  """
  n = len(source.label)
  image = np.empty((n, size, size, channels), np.uint8)

  def keep(i, picture):
    image[i] = images.pixels(images.centre(picture, size))

  failures = _each(source, channels, rules, remarks, keep)
  return Split(source.label, image, weight=source.weight), failures


def unreadable(
  source: Source, channels: int, rules: Rules, remarks: collections.Counter[str]
) -> Failures:
  """Decodes all images once; returns why some, by index, cannot be decoded."""
  return _each(source, channels, rules, remarks, lambda *_: None)


def probe(
  source: Source, channels: int, rules: Rules, remarks: collections.Counter[str]
) -> Failures:
  """Like `unreadable`, but decodes only up to `PROBED` evenly spaced images."""
  n = len(source.label)
  index = np.linspace(0, n - 1, min(n, PROBED)).astype(int)
  return unreadable(source.take(index), channels, rules, remarks)


def _each(
  source: Source,
  channels: int,
  rules: Rules,
  remarks: collections.Counter[str],
  use: Callable[..., None],
) -> Failures:
  """Decodes in threads (Pillow releases Python's lock); returns failures."""
  n = len(source.label)

  def work(index):
    failures, counts = {}, collections.Counter()
    for i, file in zip(index, source.fetch(index), strict=True):
      try:
        use(i, decode(file, channels, rules, counts))
      except Undecodable as error:
        failures[int(i)] = error
    return failures, counts

  # Many chunks also for few files, so that all threads have work.
  chunks = np.array_split(np.arange(n), max(-(-n // CHUNK), min(n, 16)))
  failures = {}
  with futures.ThreadPoolExecutor(thread_name_prefix='jaxkd-read') as pool:
    for job in [pool.submit(work, chunk) for chunk in chunks]:
      failed, counts = job.result()
      failures |= failed
      remarks.update(counts)
  return failures


def remark_notes(remarks: collections.Counter[str]) -> tuple[str, ...]:
  """Returns the sentences of what was remarked."""
  return tuple(
    text.format(n=remarks[key]) for key, text in REMARKS.items() if remarks[key]
  )


def check_readable(failures: list[Undecodable]) -> None:
  """Raises ValueError with the reasons why files could not be decoded."""
  if not failures:
    return
  skip = 'set --config.data.settings.skip_unreadable=True to leave {} out'
  if len(failures) == 1:
    (error,) = failures
    remedy = f'{error.remedy}, or {skip.format("it")}'
    raise Undecodable(error.problem, remedy) from error
  lines = [
    f'{len(failures)} images cannot be read ({skip.format("them")}):',
    *map(str, failures[:SHOWN]),
  ]
  if len(failures) > SHOWN:
    lines.append(f'and {len(failures) - SHOWN} more')
  raise ValueError('\n  '.join(lines))


def skipped_note(failures: list[Undecodable]) -> str:
  """Returns a sentence about images that are left out."""
  shown = [error.problem for error in failures[:3]]
  if len(failures) > len(shown):
    shown.append('...')
  return f'Left out unreadable images: {len(failures)}. {"; ".join(shown)}.'
