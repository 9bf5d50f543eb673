"""From a data set to compiled steps: the only place that knows both.

A split in memory lives on the device as uint8, copied once; a step is then
called with indices alone. A split too large for memory is decoded by threads on
the host, ahead of its use. Either way the view (crop, flip, normalisation) is
computed inside the step.
"""

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from jaxkd.data import augment, batches
from jaxkd.data.base import Dataset, View
from jaxkd.train import mesh as meshes
from jaxkd.train.state import State
from jaxkd.types import Array, Batch, Metrics

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
  """Full batches, and a last smaller one if the epoch does not divide."""
  return -(-len(dataset.train) // batch_size)


@dataclasses.dataclass
class Feed:
  """Feeds the epochs of one data set to one step.

  dataset: what to train on.
  mesh: the devices.
  batch_size: of a full batch, a multiple of the number of devices.
  seed: order and views are functions of (seed, epoch, index).
  step: pure, (state, batch) -> (state, metrics).
  chunk: full batches in one call; None chooses by the backend.
  """

  dataset: Dataset
  mesh: Mesh
  batch_size: int
  seed: int
  step: Step
  chunk: int | None = None

  def __post_init__(self):
    meshes.check_batch_size(self.mesh, self.batch_size)
    self._arrays = meshes.resident(self.dataset.train, self.mesh)
    self._compiled: dict[tuple[int, int], Any] = {}

  @property
  def steps_per_epoch(self) -> int:
    """Steps of one epoch of this feed."""
    return steps_per_epoch(self.dataset, self.batch_size)

  def compile(self, state: State) -> None:
    """Compiles what a whole epoch calls, so that training can be timed."""
    full, rest = divmod(len(self.dataset.train), self.batch_size)
    chunk = self._chunk
    shapes = {(chunk, self.batch_size)} if full >= chunk else set()
    shapes |= {(1, self.batch_size)} if full % chunk else set()
    shapes |= {(1, rest)} if rest else set()
    for shape in sorted(shapes):
      self._compiled_for(shape, state)

  def memory(self) -> dict[str, int]:
    """Returns the bytes, on each device, of the largest compiled call.

    'arguments': the state and the data; 'temporary': what the call needs in
    between, activations above all. Backends that do not say give zeros.
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
      start: steps of this epoch that have been done already.
    """
    full, rest = batches.train_batches(
      len(self.dataset.train), self.batch_size, self.seed, epoch
    )
    todo = full[start:]
    even = len(todo) - len(todo) % self._chunk
    groups = [
      *todo[:even].reshape(-1, self._chunk, self.batch_size),
      *todo[even:, None],
    ]
    if rest.size and start <= len(full):
      groups.append(rest[None])
    for index, raw in zip(groups, self._raw(groups, epoch), strict=True):
      steps, size = index.shape
      yield Call(steps, size, partial(self._run, index.shape, raw, epoch))

  @property
  def _chunk(self) -> int:
    if not self._arrays:
      return 1
    return self.chunk or (1 if jax.default_backend() == 'cpu' else CHUNK)

  def _raw(self, groups: list[np.ndarray], epoch: int) -> Iterator[Any]:
    if self._arrays:
      return iter(groups)
    indices = [group[0] for group in groups]
    return batches.prefetch(self.dataset.train, indices, self.seed, epoch)

  def _run(self, shape, raw, epoch, state):
    compiled = self._compiled_for(shape, state)
    return compiled(state, self._arrays, raw, np.int32(epoch))

  def _compiled_for(self, shape: tuple[int, int], state: State) -> Any:
    if shape not in self._compiled:
      steps, size = shape
      whole = meshes.whole(self.mesh)
      if self._arrays:
        raw = jax.ShapeDtypeStruct(shape, np.int32)
        split = meshes.batch_split(self.mesh, size, axis=1)
      else:
        raw = {
          'image': jax.ShapeDtypeStruct(
            (size, *self.dataset.image_shape), np.uint8
          ),
          'label': jax.ShapeDtypeStruct((size,), np.int32),
          'index': jax.ShapeDtypeStruct((size,), np.int32),
        }
        split = meshes.batch_split(self.mesh, size)
      jitted = jax.jit(
        self._many if self._arrays else self._one,
        in_shardings=(whole, whole, split, whole),
        out_shardings=(whole, whole),
        donate_argnums=0,
      )
      lowered = jitted.lower(state, self._arrays, raw, np.int32(0))
      self._compiled[shape] = lowered.compile()
    return self._compiled[shape]

  def _one(self, state, arrays, raw, epoch):
    """One step; metrics get the leading axis that chunks have."""
    del arrays
    state, metrics = self.step(state, self._batch(raw, epoch))
    return state, jax.tree.map(lambda x: x[None], metrics)

  def _many(self, state, arrays, indices, epoch):
    def one(state, index):
      raw = batches.gather(arrays, index)
      return self.step(state, self._batch(raw, epoch))

    if len(indices) == 1:  # no loop around the convolutions
      state, metrics = one(state, indices[0])
      return state, jax.tree.map(lambda x: x[None], metrics)
    return lax.scan(one, state, indices)

  def _batch(self, raw, epoch):
    return training_batch(raw, epoch, self.seed, self.dataset.view)


def training_batch(
  raw: dict[str, Array], epoch: Array, seed: int | Array, view: View
) -> Batch:
  """Returns the training views of raw images; pure.

  Args:
    raw: 'image', 'label' and 'index' of the examples.
    epoch: int32 scalar.
    seed: of the run.
    view: of the data set.
  """
  return Batch(
    image=augment.train_view(
      raw['image'], raw['index'], epoch, seed=seed, view=view
    ),
    label=raw['label'],
    index=raw['index'],
    mask=jnp.ones(raw['label'].shape),
  )
