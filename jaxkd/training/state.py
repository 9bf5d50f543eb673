"""The joint state of a training: one tree."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxkd import tree
from jaxkd.catalog import UnknownNameError
from jaxkd.graph import OBJECTIVES, Update
from jaxkd.graph.program import Program
from jaxkd.models import Precomputed
from jaxkd.types import Array, Tree, Variables


class State(NamedTuple):
  """Everything that a step reads and writes, besides the batch.

  step: int32 scalar, steps done.
  params: owner -> parameters.
  objectives: transfer -> parameters of its objective, of those that have any.
  stats: network -> BatchNorm statistics; a sharing network has its own.
  memory: transfer -> banks and centroids, never differentiated.
  opt: for each of the graph's updates, the optimizer's state for the parameters
    that it changes.
  ema: {'params': owner -> tree, 'stats': network -> tree}, or {}.
  """

  step: Array
  params: dict[str, Tree]
  objectives: dict[str, Tree]
  stats: dict[str, Tree]
  memory: dict[str, Tree]
  opt: tuple[optax.OptState, ...]
  ema: dict[str, dict[str, Tree]]


def trainable(state: State, update: Update) -> dict[str, Tree]:
  """Returns the parameters that an update changes, as the optimizer sees them.

  They are those of its learners, by name, and under 'objectives' those of its
  transfers' objectives, where any has some.
  """
  params = {name: state.params[name] for name in update.learners}
  names = {transfer.name for transfer in update.transfers}
  own = {name: x for name, x in state.objectives.items() if name in names}
  return {**params, OBJECTIVES: own} if own else params


def replaced(state: State, values: Mapping[str, Tree]) -> State:
  """Returns the state with new values of some parameters.

  Args:
    state: before.
    values: owner -> parameters, and 'objectives' -> transfer -> parameters, as
      `trainable` returns them.
  """
  networks = {name: x for name, x in values.items() if name != OBJECTIVES}
  return state._replace(
    params={**state.params, **networks},
    objectives={**state.objectives, **values.get(OBJECTIVES, {})},
  )


def init(
  program: Program,
  optimizer: optax.GradientTransformation,
  key: Array,
  initial: Mapping[str, Variables],
  carried: Mapping[str, Tree] | None = None,
  *,
  examples: int,
  ema: bool = False,
) -> State:
  """Returns the state before the first step.

  Args:
    program: the graph with its modules.
    optimizer: of the learning owners and the objectives.
    key: the run's.
    initial: initial variables by network, from checkpoints and earlier phases.
      Every frozen network must be in it. Networks that are not in it are
      initialised at random.
    carried: transfer -> parameters that its objective has learned in an earlier
      phase, from which it starts.
    examples: size of the training set.
    ema: whether to carry the moving average of the trained networks.

  Raises:
    KeyError: a frozen network without variables.
    ValueError: carried parameters do not fit an objective.
  """
  params, stats = {}, {}
  for name in program.graph.networks:
    frozen = name in program.graph.frozen and name not in initial
    if frozen and not isinstance(program.modules[name], Precomputed):
      raise UnknownNameError(
        f'{name!r} is frozen and has no variables: train it in an earlier'
        ' phase, or name its checkpoint'
      )
    variables = program.initial_variables(name, key, initial)
    stats[name] = variables['batch_stats']
    if program.graph.owner(name) == name:
      params[name] = variables['params']
  objectives, memory = (
    _initial_parts(fresh, carried or {})
    for fresh in program.init_objectives(key, examples)
  )
  learners = {name: params[name] for name in program.graph.learners}
  # A copy, since the step donates both.
  average = jax.tree.map(jnp.copy, {'params': learners, 'stats': stats})
  state = State(
    step=jnp.zeros((), jnp.int32),
    params=params,
    objectives=objectives,
    stats=stats,
    memory=memory,
    opt=(),
    ema=average if ema else {},
  )
  updates = program.graph.updates()
  opt = tuple(optimizer.init(trainable(state, update)) for update in updates)
  return state._replace(opt=opt)


def _initial_parts(
  fresh: Mapping[str, Tree], carried: Mapping[str, Tree]
) -> dict[str, Tree]:
  """Returns the parts that objectives start with: carried ones, or else fresh.

  Args:
    fresh: transfer -> part -> its parameters, or its memory. A part that an
      earlier phase has trained may be memory now, which is not trained.
    carried: transfer -> part -> parameters, of some transfers and parts.
  """

  def part(transfer: str, name: str, fresh: Tree) -> Tree:
    own = carried.get(transfer, {}).get(name)
    what = f'the part {name!r} of {transfer!r} from an earlier phase'
    return fresh if own is None else tree.fit(own, fresh, what)

  return {
    transfer: {name: part(transfer, name, x) for name, x in parts.items()}
    for transfer, parts in fresh.items()
  }


def variables_of(program: Program, state: State) -> dict[str, Variables]:
  """Returns every network's variables: sharing ones get slices of owners'."""
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
