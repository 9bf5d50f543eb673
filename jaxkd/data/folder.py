"""Image folders: PATH/train/CLASS/*.png and PATH/test (or val)/CLASS/*.png."""

import itertools
import os
import pathlib
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from jaxkd import disk
from jaxkd.data import decode
from jaxkd.data.assemble import MEMORY, Source, from_files
from jaxkd.data.base import Dataset
from jaxkd.data.select import choose, held_out, rest
from jaxkd.data.walk import Walker

# Names of folders in any case, the first that exists is used.
TRAIN_NAMES = ('train', 'training')
TEST_NAMES = (
  'test',
  'testing',
  'val',
  'validation',
  'valid',
  'eval',
  'evaluation',
  'dev',
)
COMMON = ('train', 'test', 'val', 'validation')  # not worth a note

Files = dict[str, list[str]]  # paths by class


def folder(
  source: str,
  image_size: int | None = None,
  channels: int = 0,
  test: str = '',
  memory: int = MEMORY,
  hold_out: float = 0.0,
  hold_out_seed: int = 0,
  exif: bool = True,
  white: float = 0.0,
  background: str = '',
  max_pixels: int = 0,
  skip_unreadable: bool = False,
  suffixes: Sequence[str] = (),
) -> Dataset:
  """Reads a folder of images; the classes are the folders in PATH/train.

  Images may lie at any depth below their class. Without a folder train, the
  folders in PATH are the classes. Without a test folder, a fixed fifth of each
  training class is held out. Notes say what is used and what is left out.

  Args:
    source: PATH.
    image_size: pixels; by default the images' own size if they all share one
      square size of at most 64, else 224.
    channels: 3 for RGB, 1 for grey, 0: 1 if all images are grey.
    test: the name of the test folder in PATH; '': the first of `TEST_NAMES`.
    memory: bytes of decoded images to keep in memory; a larger data set is
      decoded batch by batch.
    hold_out: a part of each training class to test on, also where there is a
      test folder, see `select.held_out`; 0 takes that folder, or a fixed fifth.
    hold_out_seed: of the choice of that part.
    exif, white, background, max_pixels: see `decode.Rules`.
    skip_unreadable: whether files that cannot be decoded are left out; a set
      that does not fit into memory is then decoded once, to find them.
    suffixes: of the files to read; (): of all images that Pillow reads.

  Raises:
    FileNotFoundError: no PATH, no training images, or a class without images.
    ValueError: a setting is wrong, an image cannot be decoded, a test class is
      not in train, or a class is too small to hold a fifth out.
  """
  root = disk.expanded(source)
  walker = Walker(_lower(suffixes) or decode.suffixes())
  choice = _Choice(test, hold_out, hold_out_seed)
  train, tests, notes = _find(root, choice, walker)
  names = tuple(train)
  return from_files(
    f'folder:{source}',
    _source(train, names),
    _source(tests, names),
    names,
    image_size=image_size,
    channels=channels,
    memory=memory,
    identity=_identity(root, [*train.values(), *tests.values()]),
    notes=notes + walker.notes(),
    rules=decode.Rules(exif, white, background, max_pixels),
    skip_unreadable=skip_unreadable,
  )


class _Choice(NamedTuple):
  """What the test split is; see `folder`."""

  test: str
  hold_out: float
  seed: int


def _lower(suffixes: Sequence[str]) -> tuple[str, ...]:
  """Returns suffixes in lower case, each with its dot."""
  if isinstance(suffixes, str):
    suffixes = (suffixes,)
  return tuple('.' + str(x).lower().lstrip('.') for x in suffixes)


