"""The joint state of a training: one tree, born sharded, restored in shape."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxkd import tree
from jaxkd.catalog import UnknownNameError
from jaxkd.graph import OBJECTIVES, Update
from jaxkd.graph.program import Program
from jaxkd.types import Array, Tree, Variables


class State(NamedTuple):
  """Everything that a step reads and writes, besides the batch.

  step: int32 scalar, steps done.
  params: owner -> tree; also 'objectives' -> transfer -> tree.
  stats: network -> BatchNorm statistics; a sharing network has its own.
  memory: transfer -> banks and centroids, never differentiated.
  opt: for each of the graph's updates, the optimizer's state over what it
    changes.
  ema: {'params': owner -> tree, 'stats': network -> tree}, or {}.
  """

  step: Array
  params: dict[str, Tree]
  stats: dict[str, Tree]
  memory: dict[str, Tree]
  opt: tuple[optax.OptState, ...]
  ema: dict[str, dict[str, Tree]]


def learned(params: Mapping[str, Tree], update: Update) -> dict[str, Tree]:
  """Returns the part of the parameters that an update changes."""
  found = {name: params[name] for name in update.learners}
  names = {transfer.name for transfer in update.transfers}
  own = {n: x for n, x in params.get(OBJECTIVES, {}).items() if n in names}
  return {**found, OBJECTIVES: own} if own else found


def merged(
  params: Mapping[str, Tree], new: Mapping[str, Tree]
) -> dict[str, Tree]:
  """Returns the parameters, with the new values of those that have any."""
  if OBJECTIVES in new:
    own = {**params.get(OBJECTIVES, {}), **new[OBJECTIVES]}
    return {**params, **new, OBJECTIVES: own}
  return {**params, **new}


def init(
  program: Program,
  optimizer: optax.GradientTransformation,
  key: Array,
  known: Mapping[str, Variables],
  *,
  examples: int,
  ema: bool = False,
) -> State:
  """Returns the state before the first step.

  Args:
    program: the graph with its modules.
    optimizer: over the learning owners.
    key: the run's.
    known: variables by name of a start, from checkpoints and earlier phases;
      every frozen network must be there. The others start from random values.
      Under 'objectives', by transfer, what objectives have learned in earlier
      phases and go on with.
    examples: size of the training set.
    ema: whether to carry the moving average of what is learned.

  Raises:
    KeyError: a frozen network without variables.
    ValueError: an objective cannot go on with what it has learned.
  """
  params, stats = {}, {}
  for name in program.graph.networks:
    if name in program.graph.frozen and name not in known:
      raise UnknownNameError(
        f'{name!r} is frozen and has no weights: train it in an earlier'
        f' phase, or name its checkpoint'
      )
    variables = program.initial_variables(name, key, known)
    stats[name] = variables['batch_stats']
    if program.graph.owner(name) == name:
      params[name] = variables['params']
  own, memory = (
    _continued(fresh, known.get(OBJECTIVES, {}))
    for fresh in program.init_objectives(key, examples)
  )
  if own:
    params[OBJECTIVES] = own
  updates = program.graph.updates()
  trained: dict[str, Tree] = {}
  for update in updates:
    trained = merged(trained, learned(params, update))
  # A copy, since the step donates both.
  average = jax.tree.map(jnp.copy, {'params': trained, 'stats': stats})
  return State(
    step=jnp.zeros((), jnp.int32),
    params=params,
    stats=stats,
    memory=memory,
    opt=tuple(optimizer.init(learned(params, u)) for u in updates),
    ema=average if ema else {},
  )


def _continued(
  own: Mapping[str, Tree], known: Mapping[str, Tree]
) -> dict[str, Tree]:
  """Returns what objectives start with, in parts from earlier phases.

  Args:
    own: by transfer, parameters (or, where they learn no more, memory) by name
      of a part.
    known: parameters likewise, of some transfers and parts.
  """

  def part(transfer: str, name: str, fresh: Tree) -> Tree:
    found = known.get(transfer, {}).get(name)
    what = f'what {transfer!r} has learned in an earlier phase as {name!r}'
    return fresh if found is None else tree.fit(found, fresh, what)

  return {
    transfer: {name: part(transfer, name, x) for name, x in parts.items()}
    for transfer, parts in own.items()
  }


def variables_of(program: Program, state: State) -> dict[str, Variables]:
  """Returns every network's variables, sharing ones resolved."""
  params = program.resolve(state.params)
  return {
    name: {'params': params[name], 'batch_stats': state.stats[name]}
    for name in program.modules
  }


def averages_of(program: Program, state: State) -> dict[str, Variables]:
  """Returns the trained networks' moving averages, by network; {} if none."""
  if not state.ema:
    return {}
  params = program.resolve({**state.params, **state.ema['params']})
  return {
    name: {'params': params[name], 'batch_stats': state.ema['stats'][name]}
    for name in program.graph.trained
  }
