"""The view cache: outputs of a frozen network by view and example.

Which views an epoch shows is a function of (seed, epoch, example), so that what
a table lacks is known before the epoch begins. It is computed then, in full
batches, and no step of the epoch runs the network.

On CPU an output depends on the size of its batch in the last bits, and on
nothing else in it. What is computed for a table is therefore computed in
batches of the training's own size; and the last batch of an epoch, where it is
smaller, is computed in each epoch, as the step would. So in float32 a training
with the cache has the bits of one without it.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from tqdm import tqdm

from jaxkd.data.batches import StoredSplit
from jaxkd.stores import DTYPES, Header, Memory, Store
from jaxkd.training import mesh as meshes
from jaxkd.training.guides import Guide, Live, empty, read
from jaxkd.types import Outputs, Tree

CHUNK = 16  # batches that are computed in one call on accelerators
LARGE = 512  # examples of a batch there, at least
NOWHERE = np.iinfo(np.int32).max  # a position outside of each table

# (indices [N], epoch) -> the number of each example's view, int64 [N]
Number = Callable[[np.ndarray, int], np.ndarray]


class Cache(Guide):
  """Outputs from a table, which is filled as the training needs them.

  hits, misses: how many outputs were in the table when their epoch began, and
    how many were not.

  Args:
    live: computes what is missing.
    number: of views.
    header: of the table, with one slot for each view of an image.
    size: examples of a full batch of the training.
  """

  def __init__(self, live: Live, number: Number, header: Header, size: int):
    super().__init__(live.shapes)
    self._live, self._header, self._batch = live, header, size
    backend = jax.default_backend()
    self._exact = backend == 'cpu' and header.rows.dtype == 'float32'
    self._size = size if backend == 'cpu' else size * -(-LARGE // size)
    self._number_of, self.hits, self.misses = number, 0, 0
    self._numbers = np.zeros(header.examples, np.int64)
    self._before = 0, 0

  @property
  def share(self) -> float:
    """The part of this epoch's outputs that were in the table."""
    hits, misses = self.hits - self._before[0], self.misses - self._before[1]
    return hits / max(1, hits + misses)

  def note(self) -> str:
    """See `Guide`."""
    return f'{self.share:.0%} from the view cache'

  def __str__(self) -> str:
    """Where the table is."""
    raise NotImplementedError

  def start(
    self,
    groups: Sequence[np.ndarray],
    epoch: int,
    stored: StoredSplit | None,
  ) -> None:
    """See `Guide`."""
    self._live.start(groups, epoch, stored)
    self._before = self.hits, self.misses
    every = np.arange(self._header.examples, dtype=np.int32)
    self._numbers = self._number_of(every, epoch)
    used = [g.reshape(-1) for g in groups if not self._anew(g.shape[1])]
    due = np.concatenate([*used, every[:0]])
    missing = due[~self._present(due)]
    rest = sum(g.size for g in groups) - len(due)
    self.hits += len(due) - len(missing)
    self.misses += len(missing) + rest
    self._fill(missing, stored)

  def compile(self, stored: StoredSplit | None, size: int) -> None:
    """See `Guide`."""
    if self._live.on_host:
      return
    if self._anew(size):
      self._live.one(stored, np.zeros(size, np.int32), size)
    else:
      self._try(stored)

  def computes(self, size: int) -> bool:
    """See `Guide`."""
    return self._anew(size)

  def _anew(self, size: int) -> bool:
    """Returns whether batches of this size are computed in each epoch."""
    return self._exact and size != self._batch

  def _try(self, stored: StoredSplit | None) -> None:
    """Computes a full batch, which is written nowhere."""
    raise NotImplementedError

  def close(self) -> None:
    """Ends the use of the table."""

  def _present(self, index: np.ndarray) -> np.ndarray:
    """Returns bool [N]: whether examples' views of this epoch are there."""
    raise NotImplementedError

  def _fill(self, missing: np.ndarray, stored: StoredSplit | None) -> None:
    """Computes the outputs of this epoch's views of examples, int32 [N]."""
    raise NotImplementedError

  def _batches(self, missing: np.ndarray) -> np.ndarray:
    """Returns examples in full batches [S, B]; some of the last are repeated.

    All batches have one size, so that nothing is compiled again.
    """
    steps = -(-len(missing) // self._size)
    return np.resize(missing, (steps, self._size))

  def _bar(self, total: int) -> tqdm:
    """Returns a progress bar over batches."""
    return tqdm(
      total=total,
      unit='batch',
      desc='outputs of this epoch',
      disable=not (total and sys.stderr.isatty()),
      dynamic_ncols=True,
      leave=False,
    )


class Cached(Cache):
  """A cache whose table is in memory or in a file, on the host."""

  def __init__(
    self, live: Live, number: Number, table: Store | Memory, size: int
  ):
    """See `Cache`; `table` may have rows already."""
    super().__init__(live, number, table.header, size)
    self._table = table

  def __str__(self) -> str:
    return str(self._table)

  def __call__(
    self, indices: np.ndarray, stored: StoredSplit | None, examples: Any
  ) -> Outputs:
    """See `Guide`."""
    if self._anew(indices.shape[1]):
      return self._live(indices, stored, examples)
    flat = indices.reshape(-1)
    numbers = self._numbers[flat]
    # A row of a file may have been damaged since the epoch began.
    absent = flat[~self._table.present(numbers, flat)]
    self._fill(absent, stored)
    parts: Any = self._table.outputs(numbers, flat)
    logits, pooled = parts
    outputs = Outputs(logits, {name: pooled for name in self.shapes.taps})
    return jax.tree.map(
      lambda x: x.reshape(*indices.shape, *x.shape[1:]), outputs
    )

  def computes(self, size: int) -> bool:
    """See `Guide`: a damaged row of a file is computed at any time."""
    return isinstance(self._table, Store) or self._anew(size)

  def close(self) -> None:
    """See `Cache`."""
    self._table.close()

  def _try(self, stored: StoredSplit | None) -> None:
    self._live.one(stored, np.zeros(self._size, np.int32), self._size)

  def _present(self, index: np.ndarray) -> np.ndarray:
    return self._table.present(self._numbers[index], index)

  def _fill(self, missing: np.ndarray, stored: StoredSplit | None) -> None:
    done, batches = 0, self._batches(missing)
    with self._bar(len(batches)) as bar:
      for batch in batches:
        outputs = self._live.one(stored, batch, self._size)
        due = batch[: len(missing) - done]
        done += len(due)
        numbers = self._numbers[due]
        order = np.lexsort((due, numbers))
        taps = [x[order] for x in _cut(outputs.taps.values(), due)]
        logits = np.asarray(outputs.logits)[: len(due)][order]
        self._table.write(numbers[order], due[order], logits, *taps)
        bar.update()


def _cut(arrays: Any, due: np.ndarray) -> list[np.ndarray]:
  """Returns the part of each array that belongs to these examples."""
  return [x[: len(due)] for x in arrays]


class DeviceTable:
  """The rows of a view cache in the memory of the devices.

  arrays: see `guides.empty`.
  present: bool [V * N], on the host: which rows are there.
  """

  def __init__(self, header: Header, live: Live, split: bool):
    """Makes an empty table.

    Args:
      header: of the table.
      live: whose outputs and devices they are.
      split: whether each device holds a part of the rows instead of all.
    """
    mesh, rows = live.mesh, header.slots * header.examples
    self.header = header
    self.present = np.zeros(rows, bool)
    sharding = meshes.whole(mesh)
    if split:
      sharding = NamedSharding(mesh, P('data'))
      rows += -rows % mesh.size
    dtype = DTYPES[header.rows.dtype]

    def make() -> Tree:
      return empty(rows, live.shapes, dtype)

    self.arrays = jax.jit(make, out_shardings=sharding)()


class OnDevice(Cache):
  """A cache whose table is in the memory of the devices.

  A step is called with the positions of its rows, and reads them itself.
  """

  def __init__(self, live: Live, number: Number, table: DeviceTable, size: int):
    """See `Cache`; `table` may have rows already."""
    super().__init__(live, number, table.header, size)
    self._table = table

  def __str__(self) -> str:
    return 'device memory'

  @property
  def table(self) -> Tree:
    """See `Guide`."""
    return self._table.arrays

  def __call__(
    self, indices: np.ndarray, stored: StoredSplit | None, examples: Any
  ) -> Tree:
    """See `Guide`."""
    if self._anew(indices.shape[1]):
      return self._live(indices, stored, examples)
    return self._positions(indices)

  def spec(self, steps: int, size: int) -> Tree:
    """See `Guide`."""
    if self._anew(size):
      return super().spec(steps, size)
    return jax.ShapeDtypeStruct((steps, size), np.int32)

  def pick(self, table: Tree, inputs: Tree) -> Outputs:
    """See `Guide`."""
    if isinstance(inputs, Outputs):
      return inputs
    return read(table, inputs)

  @property
  def _chunk(self) -> int:
    """Batches that are computed in one call."""
    return 1 if jax.default_backend() == 'cpu' else CHUNK

  def _try(self, stored: StoredSplit | None) -> None:
    for steps in {1, self._chunk}:
      batches = np.zeros((steps, self._size), np.int32)
      self._write(stored, batches, np.full_like(batches, NOWHERE))

  def _write(
    self,
    stored: StoredSplit | None,
    batches: np.ndarray,
    positions: np.ndarray,
  ) -> None:
    """Computes batches of examples, and writes their rows."""
    self._table.arrays = self._live.fill(
      self._table.arrays, stored, batches, positions
    )

  def _positions(self, index: np.ndarray) -> np.ndarray:
    position = self._numbers[index] * self._header.examples + index
    return position.astype(np.int32)

  def _present(self, index: np.ndarray) -> np.ndarray:
    return self._table.present[self._positions(index)]

  def _fill(self, missing: np.ndarray, stored: StoredSplit | None) -> None:
    batches = self._batches(missing)
    positions = self._positions(batches)
    # The end of the last batch repeats others, whose rows are written anyway.
    positions.reshape(-1)[len(missing) :] = NOWHERE
    at = 0
    with self._bar(len(batches)) as bar:
      while at < len(batches):
        steps = self._chunk if at + self._chunk <= len(batches) else 1
        part = slice(at, at + steps)
        self._write(stored, batches[part], positions[part])
        at += steps
        bar.update(steps)
    self._table.present[self._positions(missing)] = True
