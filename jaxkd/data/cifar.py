"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009), from their Python files.

"Learning multiple layers of features from tiny images",
https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf.
"""

import hashlib
import pathlib
from typing import Any

import numpy as np

from jaxkd.data import pickles
from jaxkd.data.base import Dataset, Split, View, digest_splits
from jaxkd.data.cifar_files import CIFAR10, CIFAR100, Layout, read_files

SHAPE = (3, 32, 32)  # of a row of 3072 values: channels first
# Of the training images, rounded as the distillation literature does.
VIEW10 = View((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), 4, True)
VIEW100 = View((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761), 4, True)


def cifar10(dir: str | None = None) -> Dataset:
  """Reads CIFAR-10; arguments and errors as in `cifar100`."""
  return _load(CIFAR10, VIEW10, dir)


def cifar100(dir: str | None = None) -> Dataset:
  """Reads CIFAR-100 with its 100 fine labels.

  A note states whether every file has the md5 of the official distribution.
  Other files are read all the same: re-encoded copies are common.

  Args:
    dir: the folder `cifar-100-python`, the archive `cifar-100-python.tar.gz`,
      or a folder that contains one of them. By default $JAXKD_DATA, else
      ~/.cache/jaxkd/data.

  Raises:
    FileNotFoundError: it is not there.
    ValueError: a file is corrupt, or another one than its name implies.
  """
  return _load(CIFAR100, VIEW100, dir)


def _load(layout: Layout, view: View, dir: str | None) -> Dataset:
  where, files = read_files(layout, dir)
  (meta,) = layout.meta
  names = _field(pickles.read(files[meta], meta), layout.names_key, meta)
  if len(names) != layout.num_classes:
    raise ValueError(
      f'{meta} in {where} names {len(names)} classes, but {layout.name} has '
      f'{layout.num_classes}: download {layout.archive} again'
    )
  train = _split(layout, {name: files[name] for name in layout.train})
  test = _split(layout, {name: files[name] for name in layout.test})
  return Dataset(
    name=layout.name,
    train=train,
    test=test,
    class_names=tuple(pickles.text(name) for name in names),
    view=view,
    fingerprint=digest_splits(train, test),
    notes=(_provenance(layout, where, files),),
  )


def _provenance(
  layout: Layout, where: pathlib.Path, files: dict[str, bytes]
) -> str:
  """Returns a note on whether the files are the official distribution's."""
  different = [
    name
    for name, content in files.items()
    if hashlib.md5(content, usedforsecurity=False).hexdigest()
    != layout.md5[name]
  ]
  if not different:
    return (
      f'{where} is the official distribution: the md5 of every file agrees.'
    )
  return (
    f'{where} is not the official distribution: the md5 differs for '
    f'{", ".join(different)}. It may be a re-encoded copy, or other data.'
  )


def _split(layout: Layout, files: dict[str, bytes]) -> Split:
  """Reads and joins the files of a split."""
  parts = [
    _examples(layout, pickles.read(content, name), name)
    for name, content in files.items()
  ]
  images, labels = zip(*parts, strict=True)
  rows = images[0] if len(images) == 1 else np.concatenate(images)
  image = rows.reshape(-1, *SHAPE).transpose(0, 2, 3, 1)
  return Split(np.concatenate(labels), np.ascontiguousarray(image))


def _examples(
  layout: Layout, content: dict[str, Any], name: str
) -> tuple[np.ndarray, np.ndarray]:
  """Returns rows uint8 [N, 3072] and labels int32 [N], checked."""
  rows = _field(content, 'data', name)
  label = np.asarray(_field(content, layout.label_key, name))
  columns = int(np.prod(SHAPE))
  if not (isinstance(rows, np.ndarray) and rows.dtype == np.uint8):
    raise ValueError(
      f'data in {name} is {getattr(rows, "dtype", type(rows).__name__)}, not '
      'uint8: download the file again'
    )
  if rows.ndim != 2 or rows.shape[1] != columns:
    raise ValueError(
      f'data in {name} has shape {rows.shape}, but a row of 32 x 32 RGB '
      f'pixels has {columns} columns: download the file again'
    )
  if label.shape != rows.shape[:1]:
    raise ValueError(
      f'{name} has {len(rows)} images, but {label.size} labels: download the '
      'file again'
    )
  outside = (label < 0) | (label >= layout.num_classes)
  if label.dtype.kind not in 'iu' or outside.any():
    wrong = label[outside][0] if outside.any() else label.dtype
    raise ValueError(
      f'{name} has the label {wrong}, but labels of {layout.name} are '
      f'integers in 0..{layout.num_classes - 1}: download the file again'
    )
  return rows, label.astype(np.int32)


def _field(content: dict[str, Any], key: str, name: str) -> Any:
  if key not in content:
    raise ValueError(
      f'{name} has no {key!r}, only {", ".join(sorted(content))}: is it a '
      'file of the other CIFAR?'
    )
  return content[key]
