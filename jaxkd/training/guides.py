"""Outputs of frozen networks that come with the batch, one guide for each.

Whatever is computed is computed between two steps, in a call of its own: no
step ever calls back to Python, which could deadlock on several devices.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from jaxkd.data import batches
from jaxkd.data.base import Dataset
from jaxkd.data.batches import StoredSplit
from jaxkd.problems import Problem
from jaxkd.reparam import two_parts
from jaxkd.stores import Store
from jaxkd.training import mesh as meshes
from jaxkd.training.frozen import folds
from jaxkd.types import Array, Outputs, Tree

POOLED = 'pooled'  # the tap that outputs may have besides logits


class Guide:
  """Gives the outputs of one network, call by call.

  Args:
    shapes: of the outputs of one image: logits, and the taps that come along.
  """

  def __init__(self, shapes: Outputs):
    self.shapes = shapes

  @property
  def table(self) -> Tree:
    """Arrays on the devices that `pick` reads; a step does not change them."""
    return {}

  def start(
    self,
    groups: Sequence[np.ndarray],
    epoch: int,
    stored: StoredSplit | None,
  ) -> None:
    """Begins an epoch.

    Args:
      groups: int32 [S, B], the examples of each call that follows.
      epoch: of the views.
      stored: the split on the devices; None if it is not in memory.
    """
    raise NotImplementedError

  def __call__(
    self, indices: np.ndarray, stored: StoredSplit | None, examples: Any
  ) -> Tree:
    """Returns the inputs of `pick` for a call, each of them [S, B, ...].

    Args:
      indices: int32 [S, B], the examples of the call.
      stored: see `start`.
      examples: those of the call's only batch, where the split is not stored.
    """
    raise NotImplementedError

  def note(self) -> str:
    """Returns what the progress shows of it, in a few words; '': nothing."""
    return ''

  def compile(self, stored: StoredSplit | None, size: int) -> None:
    """Compiles what an epoch with batches of this size needs."""

  def computes(self, size: int) -> bool:
    """Returns whether a call with batches of this size may run the network."""
    del size
    return False

  def spec(self, steps: int, size: int) -> Tree:
    """Returns shapes and types of what a call returns."""
    return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct((steps, size, *x.shape), np.float32),
      self.shapes,
    )

  def pick(self, table: Tree, inputs: Tree) -> Outputs:
    """Returns the outputs of one batch; runs inside of the compiled step.

    Args:
      table: see there.
      inputs: as a call returns them, without the axis of steps.
    """
    del table
    return inputs


class Stored(Guide):
  """Reads a finished store."""

  def __init__(self, store: Store, shapes: Outputs):
    super().__init__(shapes)
    self._store, self._slot = store, 0

  def start(
    self,
    groups: Sequence[np.ndarray],
    epoch: int,
    stored: StoredSplit | None,
  ) -> None:
    """See `Guide`."""
    del groups, stored
    self._slot = epoch

  def __call__(
    self, indices: np.ndarray, stored: StoredSplit | None, examples: Any
  ) -> Outputs:
    """See `Guide`."""
    del stored, examples
    logits: Any = self._store.read(self._slot, indices.reshape(-1))
    return Outputs(logits.reshape(*indices.shape, *logits.shape[1:]), {})


class Live(Guide):
  """Computes the outputs of training views.

  Args:
    shapes: see `Guide`.
    forward: (variables, images [B, H, W, C]) -> outputs, in JAX; None for a
      function in NumPy.
    variables: its arrays.
    predict: images -> logits in NumPy, if there is no `forward`.
    dataset: defines the views.
    problem: makes them.
    mesh: the devices.
    seed: of the views.
  """

  def __init__(
    self,
    shapes: Outputs,
    forward: Callable[[Any, Array], Outputs] | None,
    variables: Any,
    predict: Callable[[np.ndarray], np.ndarray] | None,
    *,
    dataset: Dataset,
    problem: Problem,
    mesh: Mesh,
    seed: int,
  ):
    super().__init__(shapes)
    self._variables = jax.device_put(variables, meshes.whole(mesh))
    self.mesh, self.seed, self._predict, self._epoch = mesh, seed, predict, 0
    self._forward, self._image_shape = forward, dataset.image_shape
    self._networks: dict[int, tuple[Any, Any]] = {}  # by the size of a batch

    def run(network, values, stored, examples, epoch, seed):
      raw = batches.gather(stored, examples) if stored else examples
      image = problem.train_view(raw, epoch, seed, dataset.view)['image']
      return network(values, image)

    def fill(network, table, values, stored, examples, positions, *scalars):
      def one(table, inputs):
        index, position = inputs
        outputs = run(network, values, stored, index, *scalars)
        return write(table, position, outputs), ()

      if len(examples) == 1:  # no loop around the convolutions
        return one(table, (examples[0], positions[0]))[0]
      return lax.scan(one, table, (examples, positions))[0]

    self._run = jax.jit(run, static_argnums=0)
    self._fill_of, self._fill = fill, None

  def start(
    self,
    groups: Sequence[np.ndarray],
    epoch: int,
    stored: StoredSplit | None,
  ) -> None:
    """See `Guide`."""
    del groups, stored
    self._epoch = epoch

  def __call__(
    self, indices: np.ndarray, stored: StoredSplit | None, examples: Any
  ) -> Outputs:
    """See `Guide`."""
    if not stored:
      size = len(examples['index'])
      parts = [self.one(stored, examples, size)]
    else:
      parts = [self.one(stored, index, len(index)) for index in indices]
    return jax.tree.map(lambda *x: np.stack(x), *parts)

  def computes(self, size: int) -> bool:
    """See `Guide`."""
    del size
    return True

  @property
  def on_host(self) -> bool:
    """Whether the function is not in JAX: there is nothing to compile."""
    return self._forward is None

  def one(
    self, stored: StoredSplit | None, examples: Any, size: int
  ) -> Outputs:
    """Returns the outputs of one batch, float32 [B, ...], on the host.

    Args:
      stored: see `Guide`.
      examples: indices into the stored split, or else the examples.
      size: B.
    """
    sharding = meshes.batch_split(self.mesh, size)
    examples = jax.device_put(examples, sharding)
    network, values = self._network(size)
    results = self._run(network, values, stored, examples, *self._scalars())
    if self._predict:
      logits: Any = self._predict(np.asarray(results))
      results = Outputs(logits, {})
    return jax.tree.map(lambda x: np.asarray(x, np.float32), results)

  def fill(
    self,
    table: Tree,
    stored: StoredSplit | None,
    examples: np.ndarray,
    positions: np.ndarray,
  ) -> Tree:
    """Returns a table on the devices, which is donated, with further rows.

    Args:
      table: see `empty`.
      stored: see `Guide`.
      examples: int32 [S, B], of S batches.
      positions: int32 [S, B], their rows; those outside of the table are not
        written.
    """
    if self._fill is None:  # its table stays where it is
      placed = jax.tree.map(lambda x: x.sharding, table)
      self._fill = jax.jit(
        self._fill_of,
        static_argnums=0,
        donate_argnums=1,
        out_shardings=placed,
      )
    size = examples.shape[1]
    split = meshes.batch_split(self.mesh, size, 1)
    inputs = jax.device_put((examples, positions), split)
    network, values = self._network(size)
    return self._fill(network, table, values, stored, *inputs, *self._scalars())

  def _network(self, size: int) -> tuple[Callable[[Any, Array], Any], Any]:
    """Returns a function of arrays and images, and the arrays.

    It is `forward`, prepared for batches of a size where devices `folds`, or
    the identity where the function is not in JAX.
    """
    if size not in self._networks:
      self._networks[size] = self._prepared(size)
    return self._networks[size]

  def _prepared(self, size: int) -> tuple[Callable[[Any, Array], Any], Any]:
    if self._forward is None:
      return lambda _, image: image, {}
    if not folds(meshes.platform(self.mesh)):
      return self._forward, self._variables
    image = jax.ShapeDtypeStruct((size, *self._image_shape), np.float32)
    parts = two_parts(self._forward, self._variables, image)
    return parts.run, jax.jit(parts.prepare)(self._variables)

  def _scalars(self) -> tuple[np.int32, np.uint32]:
    """Returns epoch and seed, as arguments: one program for all of them."""
    return np.int32(self._epoch), np.uint32(self.seed)


def empty(rows: int, shapes: Outputs, dtype: Any) -> Tree:
  """Returns the arrays of a table of outputs; see `write`.

  Args:
    rows: how many.
    shapes: of one row.
    dtype: of the stored numbers.
  """
  table = jax.tree.map(lambda x: jnp.zeros((rows, *x.shape), dtype), shapes)
  exact = jnp.dtype(dtype) == jnp.float32
  shift = jnp.zeros((0 if exact else rows,), jnp.float32)
  return {'outputs': table, 'shift': shift}


def write(table: Tree, position: Array, outputs: Outputs) -> Tree:
  """Returns a table with some rows replaced.

  As in a store, 16-bit logits are rounded after the maximum is subtracted.

  Args:
    table: see `empty`.
    position: int32 [B]; rows outside of the table are dropped.
    outputs: [B, ...].
  """
  shift = table['shift']
  if len(shift):
    axes = tuple(range(1, outputs.logits.ndim))
    highest = jnp.max(outputs.logits, axis=axes)
    shift = shift.at[position].set(highest, mode='drop')
    lower = outputs.logits - jnp.expand_dims(highest, axes)
    outputs = outputs.replace(logits=lower)

  def put(rows: Array, values: Array) -> Array:
    if rows.dtype == jnp.float16:
      limit = jnp.finfo(rows.dtype)
      inside = jnp.clip(values, limit.min, limit.max)
      values = jnp.where(jnp.isneginf(values), values, inside)
    return rows.at[position].set(values.astype(rows.dtype), mode='drop')

  return {
    'outputs': jax.tree.map(put, table['outputs'], outputs),
    'shift': shift,
  }


def read(table: Tree, position: Array) -> Outputs:
  """Returns rows of a table, float32 [B, ...]; see `write`."""
  outputs = jax.tree.map(
    lambda rows: jnp.take(rows, position, axis=0, mode='clip').astype(
      jnp.float32
    ),
    table['outputs'],
  )
  if not len(table['shift']):
    return outputs
  shift = jnp.take(table['shift'], position, mode='clip')
  axes = tuple(range(1, outputs.logits.ndim))
  return outputs.replace(logits=outputs.logits + jnp.expand_dims(shift, axes))