def _find(
  root: pathlib.Path, choice: _Choice, walker: Walker
) -> tuple[Files, Files, tuple[str, ...]]:
  """Returns training files, test files, and notes."""
  if not root.is_dir():
    raise FileNotFoundError(
      f'{root} is not a folder: folder:PATH needs a PATH that contains '
      'train/CLASS/*.png'
    )
  names = Walker(()).folders(root)
  trains, tests = _ranked(names, TRAIN_NAMES), _ranked(names, TEST_NAMES)
  if not trains:
    _check_classes_in(root, names, tests, choice.test)
    note = f'{root} has no folder train: its {len(names)} folders are classes.'
    train, held_out, notes = _hold_out(root, _list(root, walker), choice)
    return train, held_out, (note, *notes)
  train = _list(root / trains[0], walker)
  if choice.test:
    tests = [_chosen(root, names, trains[0], choice.test)]
  if choice.hold_out:
    tests = []
  notes = [
    f'The {split} split is {root / found[0]}.'
    + ''.join(f' {root / name} is not used.' for name in found[1:])
    for split, found in (('training', trains), ('test', tests))
    if len(found) > 1 or (found and not choice.test and found[0] not in COMMON)
  ]
  if len(tests) > 1:
    notes[-1] += ' data.test=NAME chooses another one.'
  if not tests:
    train, held_out, more = _hold_out(root, train, choice)
    return train, held_out, (*notes, *more)
  of_test, more = _matched(
    _list(root / tests[0], walker), train, root / tests[0], root / trains[0]
  )
  return train, of_test, (*notes, *more)


def _ranked(names: Iterable[str], order: Sequence[str]) -> list[str]:
  """Returns the names that are in `order` in any case, by their place there.

  Of names that differ only in case, the one in lower case comes first.
  """

  def rank(name):
    return order.index(name.casefold()), name != name.casefold(), name

  return sorted((x for x in names if x.casefold() in order), key=rank)


def _chosen(root: pathlib.Path, names: list[str], train: str, test: str) -> str:
  """Returns the folder that data.test names."""
  same = [name for name in names if name.casefold() == test.casefold()]
  name = test if test in names else same[0] if len(same) == 1 else ''
  if not name or name == train:
    others = [name for name in names if name != train]
    raise ValueError(
      f'data.test={test!r} is not a test folder in {root}: set it to one of the'
      f' folders there ({", ".join(others) or "there is none beside train"}),'
      " or to '' to choose by name"
    )
  return name


def _check_classes_in(
  root: pathlib.Path, names: list[str], tests: list[str], test: str
) -> None:
  """Checks that folders may be classes where there is no folder train.

  Raises:
    FileNotFoundError: some of them is a split, or contains the splits.
  """
  inner = [
    x for x in names if _ranked(Walker(()).folders(root / x), TRAIN_NAMES)
  ]
  if inner:
    raise FileNotFoundError(
      f'{root} has no folder train, but {root / inner[0]} has one: set'
      f' --config.data.name=folder:{root / inner[0]}'
    )
  if tests or test or len(names) < 2:
    there = f', only {", ".join(names)}' if names else ''
    raise FileNotFoundError(
      f'{root} has no folder train{there}: put the training images into '
      f'{root}/train/CLASS/'
    )


def _list(root: pathlib.Path, walker: Walker) -> Files:
  """Returns the image files of every class, both sorted by name."""
  files = {}
  beside = walker.beside
  for name in walker.folders(root):
    others = walker.others.copy()
    files[name] = walker.images(root / name)
    if not files[name]:
      there = ' or '.join(sorted(walker.others - others))
      only = f', only files {there}' if there else ''
      raise FileNotFoundError(
        f'{root / name} has no images that are read{only}: add some or remove'
        ' the folder'
      )
  if not files:
    loose = walker.beside - beside
    raise FileNotFoundError(
      f'{root} has no images: put them into {root}/CLASS/, one folder for '
      'each class'
      + (
        f'. It has {loose} files, but none in a folder of a class: if it is a'
        ' test set without labels, choose another folder by data.test, or move'
        ' it away'
        if loose
        else ''
      )
    )
  _check_names(root, files)
  return files


def _check_names(root: pathlib.Path, names: Iterable[str]) -> None:
  """Raises ValueError for names that cannot be told apart or written."""
  seen = {}
  for name in names:
    if _is_broken(name):
      raise ValueError(
        f'{root} has a folder with the name {ascii(name)}, which is not UTF-8:'
        ' rename it'
      )
    same = seen.setdefault(_normal(name), name)
    if same != name:
      raise ValueError(
        f'{root} has two folders with the name {name!r} in two Unicode forms,'
        f' {ascii(same)} and {ascii(name)}: merge or rename them'
      )


