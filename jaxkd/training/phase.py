"""The training of one phase: from initial variables to trained ones."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from jaxkd import tree
from jaxkd.data.base import Dataset
from jaxkd.graph.program import Program
from jaxkd.problems import Problem
from jaxkd.training import mesh as meshes
from jaxkd.training import precomputed, samples, tables
from jaxkd.training import state as states
from jaxkd.training.cached import Cache
from jaxkd.training.checkpoint import Checkpoints
from jaxkd.training.divergence import undefined
from jaxkd.training.evaluation import Evaluator
from jaxkd.training.feed import Feed, steps_per_epoch
from jaxkd.training.guides import Guide, Stored
from jaxkd.training.initial import initial_key, module_variables
from jaxkd.training.log import Log, Tracker
from jaxkd.training.loop import Callback, Loop, Record
from jaxkd.training.precomputed import Source
from jaxkd.training.progress import Forecast, Part, say
from jaxkd.training.step import make_step
from jaxkd.types import Tree, Variables


@dataclasses.dataclass(frozen=True)
class Task:
  """All that a phase's training is a function of, besides initial variables.

  name: of the phase.
  program: its graph, with modules.
  dataset: to train and to test on.
  problem: that the data set poses.
  mesh: the devices.
  optimizer: of the learning owners and the objectives.
  epochs: to train.
  length: of the phase, in epochs, for which weights and objectives are made;
    more than `epochs` where the training is stopped early.
  batch_size: over all devices.
  seed: of random initialisation, order, views and the step.
  ema: decay of the weights' moving average; 0: no average.
  every_steps: saves inside an epoch; 0 saves after each epoch only.
  sources: where the logits of the program's `precomputed` networks come from.
  rates: the schedules of the optimizer's learning rates, to be logged: by
    owner, or '' -> that of all.
  """

  name: str
  program: Program
  dataset: Dataset
  problem: Problem
  mesh: Mesh
  optimizer: optax.GradientTransformation
  epochs: int
  length: int
  batch_size: int
  seed: int
  ema: float = 0.0
  every_steps: int = 0
  sources: Mapping[str, Source] = dataclasses.field(default_factory=dict)
  rates: Mapping[str, optax.Schedule] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Trained:
  """The results of a phase.

  variables: network -> its variables after the last epoch; 'NAME_ema' -> their
    moving average, if the task has one.
  objectives: transfer -> parameters that its objective has learned.
  results: the same names -> metrics on the test split after the last epoch, and
    `Problem.best`.
  record: time and throughput.
  """

  variables: dict[str, Variables]
  objectives: dict[str, Tree]
  results: dict[str, dict[str, float | None]]
  record: Record


def train_phase(
  task: Task,
  folder: pathlib.Path,
  initial: Mapping[str, Variables],
  carried: Mapping[str, Tree] | None = None,
  results: Mapping[str, dict[str, float]] | None = None,
  callbacks: Sequence[Callback] = (),
  *,
  tensorboard: bool = True,
  trackers: Sequence[Tracker] = (),
  forecast: Forecast | None = None,
) -> Trained:
  """Trains a phase, or resumes its training from its last save.

  Args:
    task: what to train.
    folder: the run's; gets checkpoints/, metrics.jsonl and tensorboard/.
    initial: initial variables by network, from checkpoints and earlier phases.
    carried: by transfer, what objectives have learned in earlier phases; see
      `state.init`.
    results: by frozen network, its metrics if it was evaluated before.
    callbacks: called after each epoch; one that returns True ends the phase.
    tensorboard: whether to write TensorBoard events.
    trackers: other places where metrics go.
    forecast: of the time that is left of the run; None: of the phase.

  Raises:
    ValueError: initial variables do not fit a network.
    DivergedError: a loss is NaN or infinite.
  """
  initial = module_variables(task.program, initial, task.seed)
  checkpoints = Checkpoints(folder / 'checkpoints' / task.name)
  state, record = start(task, initial, checkpoints, carried)
  done = int(state.step)
  log = Log(folder, task.name, done, tensorboard=tensorboard, trackers=trackers)
  _show_images(task, log, done)
  data = task.dataset
  test = Evaluator(data.test, data.view, task.problem, task.mesh)
  feed = feed_of(task, initial=initial)
  loop = Loop(
    phase=task.name,
    program=task.program,
    problem=task.problem,
    feed=feed,
    test=test,
    epochs=task.epochs,
    checkpoints=checkpoints,
    log=log,
    forecast=forecast or _forecast(task),
    rates=task.rates,
    every_steps=task.every_steps,
    callbacks=callbacks,
    undefined=functools.partial(_undefined, task, initial),
  )
  record.last |= _test_frozen(task, test, initial, results or {})
  state = loop.run(state, record)
  _close_caches(feed)
  checkpoints.close()
  log.close()
  return _trained(task, state, record)


def _forecast(task: Task) -> Forecast:
  """Returns the forecast of a phase that is not a part of a run."""
  train, test = len(task.dataset.train), len(task.dataset.test)
  steps = steps_per_epoch(task.dataset, task.batch_size)
  # A step has two passes backwards besides that of a test.
  part = Part(task.name, task.epochs, steps, cost=3.0 * train, test_cost=test)
  return Forecast([part])


def _show_images(task: Task, log: Log, done: int) -> None:
  """Logs a picture of the first batch, as it is augmented, before any step."""
  if done or not log.trackers:
    return
  views = precomputed.views_of(task.sources)
  seed = views.seed if views else task.seed
  pixels = samples.grid(
    task.dataset, task.problem, task.batch_size, task.seed, seed
  )
  if pixels is not None:
    log.picture('train_images', pixels)


def _test_frozen(
  task: Task,
  test: Evaluator,
  variables: Mapping[str, Variables],
  results: Mapping[str, dict[str, float]],
) -> dict[str, dict[str, float]]:
  """Returns the test results of the frozen networks, after printing them.

  Args:
    task: with the networks.
    test: evaluates them.
    variables: by network.
    results: of those that were evaluated before.
  """
  tested = {}
  for name in task.program.graph.frozen:
    module = task.program.modules[name]
    tested[name] = results.get(name) or test(module, variables[name])
    say(_frozen_line(task, name, tested[name]))
  return tested


def _frozen_line(task: Task, name: str, result: Mapping[str, float]) -> str:
  """Returns a line about the test result of a frozen network."""
  problem = task.problem
  label = problem.displays[problem.headline].label
  return (
    f'{task.name}: {name}, frozen, {problem.show_headline(result)} {label} on'
    f' {len(task.dataset.test):,} test images'
  )


def _undefined(task: Task, variables: Mapping[str, Variables]) -> list[str]:
  """Returns the frozen networks whose outputs on training images are NaN."""
  dataset = task.dataset
  test = Evaluator(dataset.train, dataset.view, task.problem, task.mesh)
  return undefined(task.program, variables, test)


def feed_of(
  task: Task,
  chunk: int | None = None,
  initial: Mapping[str, Variables] | None = None,
) -> Feed:
  """Returns the feed of a task's training split to its step.

  Args:
    task: what to train.
    chunk: see `Feed`.
    initial: variables of the networks among the task's sources, as
      `module_variables` returns them.
  """
  step = make_step(
    task.program,
    task.optimizer,
    seed=task.seed,
    steps_per_epoch=steps_per_epoch(task.dataset, task.batch_size),
    epochs=task.length,
    ema=task.ema,
    measure=task.problem.metrics,
  )
  return Feed(
    dataset=task.dataset,
    problem=task.problem,
    mesh=task.mesh,
    batch_size=task.batch_size,
    seed=task.seed,
    step=step,
    chunk=chunk,
    guides={n: guide_of(task, n, (initial or {}).get(n)) for n in task.sources},
    views=precomputed.views_of(task.sources),
  )


def guide_of(task: Task, name: str, variables: Variables | None) -> Guide:
  """Returns the outputs of a network that the step does not run.

  Args:
    task: with the source of the network's outputs.
    name: of the network.
    variables: its arrays, if it is a network.

  Raises:
    OSError: there is no space for its view cache.
    ValueError: stored outputs are those of other images; its view cache would
      be larger than it may be.
  """
  source, dataset = task.sources[name], task.dataset
  if source.store:
    precomputed.check_store(source.store, dataset, source)
    shapes = precomputed.output_shapes(task.program, name)
    return Stored(source.store, shapes)
  views = precomputed.views_of(task.sources)
  live = precomputed.live(
    source,
    task.program,
    name,
    variables,
    dataset=dataset,
    problem=task.problem,
    mesh=task.mesh,
    seed=views.seed if views else task.seed,
  )
  if source.cache is None:
    return live
  identity = {
    **source.network,
    'variables': tree.digest(variables or {}),
    **tables.computed_by(source.cache, task.mesh, task.batch_size),
  }
  header = tables.cache_header(dataset, source, live.shapes, identity)
  cache = tables.open_cache(
    source,
    header,
    live,
    task.epochs,
    task.batch_size,
    tables.numbers(dataset, live.seed),
  )
  say(
    f'{task.name}: outputs of {name} are kept in {cache}, at most'
    f' {header.size:,} bytes'
  )
  return cache


def _close_caches(feed: Feed) -> None:
  """Closes the view caches, and says how much they have saved."""
  for name, guide in feed.guides.items():
    if isinstance(guide, Cache):
      guide.close()
      say(
        f'{name}: {guide.hits:,} outputs came from the view cache,'
        f' {guide.misses:,} were computed'
      )


def start(
  task: Task,
  initial: Mapping[str, Variables],
  checkpoints: Checkpoints,
  carried: Mapping[str, Tree] | None = None,
) -> tuple[states.State, Record]:
  """Returns the last save, or the state before the first step.

  Args:
    task: what to train.
    initial: as `module_variables` returns them.
    checkpoints: where saves would be.
    carried: by transfer, what objectives have learned in earlier phases.
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
  state = init(initial_key(task.seed), initial, carried or {})
  record = Record()
  if checkpoints.latest() is not None:
    state, saved = checkpoints.restore(state)
    record = Record(**saved)
    say(f'{task.name}: resumed after step {int(state.step)}')
  return state, record


def _trained(task: Task, state: states.State, record: Record) -> Trained:
  variables = states.variables_of(task.program, state)
  averages = states.averages_of(task.program, state)
  everything = {**variables, **{f'{n}_ema': v for n, v in averages.items()}}
  return Trained(
    variables=jax.tree.map(np.asarray, everything),
    objectives=jax.tree.map(np.asarray, state.objectives),
    results={
      name: {**result, task.problem.best: record.best.get(name)}
      for name, result in record.last.items()
    },
    record=record,
  )
