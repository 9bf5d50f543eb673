"""From a data set to compiled steps.

A split in memory is copied to the devices once, as it is stored; a call then
gets indices alone. A split too large for memory is decoded by threads on the
host, ahead of its use. Either way the training view (crop, flip, normalisation)
is computed inside the call.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jaxkd.data import batches
from jaxkd.data.base import Dataset
from jaxkd.problems import Problem
from jaxkd.training import bulk
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


# On accelerators up to this many steps go in one call, so that small networks
# do not wait for Python. (On CPU, XLA runs a convolution in a loop 20 times
# slower.)
CHUNK = 100


def steps_per_epoch(dataset: Dataset, batch_size: int) -> int:
  """Returns the number of batches of an epoch; the last may be smaller."""
  return -(-len(dataset.train) // batch_size)


def chunk_of(full: int, most: int) -> int:
  """Returns how many full batches go in one call, at least 1.

  A divisor of their number, if there is one from most / 2 to most, so that all
  calls of an epoch are one program; else, `most` or all of them, and what is
  left of the epoch is one more call.

  Args:
    full: number of full batches of an epoch.
    most: the largest number in one call, at least 1.
  """
  if full <= most:
    return max(full, 1)
  divisors = (n for n in range(most, (most - 1) // 2, -1) if full % n == 0)
  return next(divisors, most)


@dataclasses.dataclass
class Feed:
  """Feeds the epochs of one data set to one step.

  dataset: whose training split is fed.
  problem: makes training views of it.
  mesh: the devices.
  batch_size: of a full batch, a multiple of the number of devices.
  seed: order and views are functions of (seed, epoch, index).
  step: pure, (state, batch) -> (state, metrics).
  chunk: full batches in one call; None leaves it to the devices.
  guides: by name, the networks whose outputs come with the batch.
  views: which training views are shown; None: those of the seed.
  at_once: batches that frozen networks run on together, see `bulk.steps`.
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
  at_once: int | None = None

  def __post_init__(self):
    meshes.check_batch_size(self.mesh, self.batch_size)
    self._compiled: dict[tuple[int, int], Any] = {}
    seed, count = self.views or (self.seed, None)
    self._view_seed, self._view_count = seed, count
    self._last: Any = ()  # metrics of the call before

  @property
  def steps_per_epoch(self) -> int:
    """Steps of one epoch of this feed."""
    return steps_per_epoch(self.dataset, self.batch_size)

  @functools.cached_property
  def _stored(self) -> batches.StoredSplit | None:
    """The split on the devices; None for one that is not in memory."""
    return meshes.put_split(self.dataset.train, self.mesh)

  @property
  def programs(self) -> list[tuple[int, int]]:
    """(steps, batch size) of all calls of an epoch, each once."""
    full, rest = divmod(len(self.dataset.train), self.batch_size)
    chunks, left = divmod(full, self._chunk)
    sizes = [(self._chunk, self.batch_size)] if chunks else []
    if left and self._in_memory:
      sizes.append((left, self.batch_size))
    if rest:
      sizes.append((1, rest))
    return sizes

  def compile(self, state: State) -> None:
    """Compiles all calls of an epoch, so that training can be timed."""
    rest = len(self.dataset.train) % self.batch_size
    for guide in self.guides.values():
      for size in (self.batch_size, rest) if rest else (self.batch_size,):
        guide.compile(self._stored, size)
    for steps, size in self.programs:
      self._compile(steps, size, state)

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

  def notes(self) -> list[str]:
    """Returns what is shown beside the throughput, such as hits of a cache."""
    return [note for x in self.guides.values() if (note := x.note())]

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
    groups = np.split(left, range(self._chunk, len(left), self._chunk))
    groups = [group for group in groups if len(group)]
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
    if self.guides and meshes.platform(self.mesh) == 'cpu':
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
  def _in_memory(self) -> bool:
    return self.dataset.train.image is not None

  @property
  def _chunk(self) -> int:
    """Full batches in one call; one, if they come from the host."""
    if not self._in_memory:
      return 1
    if meshes.platform(self.mesh) == 'cpu':
      return self.chunk or 1
    return self.chunk or chunk_of(
      len(self.dataset.train) // self.batch_size, CHUNK
    )

  def _examples(
    self, groups: list[np.ndarray], epoch: int
  ) -> Iterator[np.ndarray | dict[str, np.ndarray]]:
    """Yields each call's input: indices [S, B], or the examples themselves."""
    if self._in_memory:
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
      lowered = self.lower(self.mesh, state, steps, size)
      self._compiled[steps, size] = lowered.compile()
    return self._compiled[steps, size]

  def lower(
    self, mesh: Mesh, state: State, steps: int, size: int
  ) -> jax.stages.Lowered:
    """Returns the program of a call, lowered for the devices of a mesh.

    See `trace`.
    """
    return self.trace(mesh, state, steps, size).lower()

  def trace(
    self, mesh: Mesh, state: State, steps: int, size: int
  ) -> jax.stages.Traced:
    """Returns the program of a call, traced, for the devices of a mesh.

    Only shapes and types are used, and no device: neither the state nor the
    split has to be on one, and those of the mesh may be descriptions of devices
    (`jax.experimental.topologies`).

    Args:
      mesh: the devices that the program is for.
      state: arrays, or `jax.ShapeDtypeStruct`s; donated.
      steps: in one call.
      size: of each batch.
    """
    whole = meshes.whole(mesh)
    if self._in_memory:
      run, axis = self._run_stored, 1
      examples = jax.ShapeDtypeStruct((steps, size), np.int32)
    else:
      run, axis = self._run_loaded, 0
      examples = self._loaded_spec(size)
    split, of_inputs = (meshes.batch_split(mesh, size, n) for n in (axis, 1))
    tables = self._tables()
    of_tables = jax.tree.map(lambda x: x.sharding, tables)
    jitted = jax.jit(
      partial(run, meshes.platform(mesh)),
      in_shardings=(whole, whole, split, of_inputs, of_tables, whole, whole),
      out_shardings=(whole, whole),
      donate_argnums=0,
    )
    stored, tables = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype),
      (batches.stored_split(self.dataset.train), tables),
    )
    inputs = {n: g.spec(steps, size) for n, g in self.guides.items()}
    others = inputs, tables, self._seeds, np.int32(0)
    return jitted.trace(state, stored, examples, *others)

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

  def _run_loaded(
    self, platform, state, stored, raw, inputs, tables, seeds, epoch
  ):
    """One step on examples from the host."""
    del stored

    def batch_of(of_step):
      raw, inputs = of_step
      return self._batch(raw, inputs, tables, seeds, epoch)

    of_step = jax.tree.map(lambda x: x[None], raw), inputs
    return self._steps(platform, batch_of, state, of_step)

  def _run_stored(
    self, platform, state, stored, indices, inputs, tables, seeds, epoch
  ):
    """Steps on examples of the stored split, given their indices [S, B]."""

    def batch_of(of_step):
      index, inputs = of_step
      raw = batches.gather(stored, index)
      return self._batch(raw, inputs, tables, seeds, epoch)

    return self._steps(platform, batch_of, state, (indices, inputs))

  def _steps(self, platform, batch_of, state, of_steps):
    return bulk.steps(
      self.step, batch_of, state, of_steps, platform, self.at_once
    )

  def _batch(self, raw, inputs, tables, seeds, epoch):
    of_step, of_views = seeds
    batch = self.problem.train_view(raw, epoch, of_views, self.dataset.view)
    outputs = {
      name: guide.pick(tables[name], inputs[name])
      for name, guide in self.guides.items()
    }
    return Batch(**{**batch, 'seed': of_step, 'precomputed': outputs})
