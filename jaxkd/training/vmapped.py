"""One phase for several seeds at once, in memory: whole trainings under `vmap`.

For networks so small that each training alone would mostly wait for Python.
Nothing is saved before the end. On a CPU, networks with convolutions are faster
one by one, since the steps are in a loop here.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from jaxkd.data import batches
from jaxkd.data.base import Split
from jaxkd.graph.program import predict
from jaxkd.training import bulk
from jaxkd.training import mesh as meshes
from jaxkd.training import state as states
from jaxkd.training.divergence import DivergedError
from jaxkd.training.feed import steps_per_epoch
from jaxkd.training.initial import initial_key, module_variables
from jaxkd.training.phase import Task
from jaxkd.training.step import make_step
from jaxkd.types import Array, Tree, Variables


class Outcome(NamedTuple):
  """The result of one seed's training.

  last: network -> variables after the last epoch; 'NAME_ema' -> their moving
    average, if the task has one.
  best: trained network -> variables after the epoch with the best headline on
    the validation split, the first among equals; without a validation split,
    after the last epoch.
  objectives: transfer -> parameters that its objective has learned.
  """

  last: dict[str, Variables]
  best: dict[str, Variables]
  objectives: dict[str, Tree]


class _Progress(NamedTuple):
  """One seed's training between two epochs.

  state: of the training.
  headline: trained network -> its best headline on the validation split.
  best: trained network -> variables after that epoch.
  """

  state: states.State
  headline: dict[str, Array]
  best: dict[str, Variables]


def train_together(
  tasks: Sequence[Task],
  initial: Sequence[Mapping[str, Variables]],
  carried: Sequence[Mapping[str, Tree]] | None = None,
) -> list[Outcome]:
  """Trains one phase for several seeds.

  Each is trained as it would be alone, up to rounding.

  Args:
    tasks: one for each seed; they differ in the seed and the data only, whose
      splits are in memory and of one size.
    initial: for each, initial variables by network.
    carried: for each, by transfer, what objectives have learned in earlier
      phases; see `state.init`.

  Raises:
    ValueError: initial variables do not fit a network.
    DivergedError: a loss is NaN or infinite.
  """
  task, size = tasks[0], len(tasks[0].dataset.train)
  seeds = np.array([task.seed for task in tasks])
  # Each device trains as many of the seeds as the others do.
  devices = task.mesh.devices.flat[: math.gcd(task.mesh.size, len(tasks))]
  mesh = meshes.make_mesh(devices.tolist())
  put = functools.partial(_stack, meshes.batch_split(mesh, len(tasks)))
  start = jax.jit(functools.partial(_start, task))
  variables = functools.partial(module_variables, task.program)
  progress = put(
    [
      start(initial_key(each.seed), variables(own, each.seed), kept)
      for each, own, kept in zip(
        tasks, initial, carried or [{}] * len(tasks), strict=True
      )
    ]
  )
  train = put([_stored(task.dataset.train) for task in tasks])
  held_out = put([_stored(task.dataset.validation) for task in tasks])
  one = functools.partial(_epoch, task)
  axes = (0, 0, 0, 0, 0, 0, None)
  many = jax.jit(jax.vmap(one, in_axes=axes), donate_argnums=0)
  for epoch in range(task.epochs):
    full, rest = put(
      [
        batches.train_batches(size, task.batch_size, int(seed), epoch)
        for seed in seeds
      ]
    )
    progress, loss = many(
      progress, train, held_out, seeds, full, rest, np.int32(epoch)
    )
    _check_finite(task, epoch, seeds, np.asarray(loss))
  last = jax.vmap(functools.partial(_everything, task))(progress.state)
  outcomes = Outcome(last, progress.best, progress.state.objectives)
  outcomes = jax.tree.map(np.asarray, outcomes)
  return [
    jax.tree.map(lambda leaf, n=n: leaf[n], outcomes) for n in range(len(tasks))
  ]


def _check_finite(
  task: Task, epoch: int, seeds: np.ndarray, losses: np.ndarray
) -> None:
  """Raises DivergedError for the first seed whose loss is not finite."""
  for seed, loss in zip(seeds, losses, strict=True):
    if not np.isfinite(loss):
      raise DivergedError(
        f'the training loss of seed {seed} is'
        f' {"NaN" if np.isnan(loss) else "infinite"} in epoch {epoch + 1} of'
        f' {task.epochs}, phase {task.name}; try a lower'
        ' --config.optimizer.learning_rate'
      )


def _start(
  task: Task,
  key: Array,
  initial: Mapping[str, Variables],
  carried: Mapping[str, Tree],
) -> _Progress:
  """Returns one seed's training before its first epoch; see `state.init`."""
  state = states.init(
    task.program,
    task.optimizer,
    key,
    initial,
    carried,
    examples=len(task.dataset.train),
    ema=bool(task.ema),
  )
  variables = states.variables_of(task.program, state)
  trained = task.program.graph.trained
  return _Progress(
    state,
    {name: jnp.float32(-1) for name in trained},
    {name: variables[name] for name in trained},
  )


