"""Image folders: PATH/train/CLASS/*.png and PATH/test (or val)/CLASS/*.png."""

import itertools
import os
import pathlib

import numpy as np

from jaxkd import disk
from jaxkd.data import images
from jaxkd.data.assemble import MEMORY, SMALL, Source, assemble
from jaxkd.data.base import Dataset
from jaxkd.data.select import choose, held_out, rest

TEST_NAMES = ('test', 'val', 'validation')

Files = dict[str, list[pathlib.Path]]  # by class


def folder(
  source: str,
  image_size: int | None = None,
  memory: int = MEMORY,
  hold_out: float = 0.0,
  hold_out_seed: int = 0,
) -> Dataset:
  """Reads a folder of images; the classes are the folders in PATH/train.

  Images may lie at any depth below their class and are converted to RGB.
  Without a test folder, a fixed fifth of each training class is held out and a
  note says so.

  Args:
    source: PATH.
    image_size: pixels; by default the images' own size if they all share one
      square size of at most 64, else 224.
    memory: bytes of decoded images to keep in memory; a larger data set is
      decoded batch by batch.
    hold_out: a part of each training class to test on, see `select.held_out`,
      also where there is a test folder; 0 takes that folder, or else the fixed
      fifth.
    hold_out_seed: of the choice of that part.

  Raises:
    FileNotFoundError: no PATH, no PATH/train, or a class without images.
    ValueError: an image cannot be decoded, a test class is not in train, or a
      class is too small to hold a fifth out.
  """
  root = disk.expanded(source)
  train, test, notes = _find(root, hold_out, hold_out_seed)
  files = list(itertools.chain(*train.values(), *test.values()))
  size = image_size or _natural_size(files)
  names = tuple(train)
  return assemble(
    f'folder:{source}',
    _source(train, names),
    _source(test, names),
    names,
    size=size,
    channels=3,
    memory=memory,
    identity='\n'.join(
      f'{path.relative_to(root)} {path.stat().st_size}' for path in files
    ),
    notes=notes,
  )


def _find(
  root: pathlib.Path, hold_out: float, seed: int
) -> tuple[Files, Files, tuple[str, ...]]:
  """Returns training files, test files, and notes."""
  if not root.is_dir():
    raise FileNotFoundError(
      f'{root} is not a folder: folder:PATH needs a PATH that contains '
      'train/CLASS/*.png'
    )
  if not (root / 'train').is_dir():
    raise FileNotFoundError(
      f'{root} has no folder train: put the training images into '
      f'{root}/train/CLASS/'
    )
  train = _list(root / 'train')
  tests = [root / name for name in TEST_NAMES if (root / name).is_dir()]
  if hold_out or not tests:
    return _hold_out(root, train, hold_out, seed)
  test = _list(tests[0])
  if extra := sorted(set(test) - set(train)):
    raise ValueError(
      f'{tests[0]} has classes that {root / "train"} lacks: '
      f'{", ".join(extra)}. Give every test class training images, or remove '
      'it'
    )
  return train, test, ()


def _list(root: pathlib.Path) -> Files:
  """Returns the image files of every class, both sorted by name."""
  files = {}
  for folder in sorted(path for path in root.iterdir() if path.is_dir()):
    files[folder.name] = sorted(
      pathlib.Path(where, name)
      for where, _, names in os.walk(folder)
      for name in names
      if name.lower().endswith(images.SUFFIXES) and not name.startswith('.')
    )
    if not files[folder.name]:
      raise FileNotFoundError(
        f'{folder} has no images ({", ".join(images.SUFFIXES)}): add some or '
        'remove the folder'
      )
  if not files:
    raise FileNotFoundError(
      f'{root} has no images: put them into {root}/CLASS/, one folder for '
      'each class'
    )
  return files


def _hold_out(
  root: pathlib.Path, train: Files, part: float, seed: int
) -> tuple[Files, Files, tuple[str, ...]]:
  """Makes a part of each class, at least one image, the test split.

  A part of 0 is a fixed fifth.
  """
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
  return Source(label, lambda index: [(str(paths[i]), paths[i]) for i in index])


def _natural_size(paths: list[pathlib.Path]) -> int:
  """Returns the one square size of small images, or 224.

  Stops at the first image that decides it, so that a large set of photographs
  is not read twice.
  """
  first = images.size_of((str(paths[0]), paths[0]))
  if first[0] != first[1] or first[0] > SMALL:
    return 224
  same = all(images.size_of((str(path), path)) == first for path in paths)
  return first[0] if same else 224
