"""The 1797 digits that ship inside scikit-learn: no download, no files.

A part of "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak,
1998), https://archive.ics.uci.edu/dataset/80.
"""

import numpy as np

from jaxkd.data.base import Dataset, Split, View, digest_splits
from jaxkd.data.select import choose, rest

TEST_PER_CLASS = 36  # 360 test images, 1437 training images
# Over all pixels of the training images.
VIEW = View(mean=(0.3054,), std=(0.3759,), pad=1)


def digits() -> Dataset:
  """Returns 8 x 8 grey images of ten digits, a fixed stratified split.

  The pixels are counts v in 0..16, stored as (255 v + 8) // 16: 0 stays 0, 16
  becomes 255, and the rest is rounded to the nearest integer. Digits are not
  mirrored: the mirror image of a digit is not one.
  """
  import sklearn.datasets

  count, label = sklearn.datasets.load_digits(return_X_y=True)
  image = (count.astype(np.int32) * 255 + 8) // 16
  image = image.astype(np.uint8).reshape(-1, 8, 8, 1)
  label = label.astype(np.int32)
  held = choose(label, np.full(10, TEST_PER_CLASS), 'digits')
  whole = Split(label, image)
  train, test = whole.take(rest(len(label), held)), whole.take(held)
  names = tuple(str(k) for k in range(10))
  return Dataset('digits', train, test, names, VIEW, digest_splits(train, test))
