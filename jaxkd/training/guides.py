"""Readers of logits that come with the batch, one for each network.

Whatever is computed is computed between two steps, in a call of its own: no
step ever calls back to Python, which could deadlock on several devices.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from jaxkd.data import batches
from jaxkd.data.base import Dataset
from jaxkd.data.batches import StoredSplit
from jaxkd.problems import Problem
from jaxkd.reparam import two_parts
from jaxkd.stores import Store
from jaxkd.training import mesh as meshes
from jaxkd.training.frozen import folds
from jaxkd.types import Array


class Guide(Protocol):
  """Gives the logits of one network, call by call."""

  def start(self, groups: Sequence[np.ndarray], epoch: int) -> None:
    """Begins an epoch.

    Args:
      groups: int32 [S, B], the examples of each call that follows.
      epoch: of the views.
    """
    ...

  def __call__(
    self, indices: np.ndarray, stored: StoredSplit | None, examples: Any
  ) -> np.ndarray:
    """Returns logits, float32 [S, B, ...].

    Args:
      indices: int32 [S, B], the examples of the call.
      stored: the split on the devices; None if it is not in memory.
      examples: in that case, those of the call's only batch.
    """
    ...

  def note(self) -> str:
    """Returns what the progress shows of it, in a few words; '': nothing."""
    ...


class Stored:
  """Reads a finished store."""

  def __init__(self, store: Store):
    self._store, self._slot = store, 0

  def start(self, groups: Sequence[np.ndarray], epoch: int) -> None:
    """See `Guide`."""
    del groups
    self._slot = epoch

  def __call__(
    self, indices: np.ndarray, stored: StoredSplit | None, examples: Any
  ) -> np.ndarray:
    """See `Guide`."""
    del stored, examples
    logits = self._store.read(self._slot, indices.reshape(-1))
    return logits.reshape(*indices.shape, *logits.shape[1:])

  def note(self) -> str:
    """See `Guide`."""
    return ''


class Live:
  """Computes the logits of training views.

  Args:
    forward: (variables, images [B, H, W, C]) -> logits [B, ...], in JAX; None
      for a function in NumPy.
    variables: its arrays.
    predict: images -> logits in NumPy, if there is no `forward`.
    dataset: defines the views.
    problem: makes them.
    mesh: the devices.
    seed: of the views.
  """

  def __init__(
    self,
    forward: Callable[[Any, Array], Array] | None,
    variables: Any,
    predict: Callable[[np.ndarray], np.ndarray] | None,
    *,
    dataset: Dataset,
    problem: Problem,
    mesh: Mesh,
    seed: int,
  ):
    self._variables = jax.device_put(variables, meshes.whole(mesh))
    self.seed = seed
    self._forward, self._predict = forward, predict
    self._mesh, self._epoch = mesh, 0
    self._ready: dict[int, tuple[Any, Any]] = {}  # by the size of a batch

    def view(stored, examples, epoch):
      raw = batches.gather(stored, examples) if stored else examples
      return problem.train_view(raw, epoch, seed, dataset.view)['image']

    self._view = view

  def start(self, groups: Sequence[np.ndarray], epoch: int) -> None:
    """See `Guide`."""
    del groups
    self._epoch = epoch

  def __call__(
    self, indices: np.ndarray, stored: StoredSplit | None, examples: Any
  ) -> np.ndarray:
    """See `Guide`."""
    if not stored:
      return self.one(stored, examples, len(examples['index']))[None]
    return np.stack([self.one(stored, index, len(index)) for index in indices])

  def note(self) -> str:
    """See `Guide`."""
    return ''

  def one(
    self, stored: StoredSplit | None, examples: Any, size: int
  ) -> np.ndarray:
    """Returns the logits of one batch, float32 [B, ...].

    Args:
      stored: see `Guide`.
      examples: indices into the stored split, or else the examples.
      size: B.
    """
    sharding = meshes.batch_split(self._mesh, size)
    examples = jax.device_put(examples, sharding)
    inputs = stored, examples, np.int32(self._epoch)
    if size not in self._ready:
      self._ready[size] = self._prepared(*inputs)
    values, run = self._ready[size]
    results = np.asarray(run(values, *inputs))
    if self._predict:
      results = self._predict(results)
    return np.asarray(results, np.float32)

  def _prepared(
    self, stored: batches.StoredSplit | None, examples: Any, epoch: np.int32
  ) -> tuple[Any, Callable[..., Array]]:
    """Returns arrays, and a function of them and of the arguments of a batch.

    Args:
      stored: see `one`.
      examples: likewise.
      epoch: of the views.
    """
    if self._forward is None:
      return [], jax.jit(lambda _, *inputs: self._view(*inputs))
    forward, view = self._forward, self._view
    if not folds(meshes.platform(self._mesh)):
      run = jax.jit(lambda values, *inputs: forward(values, view(*inputs)))
      return self._variables, run
    image = jax.eval_shape(view, stored, examples, epoch)
    parts = two_parts(forward, self._variables, image)

    def run(values, *inputs):
      return parts.run(values, view(*inputs))

    return jax.jit(parts.prepare)(self._variables), jax.jit(run)


class Cached:
  """Reads logits from the view cache, and computes those that it lacks.

  hits, misses: how many logits were there, and how many were computed.

  Args:
    store: the cache, of one slot for each view of an image.
    live: computes what is missing.
    number: (indices [N], epoch) -> the number of each example's view.
    size: examples that are computed at once.
  """

  def __init__(
    self,
    store: Store,
    live: Live,
    number: Callable[[np.ndarray, int], np.ndarray],
    size: int,
  ):
    self._store, self._live, self._size = store, live, size
    self._number_of, self.hits, self.misses = number, 0, 0
    self._numbers = np.zeros(store.header.examples, np.int64)
    self._missing = np.zeros(0, np.int32)

  def start(self, groups: Sequence[np.ndarray], epoch: int) -> None:
    """See `Guide`."""
    self._live.start(groups, epoch)
    every = np.arange(self._store.header.examples, dtype=np.int32)
    self._numbers = self._number_of(every, epoch)
    due = np.concatenate([g.reshape(-1) for g in groups] or [every[:0]])
    there = self._store.present(self._numbers[due], due)
    self._missing = due[~there]
    self.hits += int(there.sum())
    self.misses += len(self._missing)

  def __call__(
    self, indices: np.ndarray, stored: StoredSplit | None, examples: Any
  ) -> np.ndarray:
    """See `Guide`."""
    del examples
    flat = indices.reshape(-1)
    numbers = self._numbers[flat]
    # Another run that fills the cache may be writing a row just now.
    while len(absent := flat[~self._store.present(numbers, flat)]):
      later = self._missing[~np.isin(self._missing, absent)]
      self._missing = np.concatenate([absent, later])
      self._fill(stored)
    logits = self._store.read(numbers, flat)
    return logits.reshape(*indices.shape, *logits.shape[1:])

  def note(self) -> str:
    """Returns the share of logits that were in the cache."""
    total = self.hits + self.misses
    return f'{self.hits / total:.0%} from the view cache' if total else ''

  def close(self) -> None:
    """Writes everything to disk."""
    self._store.close()

  def _fill(self, stored: StoredSplit | None) -> None:
    """Computes a full batch of the missing logits, those due first."""
    due = self._missing[: self._size]
    # Of one size always, so that nothing is compiled again.
    padded = np.resize(due, self._size)
    logits = self._live.one(stored, padded, self._size)[: len(due)]
    order = np.lexsort((due, self._numbers[due]))
    due, logits = due[order], logits[order]
    self._store.write(self._numbers[due], due, logits)
    self._missing = self._missing[self._size :]
