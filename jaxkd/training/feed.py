"""From a data set to compiled steps.

A split in memory is copied to the devices once, as it is stored; a call then
gets indices alone. A split too large for memory is decoded by threads on the
host, ahead of its use. Either way the training view (crop, flip, normalisation)
is computed inside the call.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh

from jaxkd.data import batches
from jaxkd.data.base import Dataset
from jaxkd.problems import Problem
from jaxkd.training import mesh as meshes
from jaxkd.training.guides import Guide
from jaxkd.training.precomputed import Views
from jaxkd.training.state import State
from jaxkd.types import Batch, Metrics

Step = Callable[[State, Batch], tuple[State, Metrics]]


class Call(NamedTuple):
  """Some steps of an epoch in one compiled call.

  steps: how many.
  batch_size: of each.
  run: (state) -> (state, metrics), with a leading axis of `steps`.
  """

  steps: int
  batch_size: int
  run: Callable[[State], tuple[State, Metrics]]


# On accelerators this many steps go in one call, so that small networks do not
# wait for Python. (On CPU, XLA runs a convolution in a loop 20 times slower.)
CHUNK = 50


def steps_per_epoch(dataset: Dataset, batch_size: int) -> int:
  """Returns the number of batches of an epoch; the last may be smaller."""
  return -(-len(dataset.train) // batch_size)


@dataclasses.dataclass
class Feed:
  """Feeds the epochs of one data set to one step.

  dataset: whose training split is fed.
  problem: makes training views of it.
  mesh: the devices.
  batch_size: of a full batch, a multiple of the number of devices.
  seed: order and views are functions of (seed, epoch, index).
  step: pure, (state, batch) -> (state, metrics).
  chunk: full batches in one call; None leaves it to the backend.
  guides: by name, the networks whose outputs come with the batch.
  views: which training views are shown; None: those of the seed.
  """

  dataset: Dataset
  problem: Problem
  mesh: Mesh
  batch_size: int
  seed: int
  step: Step
  chunk: int | None = None
  guides: Mapping[str, Guide] = dataclasses.field(default_factory=dict)
  views: Views | None = None

  def __post_init__(self):
    meshes.check_batch_size(self.mesh, self.batch_size)
    self._stored = meshes.put_split(self.dataset.train, self.mesh)
    self._compiled: dict[tuple[int, int], Any] = {}
    seed, count = self.views or (self.seed, None)
    self._view_seed, self._view_count = seed, count
    self._last: Any = ()  # metrics of the call before

  @property
  def steps_per_epoch(self) -> int:
    """Steps of one epoch of this feed."""
    return steps_per_epoch(self.dataset, self.batch_size)

  def compile(self, state: State) -> None:
    """Compiles all calls of an epoch, so that training can be timed."""
    full, rest = divmod(len(self.dataset.train), self.batch_size)
    for guide in self.guides.values():
      for size in (self.batch_size, rest) if rest else (self.batch_size,):
        guide.compile(self._stored, size)
    chunks, single = divmod(full, self._chunk)
    if chunks:
      self._compile(self._chunk, self.batch_size, state)
    if single:
      self._compile(1, self.batch_size, state)
    if rest:
      self._compile(1, rest, state)

  def memory(self) -> dict[str, int]:
    """Returns the bytes, on each device, of the largest compiled call.

    'arguments': the state and the data; 'temporary': what the call needs in
    between, activations above all. They are 0 on backends that do not report
    them.
    """
    sizes = [c.memory_analysis() for c in self._compiled.values()]
    return {
      'arguments': max(getattr(s, 'argument_size_in_bytes', 0) for s in sizes),
      'temporary': max(getattr(s, 'temp_size_in_bytes', 0) for s in sizes),
    }

  def calls(self, epoch: int, start: int) -> Iterator[Call]:
    """Yields the calls that make up an epoch.

    The last batch of the epoch, if smaller, is computed as it is: nothing is
    dropped and nothing is padded.

    Args:
      epoch: counted from 0.
      start: steps of this epoch that are done already.
    """
    full, rest = batches.train_batches(
      len(self.dataset.train), self.batch_size, self.seed, epoch
    )
    left = full[start:]
    in_chunks = len(left) - len(left) % self._chunk
    groups = [
      *left[:in_chunks].reshape(-1, self._chunk, self.batch_size),
      *left[in_chunks:, None],
    ]
    if rest.size and start <= len(full):
      groups.append(rest[None])
    if self._view_count:
      epoch %= self._view_count
    self._wait()
    for guide in self.guides.values():
      guide.start(groups, epoch, self._stored)
    for indices, examples in zip(
      groups, self._examples(groups, epoch), strict=True
    ):
      steps, size = indices.shape
      inputs = examples, self._precomputed(indices, examples)
      run = partial(self._run, steps, size, inputs, np.int32(epoch))
      yield Call(steps, size, run)

  def _precomputed(self, indices: np.ndarray, examples: Any) -> dict[str, Any]:
    """Returns what the guides' outputs for a call are picked by, by name."""
    if any(g.computes(indices.shape[1]) for g in self.guides.values()):
      self._wait()
    return {
      name: guide(indices, self._stored, examples)
      for name, guide in self.guides.items()
    }

  def _wait(self) -> None:
    """Waits for the last call, before guides compute something."""
    if self.guides and jax.default_backend() == 'cpu':
      # Two programs at once that need all devices can deadlock there.
      jax.block_until_ready(self._last)

  def _tables(self) -> dict[str, Any]:
    """Returns the tables of the guides, which stay on the devices."""
    return {name: guide.table for name, guide in self.guides.items()}

  @property
  def _seeds(self) -> tuple[np.uint32, np.uint32]:
    """Seeds of step and views, as arguments: one program for all of them."""
    return np.uint32(self.seed), np.uint32(self._view_seed)

  @property
  def _chunk(self) -> int:
    """Full batches in one call; one, if they come from the host."""
    if not self._stored:
      return 1
    return self.chunk or (1 if jax.default_backend() == 'cpu' else CHUNK)

  def _examples(
    self, groups: list[np.ndarray], epoch: int
  ) -> Iterator[np.ndarray | dict[str, np.ndarray]]:
    """Yields each call's input: indices [S, B], or the examples themselves."""
    if self._stored:
      return iter(groups)
    indices = [group[0] for group in groups]
    return batches.prefetch(self.dataset.train, indices, self._view_seed, epoch)

  def _run(
    self, steps: int, size: int, inputs: Any, epoch: np.int32, state: State
  ) -> tuple[State, Metrics]:
    compiled = self._compile(steps, size, state)
    state, self._last = compiled(
      state, self._stored, *inputs, self._tables(), self._seeds, epoch
    )
    return state, self._last

  def _compile(self, steps: int, size: int, state: State) -> Any:
    """Returns the compiled call of so many steps on batches of this size."""
    if (steps, size) not in self._compiled:
      whole = meshes.whole(self.mesh)
      if self._stored:
        run, axis = self._run_stored, 1
        examples = jax.ShapeDtypeStruct((steps, size), np.int32)
      else:
        run, axis = self._run_loaded, 0
        examples = self._loaded_spec(size)
      split = meshes.batch_split(self.mesh, size, axis)
      inputs = {n: g.spec(steps, size) for n, g in self.guides.items()}
      of_inputs = meshes.batch_split(self.mesh, size, 1)
      tables = self._tables()
      of_tables = jax.tree.map(lambda x: x.sharding, tables)
      jitted = jax.jit(
        run,
        in_shardings=(whole, whole, split, of_inputs, of_tables, whole, whole),
        out_shardings=(whole, whole),
        donate_argnums=0,
      )
      others = examples, inputs, tables, self._seeds, np.int32(0)
      lowered = jitted.lower(state, self._stored, *others)
      self._compiled[steps, size] = lowered.compile()
    return self._compiled[steps, size]

  def _loaded_spec(self, size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns shapes and types of a batch as `batches.prefetch` yields it."""
    rows = {
      name: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype)
      for name, x in self.dataset.train.rows.items()
    }
    shape = (size, *self.dataset.image_shape)
    return {
      'image': jax.ShapeDtypeStruct(shape, np.uint8),
      **rows,
      'index': jax.ShapeDtypeStruct((size,), np.int32),
    }

  def _run_loaded(self, state, stored, raw, inputs, tables, seeds, epoch):
    """One step on examples from the host."""
    del stored
    inputs = jax.tree.map(lambda x: x[0], inputs)
    return _with_axis(self._step(state, raw, inputs, tables, seeds, epoch))

  def _run_stored(self, state, stored, indices, inputs, tables, seeds, epoch):
    """Steps on examples of the stored split, given their indices [S, B]."""

    def one(state, of_step):
      index, inputs = of_step
      raw = batches.gather(stored, index)
      return self._step(state, raw, inputs, tables, seeds, epoch)

    if len(indices) == 1:  # no loop around the convolutions
      of_step = jax.tree.map(lambda x: x[0], (indices, inputs))
      return _with_axis(one(state, of_step))
    return lax.scan(one, state, (indices, inputs))

  def _step(self, state, raw, inputs, tables, seeds, epoch):
    of_step, of_views = seeds
    batch = self.problem.train_view(raw, epoch, of_views, self.dataset.view)
    outputs = {
      name: guide.pick(tables[name], inputs[name])
      for name, guide in self.guides.items()
    }
    return self.step(
      state, Batch(**{**batch, 'seed': of_step, 'precomputed': outputs})
    )


def _with_axis(result: tuple[State, Metrics]) -> tuple[State, Metrics]:
  """Gives the metrics of one step the leading axis that chunks have."""
  state, metrics = result
  return state, jax.tree.map(lambda x: x[None], metrics)
