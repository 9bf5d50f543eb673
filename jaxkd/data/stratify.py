"""Stratified division of examples that have several labels each.

Sechidis, Tsoumakas, Vlahavas, On the stratification of multi-label data, ECML
PKDD 2011, https://doi.org/10.1007/978-3-642-23808-6_10, algorithm 1
(iterative stratification), for two parts.
"""

import numpy as np

from jaxkd.data.batches import permutation


def several_labels(label: np.ndarray, part: float, seed: int) -> np.ndarray:
  """Chooses a part of the examples that has about this part of every label.

  The rarest label among the examples that are left is divided first, since a
  frequent one can be balanced by later examples. Each example goes where its
  label is missing most; where that is equal, to the part that lacks most
  examples.

  Args:
    label: multi-hot [N, K]; examples may have no label.
    part: of the examples, above 0 and below 1.
    seed: of the order in which examples are divided.

  Returns:
    int32 [M], ascending: at least one example, and never all.

  Raises:
    ValueError: fewer than two examples.
  """
  n = len(label)
  if n < 2:
    raise ValueError(
      f'{n} training example leaves none to hold out: add some, or mark those'
      ' of a test split'
    )
  order = permutation(n, 'stratify', seed)
  label = np.asarray(label, bool)[order]
  shares = np.array([1 - part, part])
  missing = shares[:, None] * label.sum(0)  # of each label, in each part
  room = shares * n  # for examples
  place = np.full(n, -1)
  left = label.sum(0)

  def assign(i: np.intp, preferred: np.ndarray) -> None:
    best = np.flatnonzero(preferred >= preferred.max() - 1e-9)
    where = best[np.argmax(room[best])]
    place[i] = where
    missing[where] -= label[i]
    room[where] -= 1

  while left.any():
    k = int(np.argmin(np.where(left > 0, left, n + 1)))
    for i in np.flatnonzero(label[:, k] & (place < 0)):
      assign(i, missing[:, k])
      left -= label[i]
  for i in np.flatnonzero(place < 0):
    assign(i, room)
  if not np.any(place == 1):
    place[-1] = 1
  elif np.all(place == 1):
    place[-1] = 0
  return np.sort(order[place == 1]).astype(np.int32)