def _is_broken(name: str) -> bool:
  """Returns whether a name on disk has bytes that are not UTF-8."""
  try:
    name.encode()
  except UnicodeEncodeError:
    return True
  return False


def _normal(name: str) -> str:
  """Returns one of the Unicode forms of names that look the same."""
  return unicodedata.normalize('NFC', name)


def _matched(
  test: Files,
  train: Files,
  test_root: pathlib.Path,
  train_root: pathlib.Path,
) -> tuple[Files, tuple[str, ...]]:
  """Gives test classes the names of the training classes that they mean.

  Names match in another Unicode form, as archives of macOS have them, or else,
  with a note, in another case.

  Raises:
    ValueError: test classes that are not in train.
  """
  normal = {_normal(name): name for name in train}
  folded = {}
  for name in train:
    folded.setdefault(_normal(name).casefold(), []).append(name)
  matched, extra, notes = {}, [], []
  exact = {normal.get(_normal(name)) for name in test}
  for name, files in test.items():
    target = normal.get(_normal(name))
    if target is None:
      near = folded.get(_normal(name).casefold(), [])
      if len(near) == 1 and near[0] not in exact | matched.keys():
        (target,) = near
        notes.append(
          f'{test_root / name} is taken as the class {target} of {train_root}.'
        )
    if target is None:
      extra.append(name)
    else:
      matched[target] = files
  if extra:
    raise ValueError(
      f'{test_root} has classes that {train_root} lacks: '
      f'{", ".join(sorted(extra))}. Give every test class training images, or '
      'remove it'
    )
  return matched, tuple(notes)


def _hold_out(
  root: pathlib.Path, train: Files, choice: _Choice
) -> tuple[Files, Files, tuple[str, ...]]:
  """Makes a part of each class, at least one image, the test split.

  A part of 0 is a fixed fifth.
  """
  part, seed = choice.hold_out, choice.seed
  sizes = np.array([len(files) for files in train.values()])
  if min(sizes) < 2 and not part:
    raise ValueError(
      f'{root} has no test folder, and class {list(train)[np.argmin(sizes)]} '
      'has 1 training image, which leaves none to hold out: add images, or '
      f'put test images into {root}/test/CLASS/'
    )
  label = np.repeat(np.arange(len(sizes)), sizes)
  paths = list(itertools.chain(*train.values()))
  names = list(train)
  if part:
    held = held_out(label, names, part, seed)
    note = (
      f'{len(held)} of the {len(label)} training images of {root}, held out'
      f' with data.hold_out={part:g} and data.hold_out_seed={seed}, are the'
      ' test split.'
    )
  else:
    held = choose(label, np.maximum(1, sizes // 5), 'folder')
    note = (
      f'{root} has no test folder: {len(held)} of its {len(label)} training '
      'images, a fixed fifth of each class, are the test split.'
    )

  def pick(index):
    files = {name: [] for name in names}
    for i in index:
      files[names[label[i]]].append(paths[i])
    return files

  return pick(rest(len(label), held)), pick(held), (note,)


def _source(files: Files, names: tuple[str, ...]) -> Source:
  """Flattens the files of all classes, sorted by class."""
  paths = [path for name in names for path in files.get(name, [])]
  sizes = [len(files.get(name, [])) for name in names]
  label = np.repeat(np.arange(len(names), dtype=np.int32), sizes)

  def fetch(index: np.ndarray) -> list[decode.File]:
    return [(paths[i], pathlib.Path(paths[i])) for i in index]

  return Source(label, fetch)


def _identity(root: pathlib.Path, files: Iterable[list[str]]) -> str:
  """Returns a line for each file, with its path in `root` and its size."""
  start = len(os.path.join(root, '')) if root != pathlib.Path() else 0
  return '\n'.join(
    f'{path[start:]} {os.stat(path).st_size}'
    for path in itertools.chain(*files)
  )