def _everything(task: Task, state: states.State) -> dict[str, Variables]:
  """Returns every network, and as NAME_ema every moving average."""
  averages = states.averages_of(task.program, state)
  return {
    **states.variables_of(task.program, state),
    **{f'{name}_ema': average for name, average in averages.items()},
  }


def _stored(split: Split | None) -> batches.StoredSplit | None:
  """Returns a split's examples; None if there is no split."""
  if split is None:
    return None
  stored = batches.stored_split(split)
  if stored is None:
    raise ValueError(
      'seeds can be trained together on data in memory only: set'
      ' --config.study.together=False'
    )
  rows = {k: x for k, x in stored.rows.items() if k != 'posterior'}
  return dataclasses.replace(stored, rows=rows)


def _stack(sharding: NamedSharding, trees: Sequence[Any]) -> Any:
  whole = jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
  return jax.device_put(whole, sharding)


def _epoch(
  task: Task,
  progress: _Progress,
  train: batches.StoredSplit,
  held_out: batches.StoredSplit | None,
  seed: Array,
  full: Array,
  rest: Array,
  epoch: Array,
) -> tuple[_Progress, Array]:
  """Trains one seed for one epoch.

  Args:
    task: any seed's; its own seed and data are not used.
    progress: before the epoch.
    train: the training split.
    held_out: the validation split; None if there is no such split.
    seed: of the run.
    full: int32 [S, B], the examples of each step.
    rest: int32 [R], those of the last, smaller one; R may be 0.
    epoch: counted from 0.

  Returns:
    The progress after the epoch, and the sum of the steps' losses.
  """
  step = make_step(
    task.program,
    task.optimizer,
    seed=seed,
    steps_per_epoch=steps_per_epoch(task.dataset, task.batch_size),
    epochs=task.length,
    ema=task.ema,
  )

  def batch_of(index):
    raw = batches.gather(train, index)
    return task.problem.train_view(raw, epoch, seed, task.dataset.view)

  platform = meshes.platform(task.mesh)
  state, loss = progress.state, jnp.zeros(())
  for indices in (full, rest[None]):
    if indices.size:
      state, metrics = bulk.steps(step, batch_of, state, indices, platform)
      loss += jnp.sum(metrics['loss'])
  return _with_best(task, progress, state, held_out), loss


def _with_best(
  task: Task,
  before: _Progress,
  state: states.State,
  held_out: batches.StoredSplit | None,
) -> _Progress:
  """Returns the progress after an epoch, which may be the best one so far."""
  variables = states.variables_of(task.program, state)
  headline, best = {}, {}
  for name in task.program.graph.trained:
    old, new = before.best[name], variables[name]
    better, headline[name] = jnp.bool(True), before.headline[name]
    if held_out:
      value = _headline(task, name, new, held_out)
      better = value > headline[name]
      headline[name] = jnp.maximum(value, headline[name])
    best[name] = jax.tree.map(
      lambda x, y, better=better: jnp.where(better, y, x), old, new
    )
  return _Progress(state, headline, best)


def _headline(
  task: Task, name: str, variables: Variables, held_out: batches.StoredSplit
) -> Array:
  """Returns the headline of network `name` on the validation split."""
  size = len(held_out.rows['label'])
  raw = batches.gather(held_out, jnp.arange(size))
  batch = task.problem.eval_view(raw, jnp.ones(size), task.dataset.view)
  logits = predict(task.program.modules[name], variables, batch['image']).logits
  return task.problem.metrics(logits, batch)[task.problem.headline]
