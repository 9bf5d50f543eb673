"""Several steps in one call, and frozen networks on several batches at once.

In eval mode an image's outputs do not depend on the others of its batch. So the
frozen networks can run on the batches of several steps together, which on a GPU
takes fewer and larger kernels.
"""

import math
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax import lax

from jaxkd.training.frozen import folds
from jaxkd.training.state import State
from jaxkd.training.step import Step
from jaxkd.types import Array, Batch, Metrics, Outputs

# Batches at once, by platform; elsewhere one by one. On TPUs it does not help.
BATCHES = {'gpu': 10}
PIXELS = 2**20  # at most, of all images at once: 1024 images of 32 x 32
BYTES = 2**29  # at most, of the outputs that are kept for later steps


def steps(
  step: Callable[[State, Batch], tuple[State, Metrics]],
  batch_of: Callable[[Any], Batch],
  state: State,
  inputs: Any,
  platform: str,
  batches: int | None = None,
) -> tuple[State, Metrics]:
  """Makes several steps.

  Args:
    step: of a training. A `Step` has its frozen networks prepared once, where
      it `frozen.folds`.
    batch_of: an entry of `inputs` -> the batch.
    state: before.
    inputs: tree of arrays [S, ...], an entry for each step.
    platform: of the devices, see `mesh.platform`.
    batches: on how many batches at once frozen networks run; None leaves it to
      the platform, the sizes, and the objectives.

  Returns:
    The state after them, and their metrics, [S] each.
  """
  length = len(jax.tree.leaves(inputs)[0])
  first = jax.tree.map(lambda x: x[0], inputs)
  fold, prepared = folds(platform), cast(Any, step)
  if isinstance(step, Step) and step.runs_frozen:
    spec = jax.eval_shape(batch_of, first)
    if length > 1:
      at_once = min(length, _at_once(step, state, spec, platform, batches))
      if at_once > 1:
        return _in_groups(step, batch_of, state, inputs, at_once, spec, fold)
    networks = step.networks(state, spec['image'], fold=fold)

    def prepared(state, batch):
      return step.update(state, batch, networks(batch['image']))

  def one(state, inputs):
    return prepared(state, batch_of(inputs))

  if length > 1:
    return lax.scan(one, state, inputs)
  state, metrics = one(state, first)  # no loop around the convolutions
  return state, jax.tree.map(lambda x: x[None], metrics)


def _at_once(
  step: Step, state: State, batch: Batch, platform: str, batches: int | None
) -> int:
  """Returns on how many batches at once the frozen networks run."""
  if batches is not None:
    return batches
  number = BATCHES.get(platform, 1)
  number = min(number, PIXELS // math.prod(batch['image'].shape[:3]))
  if number <= 1:
    return 1
  kept = jax.tree.leaves(step.kept(state, batch))
  size = sum(math.prod(x.shape) * x.dtype.itemsize for x in kept)
  return max(1, min(number, BYTES // max(1, size)))


def _in_groups(
  step: Step,
  batch_of: Callable[[Any], Batch],
  state: State,
  inputs: Any,
  at_once: int,
  spec: Batch,
  fold: bool,
) -> tuple[State, Metrics]:
  """Makes several steps, with frozen networks on several batches at once.

  Args:
    step: with frozen networks.
    batch_of: see `steps`.
    state: before.
    inputs: see `steps`.
    at_once: batches; the last group has the rest.
    spec: shapes and types of a batch.
    fold: see `frozen.networks`.
  """
  length = len(jax.tree.leaves(inputs)[0])
  groups, rest = divmod(length, at_once)
  whole = groups * at_once
  wanted, parts = step.needed(state, spec), []

  def group_of(size):
    shape = (spec['image'].shape[0] * size, *spec['image'].shape[1:])
    image = jax.ShapeDtypeStruct(shape, spec['image'].dtype)
    networks = step.networks(state, image, wanted, fold)

    def group(state, inputs):
      several = jax.vmap(batch_of)(inputs)
      outputs = _split(networks(_merged(several['image'])), size)
      return lax.scan(
        lambda s, x: step.update(s, *x), state, (several, outputs)
      )

    return group

  if groups:
    own = jax.tree.map(
      lambda x: x[:whole].reshape(groups, at_once, *x.shape[1:]), inputs
    )
    state, metrics = lax.scan(group_of(at_once), state, own)
    parts.append(jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), metrics))
  if rest:
    own = jax.tree.map(lambda x: x[whole:], inputs)
    state, metrics = group_of(rest)(state, own)
    parts.append(metrics)
  return state, jax.tree.map(lambda *x: jnp.concatenate(x), *parts)


def _merged(image: Array) -> Array:
  """Returns batches [n, B, ...] as one, [B n, ...].

  Images of one place in their batches lie side by side, so that each device has
  those that it had.
  """
  image = jnp.swapaxes(image, 0, 1)
  return image.reshape(-1, *image.shape[2:])


def _split(outputs: dict[str, Outputs], batches: int) -> dict[str, Outputs]:
  """Inverts `_merged` for what has an entry for each image, [n, B, ...].

  The norms are the same for all images, and are repeated.
  """

  def of_images(x):
    return jnp.swapaxes(x.reshape(-1, batches, *x.shape[1:]), 0, 1)

  def of_all(x):
    return jnp.broadcast_to(x, (batches, *x.shape))

  return {
    name: Outputs(
      of_images(own.logits),
      jax.tree.map(of_images, own.taps),
      jax.tree.map(of_all, own.norms),
    )
    for name, own in outputs.items()
  }
