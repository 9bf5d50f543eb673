"""One phase, from what is known before it to what is known after it."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from tqdm import tqdm

from jaxkd import reparam, tree
from jaxkd.data.base import Dataset
from jaxkd.graph import OBJECTIVES
from jaxkd.graph.program import Program
from jaxkd.train import mesh as meshes
from jaxkd.train import state as states
from jaxkd.train.checkpoint import Checkpoints
from jaxkd.train.evaluation import Evaluator
from jaxkd.train.feed import Feed, steps_per_epoch
from jaxkd.train.log import Log
from jaxkd.train.loop import Loop, Record
from jaxkd.train.step import make_step
from jaxkd.types import Tree, Variables


@dataclasses.dataclass(frozen=True)
class Task:
  """All that a phase's training is a function of, besides known weights.

  name: of the phase.
  program: its graph, with modules.
  dataset: to train and to test on.
  mesh: the devices.
  optimizer: over the learning owners.
  epochs: to train.
  length: of the phase, in epochs, for which weights and objectives are made;
    more than `epochs` where the training is stopped early.
  batch_size: over all devices.
  seed: of initial values, order, views and the step.
  ema: decay of the weights' moving average; 0 carries none.
  every_steps: saves inside an epoch; 0 saves after each epoch only.
  """

  name: str
  program: Program
  dataset: Dataset
  mesh: Mesh
  optimizer: optax.GradientTransformation
  epochs: int
  length: int
  batch_size: int
  seed: int
  ema: float = 0.0
  every_steps: int = 0


@dataclasses.dataclass(frozen=True)
class Trained:
  """What a phase leaves behind.

  variables: network -> arrays of the last epoch; 'NAME_ema' where averaged.
  objectives: transfer -> what its objective has learned.
  results: the same names -> what `Evaluator` has measured of the last epoch,
    and 'best_top1_on_test'.
  record: time and throughput.
  """

  variables: dict[str, Variables]
  objectives: dict[str, Tree]
  results: dict[str, dict[str, float | None]]
  record: Record


def train_phase(
  task: Task,
  folder: pathlib.Path,
  known: Mapping[str, Variables],
  measured: Mapping[str, dict[str, float]],
) -> Trained:
  """Trains a phase, or goes on with it from its last save.

  Args:
    task: what to train.
    folder: the run's; gets checkpoints/, metrics.jsonl and tensorboard/.
    known: variables by network, from checkpoints and earlier phases, and what
      objectives have learned; see `state.init`.
    measured: by frozen network, what `Evaluator` has said of it already.

  Raises:
    ValueError: known weights do not fit a network; the loss is lost.
  """
  known = fitted(task.program, known, task.seed)
  feed = Feed(
    dataset=task.dataset,
    mesh=task.mesh,
    batch_size=task.batch_size,
    seed=task.seed,
    step=make_step(
      task.program,
      task.optimizer,
      seed=task.seed,
      steps_per_epoch=steps_per_epoch(task.dataset, task.batch_size),
      epochs=task.length,
      ema=task.ema,
    ),
  )
  checkpoints = Checkpoints(folder / 'checkpoints' / task.name)
  state, record = start(task, known, checkpoints)
  log = Log(folder, task.name, int(state.step))
  test = Evaluator(task.dataset, task.mesh)
  loop = Loop(
    phase=task.name,
    program=task.program,
    feed=feed,
    test=test,
    epochs=task.epochs,
    checkpoints=checkpoints,
    log=log,
    every_steps=task.every_steps,
  )
  for name in task.program.graph.frozen:
    module = task.program.modules[name]
    result = measured.get(name) or test(module, known[name])
    record.last[name] = result
    tqdm.write(
      f'{task.name}: {name}, frozen, {100 * result["top1"]:.2f} % top-1 on'
      f' {len(task.dataset.test):,} test images'
    )
  state = loop.run(state, record)
  checkpoints.close()
  log.close()
  return _trained(task, state, record)


def fitted(
  program: Program, known: Mapping[str, Variables], seed: int
) -> dict[str, Variables]:
  """Returns what is known of the program's starts, in their structure.

  Args:
    program: the graph with its modules.
    known: variables by network, and what objectives have learned.
    seed: of what is drawn: the branches of a network that is known without.
      (Of one that is known with branches and has none, they are merged.)

  Raises:
    ValueError: with every array that is missing, extra or of another shape.
  """
  found = {}
  for name in program.init_modules:
    source = program.starts_from(name)
    if source not in known:
      continue
    init = functools.partial(program.init_network, name)
    key, variables = initial_key(seed), known[source]
    shapes = jax.eval_shape(init, key)
    wants, has = (
      bool(reparam.branched_prefixes(x['params'])) for x in (shapes, variables)
    )
    if wants and not has:
      variables = reparam.add_branches(variables, jax.jit(init)(key))
    what = f'the checkpoint of {source!r}'
    if has and not wants:
      merged, module = reparam.merge(variables), program.init_modules[name]
      variables = reparam.fold_biases(merged, module, program.input_shape, what)
    found[name] = tree.fit(variables, shapes, what)
  names = {transfer.name for transfer in program.graph.transfers}
  own = {n: x for n, x in known.get(OBJECTIVES, {}).items() if n in names}
  return {**found, OBJECTIVES: own} if own else found


def initial_key(seed: int) -> jax.Array:
  """Returns the key that initial values are drawn with.

  They are many small draws, which XLA compiles three times faster from its own
  generator than from threefry.
  """
  return jax.random.key(seed, impl='rbg')


def start(
  task: Task, known: Mapping[str, Variables], checkpoints: Checkpoints
) -> tuple[states.State, Record]:
  """Returns the last save, or the state before the first step.

  Args:
    task: what to train.
    known: variables by name of a start, in the structure of its module.
    checkpoints: where saves would be.
  """
  init = jax.jit(
    functools.partial(
      states.init,
      task.program,
      task.optimizer,
      examples=len(task.dataset.train),
      ema=bool(task.ema),
    ),
    out_shardings=meshes.whole(task.mesh),
  )
  state, record = init(initial_key(task.seed), known), Record()
  if checkpoints.latest() is not None:
    state, saved = checkpoints.restore(state)
    record = Record(**saved)
    tqdm.write(f'{task.name}: goes on after step {int(state.step)}')
  return state, record


def _trained(task: Task, state: states.State, record: Record) -> Trained:
  variables = states.variables_of(task.program, state)
  averages = states.averages_of(task.program, state)
  everything = {**variables, **{f'{n}_ema': v for n, v in averages.items()}}
  return Trained(
    variables=jax.tree.map(np.asarray, everything),
    objectives=jax.tree.map(np.asarray, state.params.get(OBJECTIVES, {})),
    results={
      name: {**result, 'best_top1_on_test': record.best.get(name)}
      for name, result in record.last.items()
    },
    record=record,
  )
