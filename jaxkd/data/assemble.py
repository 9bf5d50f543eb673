"""Turns two lists of image files and labels into a data set."""

import collections
from typing import NamedTuple

import numpy as np

from jaxkd.data import images, read
from jaxkd.data.base import Dataset, Split, View, digest, digest_splits
from jaxkd.data.decode import PLAIN, Rules
from jaxkd.data.read import SMALL, Source

__all__ = [
  'IMAGENET',
  'MEMORY',
  'SMALL',
  'Source',
  'assemble',
  'check_channels',
  'from_files',
]

MEMORY = 2 * 1024**3  # bytes of decoded images that are kept in memory
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean, deviation


def assemble(
  name: str,
  train: Source,
  test: Source,
  class_names: tuple[str, ...],
  *,
  size: int,
  channels: int,
  memory: int,
  identity: str,
  notes: tuple[str, ...] = (),
  problem: str = 'classification',
  rules: Rules = PLAIN,
  skip_unreadable: bool = False,
) -> Dataset:
  """Decodes everything if it fits into `memory`, else makes lazy splits.

  In memory, both splits hold each image's largest central square, and training
  views are padded crops made on the device. Lazy splits have the views that are
  usual for ImageNet, cropped on the host and flipped on the device.

  Args:
    name: of the data set.
    train: training images.
    test: test images.
    class_names: K names.
    size: height and width of the result, in pixels.
    channels: 3 for RGB, 1 for grey.
    memory: bytes.
    identity: names and sizes of the files, and what else their pixels depend
      on, for a lazy set's fingerprint.
    notes: sentences for the user.
    rules: for decoding.
    skip_unreadable: whether files that cannot be decoded are left out; a lazy
      set is then decoded once, to find them.

  Raises:
    ValueError: files of a set in memory cannot be decoded, or all training
      images of a class are left out.
    problem: that the labels pose, see `Dataset`.
  """
  wanted = _Images((train, test), size, channels, rules, skip_unreadable)
  needed = (len(train.label) + len(test.label)) * size * size * channels
  if needed <= memory:
    splits, more = _in_memory(wanted, class_names)
    fingerprint = digest_splits(*splits)
    pad = max(1, size // 8)
  else:
    splits, kept, more = _lazy(wanted, class_names)
    labels = (split.label for split in splits)
    fingerprint = digest(identity, str(size), *labels, *kept)
    pad = 0
    more += (_lazy_note(needed, memory),)
  if splits[0].weight is not None:
    fingerprint = digest(fingerprint, 'weight', splits[0].weight)
  usual = size > SMALL and channels == 3
  view = View(*IMAGENET if usual else statistics(splits[0]), pad, flip=True)
  facts = class_names, view, fingerprint, notes + more
  return Dataset(name, *splits, *facts, problem=problem)


def from_files(
  name: str,
  train: Source,
  test: Source,
  class_names: tuple[str, ...],
  *,
  image_size: int | None,
  channels: int,
  memory: int,
  identity: str,
  notes: tuple[str, ...],
  rules: Rules,
  skip_unreadable: bool,
  problem: str = 'classification',
) -> Dataset:
  """Like `assemble`, for files whose sizes and channels are not declared.

  Args:
    name: as for `assemble`, like all that is not listed here.
    train: likewise.
    test: likewise.
    class_names: likewise.
    image_size: pixels; None: see `read.survey`.
    channels: 3 for RGB, 1 for grey, 0: 1 if all images are grey.
    memory: likewise.
    identity: names and sizes of the files.
    notes: likewise.
    rules: likewise.
    skip_unreadable: likewise.
    problem: likewise.
  """
  check_channels(channels)
  rules.check()
  survey = read.survey((train, test), image_size, channels, memory, rules)
  # What differs from how files were read before there was a choice.
  grey = 'channels 1' if survey.channels == 1 else ''
  return assemble(
    name,
    train,
    test,
    class_names,
    size=survey.size,
    channels=survey.channels,
    memory=memory,
    identity='\n'.join(filter(None, (identity, rules.identity, grey))),
    notes=notes + survey.notes,
    # Where not all headers were read, colour would be lost without a word.
    rules=rules._replace(colour=bool(channels) or survey.complete),
    skip_unreadable=skip_unreadable,
    problem=problem,
  )


class _Images(NamedTuple):
  """Both splits, and how their images are read; see `assemble`."""

  sources: tuple[Source, Source]
  size: int
  channels: int
  rules: Rules
  skip_unreadable: bool


def _in_memory(
  wanted: _Images, class_names: tuple[str, ...]
) -> tuple[tuple[Split, Split], tuple[str, ...]]:
  """Returns decoded splits, without what is left out, and notes."""
  remarks = collections.Counter()
  options = wanted.size, wanted.channels, wanted.rules, remarks
  train, test = (read.read(source, *options) for source in wanted.sources)
  failures = train[1], test[1]
  if not wanted.skip_unreadable:
    read.check_readable([e for part in failures for e in part.values()])
  kept, notes = _left_out(wanted.sources, failures, class_names)
  splits = train[0], test[0]
  if kept:
    splits = splits[0].take(kept[0]), splits[1].take(kept[1])
  return splits, read.remark_notes(remarks) + notes


def _lazy(
  wanted: _Images, class_names: tuple[str, ...]
) -> tuple[tuple[Split, Split], tuple[np.ndarray, ...], tuple[str, ...]]:
  """Returns splits to be decoded, which files are kept if any is not, notes."""
  train, test = wanted.sources
  remarks, kept = collections.Counter(), ()
  options = wanted.channels, wanted.rules, remarks
  if wanted.skip_unreadable:
    failures = read.unreadable(train, *options), read.unreadable(test, *options)
    kept, notes = _left_out(wanted.sources, failures, class_names)
    notes = read.remark_notes(remarks) + notes
    if kept:
      train, test = train.take(kept[0]), test.take(kept[1])
  else:  # some images speak for all
    failures = read.probe(train, *options), read.probe(test, *options)
    read.check_readable([e for part in failures for e in part.values()])
    n = sum(min(len(s.label), read.PROBED) for s in wanted.sources)
    notes = tuple(
      f'In a sample of {n} images: {note}'
      for note in read.remark_notes(remarks)
    )

  def split(source):
    options = wanted.size, wanted.channels, wanted.rules
    load = images.loader(source.fetch, *options)
    return Split(source.label, load=load, weight=source.weight)

  return (split(train), split(test)), kept, notes


def _lazy_note(needed: int, memory: int) -> str:
  return (
    f'{needed / 1024**3:.1f} GiB of images exceed the limit of '
    f'{memory / 1024**3:.1f} GiB: they are decoded batch by batch, and '
    'training views are random resized crops.'
  )


def _left_out(
  sources: tuple[Source, Source],
  failures: tuple[read.Failures, read.Failures],
  class_names: tuple[str, ...],
) -> tuple[tuple[np.ndarray, ...], tuple[str, ...]]:
  """Returns each split's indices that are kept, () if all are, and a note.

  Raises:
    ValueError: all training images of a class, or all test images, failed.
  """
  errors = [error for part in failures for error in part.values()]
  if not errors:
    return (), ()
  kept = tuple(
    np.setdiff1d(np.arange(len(source.label)), list(part)).astype(int)
    for source, part in zip(sources, failures, strict=True)
  )
  label = sources[0].label[kept[0]]
  if label.ndim == 1:  # else an example has several classes
    counts = np.bincount(label, minlength=len(class_names))
    if not counts.all():
      raise ValueError(
        f'no training image of class {class_names[int(counts.argmin())]!r} can'
        ' be decoded: replace the files, or remove the class'
      )
  if not len(kept[1]):
    raise ValueError('no test image can be decoded: replace the files')
  return kept, (read.skipped_note(errors),)


def check_channels(channels: int) -> None:
  """Raises ValueError unless it is a number of channels, or 0 for none set."""
  if channels not in (0, 1, 3):
    raise ValueError(
      'data.channels must be 3 for RGB, 1 for grey, or 0 to choose by the'
      f' images, got {channels!r}'
    )


def statistics(train: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Returns each channel's mean and deviation over up to 1000 images.

  The images are evenly spaced in the split, so that every class takes part
  also where examples are sorted by class. Rounded to four decimals, so that the
  order of summation cannot show.
  """
  index = np.linspace(0, len(train) - 1, min(len(train), 1000)).astype(int)
  if train.image is not None:
    image = train.image[index]
  else:
    assert train.load is not None, 'one of image and load'
    image = train.load(index, None)
  image = image / 255
  mean, std = image.mean((0, 1, 2)), image.std((0, 1, 2))
  # A channel without variation is left as it is.
  std = np.where(std > 1e-3, std, 1.0)
  return tuple(mean.round(4).tolist()), tuple(std.round(4).tolist())
