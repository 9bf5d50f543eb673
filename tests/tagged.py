"""A table of images with any number of labels, for tiny trainings."""

import pathlib

import numpy as np
import tiny
from data_files import write_image

CLASSES = ('bright', 'left', 'top')
TRAIN, TEST = 40, 21


def write(folder: pathlib.Path) -> str:
  """Writes images whose labels are functions of their pixels.

  Returns:
    The name of the data set.
  """
  rng = np.random.default_rng(0)
  lines = ['path,label,split']
  for i in range(TRAIN + TEST):
    marks = rng.integers(0, 2, 3)
    image = rng.integers(0, 60, (8, 8, 3)).astype(np.uint8)
    image += np.uint8(60 * marks[0])
    image[:, :4] += np.uint8(60 * marks[1])
    image[:4] += np.uint8(60 * marks[2])
    write_image(folder / f'{i}.png', image)
    labels = '|'.join(
      x for x, there in zip(CLASSES, marks, strict=True) if there
    )
    lines.append(f'{i}.png,{labels},{"train" if i < TRAIN else "test"}')
  (folder / 'labels.csv').write_text('\n'.join(lines))
  return f'table:{folder / "labels.csv"}'


def config(name: str, **changes):
  """The tiny run on a table that `write` has written."""
  settings = dict(problem='multi_label')
  changes = {'data__settings': settings, 'data__image_size': 8, **changes}
  return tiny.config(data__name=name, data__augment='none', **changes)
