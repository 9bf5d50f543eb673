"""Networks whose variables stay as they are: prepared once, run many times.

They are the frozen networks of a training, and any network in an evaluation.
What depends on variables alone is computed when they are prepared, above all
kernels and biases with BatchNorms folded into them, see `reparam.two_parts`.

On CPUs networks are left as they are: there, XLA computes a layer and its
BatchNorm in one pass, and folding is measured to gain nothing.
"""

import dataclasses
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxkd.catalog import lookup
from jaxkd.graph.program import Program, predict
from jaxkd.models import norms
from jaxkd.reparam import programs, two_parts
from jaxkd.training.state import State
from jaxkd.types import Array, Batch, Outputs, Variables

UNFOLDED = ('cpu',)  # platforms, see above

# Images [B, H, W, C] -> outputs of every frozen network that is run.
Networks = Callable[[Array], dict[str, Outputs]]


def folds(platform: str) -> bool:
  """Returns whether networks are prepared on devices, see `mesh.platform`."""
  return platform not in UNFOLDED


def networks(
  program: Program,
  state: State,
  image: Any,
  wanted: Any = None,
  fold: bool = True,
) -> Networks:
  """Returns the frozen networks, prepared, as functions of images.

  Args:
    program: the graph with its modules.
    state: with the variables of the frozen networks, which no step changes.
    image: [B, H, W, C] of a batch; its shape is enough.
    wanted: by network, which of its outputs are read, as `needed` returns them;
      None: all. The others are NaN.
    fold: whether they are prepared; otherwise they run as they are.
  """
  run, params = {}, program.resolve(state.params)
  for name in running(program):
    variables = {'params': params[name], 'batch_stats': state.stats[name]}
    forward = partial(_forward, program.modules[name])
    shapes, which = jax.eval_shape(forward, variables, image), None
    if wanted is not None:
      which = wanted[name]
      forward = partial(_some, forward, which)
    values = variables
    if fold:
      parts = two_parts(forward, variables, image)
      forward, values = parts.run, parts.prepare(variables)
    run[name] = partial(_completed, forward, values, shapes, which)
  return lambda image: {name: own(image) for name, own in run.items()}


def running(program: Program) -> list[str]:
  """Returns the frozen networks whose outputs do not come with the batch."""
  return [n for n in program.graph.frozen if n not in program.precomputed]


def _forward(module: Any, variables: Any, image: Array) -> Outputs:
  return norms.apply(module, variables, image)[0]


def _some(
  forward: Callable[..., Outputs], which: Outputs, variables: Any, image: Array
) -> list[Array]:
  """Returns those outputs of which `which` is true."""
  every = jax.tree.leaves(forward(variables, image))
  pairs = zip(every, jax.tree.leaves(which), strict=True)
  return [x for x, is_wanted in pairs if is_wanted]


def _completed(
  run: Callable[..., Any],
  values: Any,
  shapes: Outputs,
  which: Outputs | None,
  image: Array,
) -> Outputs:
  """Returns a network's outputs, with NaN in place of those that nobody reads.

  Objectives look for taps by name, so that all have to be there.
  """
  results = run(values, image)
  if which is None:
    return results
  some, (every, structure) = iter(results), jax.tree.flatten(shapes)
  leaves = [
    next(some) if is_wanted else jnp.full(x.shape, jnp.nan, x.dtype)
    for x, is_wanted in zip(every, jax.tree.leaves(which), strict=True)
  ]
  return jax.tree.unflatten(structure, leaves)


def needed(
  program: Program, state: State, batch: Batch, epochs: int
) -> dict[str, Outputs]:
  """Returns which outputs of frozen networks the losses read.

  Args:
    program: the graph with its modules.
    state: shapes are enough.
    batch: likewise.
    epochs: length of the phase.

  Returns:
    By network, its outputs with True or False in place of arrays.
  """

  def forward(names, state, image, key=None):
    params = program.resolve(state.params)
    return program.forward(params, state.stats, image, names, key)[0]

  def losses(frozen, state, batch):
    key, stored = jax.random.key(0), batch.get('precomputed', {})
    trained = forward(program.graph.trained, state, batch['image'], key)
    return program.losses(
      state.objectives,
      state.memory,
      {**frozen, **stored, **trained},
      batch,
      key=key,
      epoch=jnp.zeros(()),
      epochs=epochs,
    )

  frozen = jax.eval_shape(
    partial(forward, running(program)), state, batch['image']
  )
  leaves, structure = jax.tree.flatten(frozen)
  jaxpr = jax.make_jaxpr(losses)(frozen, state, batch).jaxpr
  used = set(programs.variables(jaxpr.outvars))
  for equation in programs.live(jaxpr):
    used.update(programs.variables(equation.invars))
  return jax.tree.unflatten(
    structure, [x in used for x in jaxpr.invars[: len(leaves)]]
  )


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluated:
  """A network in eval mode, for batches of one size; made by `evaluated`.

  prepare: variables -> arrays.
  run: (these arrays, images) -> logits and some taps, float32.
  """

  prepare: Callable[[Variables], Any]
  run: Callable[[Any, Array], Outputs]


def evaluated(
  module: nn.Module,
  variables: Variables,
  image: Any,
  taps: tuple[str, ...] = (),
  fold: bool = True,
) -> Evaluated:
  """Returns a network in eval mode, the same object for equal arguments.

  Args:
    module: the network.
    variables: shapes are enough.
    image: of a batch, likewise.
    taps: the names of those to return.
    fold: see `networks`.

  Raises:
    KeyError: the network has no such tap, with suggestions.
  """
  leaves, structure = jax.tree.flatten((variables, image))
  specs = tuple((x.shape, jnp.dtype(x.dtype)) for x in leaves)
  return _evaluated(module, structure, specs, taps, fold)


# An object is a static argument of compiled functions.
@lru_cache(maxsize=64)
def _evaluated(
  module: nn.Module,
  structure: Any,
  specs: Any,
  taps: tuple[str, ...],
  fold: bool,
) -> Evaluated:
  variables, image = jax.tree.unflatten(
    structure, [jax.ShapeDtypeStruct(*spec) for spec in specs]
  )

  def forward(variables, image):
    outputs = predict(module, variables, image)
    some = {
      name: lookup('tap', outputs.taps, name).astype(jnp.float32)
      for name in taps
    }
    return Outputs(outputs.logits, some)

  if not fold:
    return Evaluated(lambda variables: variables, forward)
  parts = two_parts(forward, variables, image)
  return Evaluated(jax.jit(parts.prepare), parts.run)
