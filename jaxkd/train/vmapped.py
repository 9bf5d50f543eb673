"""One phase for several seeds at once, in memory: whole trainings under `vmap`.

For networks so small that a training of their own would mostly wait for Python.
Nothing is saved on the way. On a CPU, networks with convolutions had better be
trained one by one, since the steps are in a loop here.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding

from jaxkd.data import augment, batches
from jaxkd.data.base import Split
from jaxkd.graph import OBJECTIVES
from jaxkd.graph.program import predict
from jaxkd.train import mesh as meshes
from jaxkd.train import state as states
from jaxkd.train.feed import steps_per_epoch, training_batch
from jaxkd.train.loop import DivergedError
from jaxkd.train.phase import Task, fitted, initial_key
from jaxkd.train.step import make_step
from jaxkd.types import Array, Tree, Variables


class Outcome(NamedTuple):
  """What one seed's training has led to.

  last: network -> variables of the last epoch; 'NAME_ema' where averaged.
  best: trained network -> variables of the epoch with the best accuracy on the
    validation split, the first among equals; without a validation split, of
    the last epoch.
  objectives: transfer -> what its objective has learned.
  """

  last: dict[str, Variables]
  best: dict[str, Variables]
  objectives: dict[str, Tree]


class _Now(NamedTuple):
  """One seed's training between two epochs.

  state: of the training.
  top1: trained network -> its best accuracy on the validation split.
  best: trained network -> variables of that epoch.
  """

  state: states.State
  top1: dict[str, Array]
  best: dict[str, Variables]


def train_together(
  tasks: Sequence[Task], known: Sequence[Mapping[str, Variables]]
) -> list[Outcome]:
  """Trains one phase for several seeds.

  Each is trained as it would be alone, up to rounding.

  Args:
    tasks: one for each seed; they differ in the seed and the data only, whose
      splits are in memory and of one size.
    known: for each, variables by network, and what objectives have learned; see
      `state.init`.

  Raises:
    ValueError: known weights do not fit a network.
    DivergedError: a loss is not finite.
  """
  task, size = tasks[0], len(tasks[0].dataset.train)
  seeds = np.array([task.seed for task in tasks])
  # Each device trains as many of the seeds as the others do.
  devices = task.mesh.devices.flat[: math.gcd(task.mesh.size, len(tasks))]
  mesh = meshes.make_mesh(devices.tolist())
  put = functools.partial(_stack, meshes.batch_split(mesh, len(tasks)))
  start = jax.jit(functools.partial(_start, task))
  now = put(
    [
      start(initial_key(each.seed), fitted(task.program, its, each.seed))
      for each, its in zip(tasks, known, strict=True)
    ]
  )
  train = put([_arrays(task.dataset.train) for task in tasks])
  held = put([_arrays(task.dataset.validation) for task in tasks])
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
    now, loss = many(now, train, held, seeds, full, rest, np.int32(epoch))
    for seed in seeds[~np.isfinite(loss)]:
      raise DivergedError(
        f'the training loss of seed {seed} is not a finite number in epoch'
        f' {epoch + 1} of {task.epochs}, phase {task.name}; try a lower'
        ' --config.optimizer.learning_rate'
      )
  last = jax.vmap(functools.partial(_everything, task))(now.state)
  own = now.state.params.get(OBJECTIVES, {})
  found = jax.tree.map(np.asarray, Outcome(last, now.best, own))
  return [
    jax.tree.map(lambda leaf, n=n: leaf[n], found) for n in range(len(tasks))
  ]


def _start(task: Task, key: Array, known: Mapping[str, Variables]) -> _Now:
  """Returns where one seed's training starts; see `state.init`."""
  state = states.init(
    task.program,
    task.optimizer,
    key,
    known,
    examples=len(task.dataset.train),
    ema=bool(task.ema),
  )
  variables = states.variables_of(task.program, state)
  trained = task.program.graph.trained
  return _Now(
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


def _arrays(split: Split | None) -> dict[str, np.ndarray]:
  """Returns a split's examples; {} where there is no split."""
  if split is None:
    return {}
  if split.image is None:
    raise ValueError(
      'seeds can be trained together on data in memory only: set'
      ' --config.study.together=False'
    )
  return {'image': split.image, 'label': split.label}


def _stack(sharding: NamedSharding, trees: Sequence[Any]) -> Any:
  whole = jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
  return jax.device_put(whole, sharding)


def _epoch(
  task: Task,
  now: _Now,
  train: dict[str, Array],
  held: dict[str, Array],
  seed: Array,
  full: Array,
  rest: Array,
  epoch: Array,
) -> tuple[_Now, Array]:
  """Trains one seed for one epoch.

  Args:
    task: what is trained; its seed and data are not looked at.
    now: where the training stands.
    train: the training split.
    held: the validation split, {} if there is none.
    seed: of the run.
    full: int32 [S, B], the examples of each step.
    rest: int32 [R], those of the last, smaller one; R may be 0.
    epoch: counted from 0.

  Returns:
    Where it stands then, and the sum of the steps' losses.
  """
  step = make_step(
    task.program,
    task.optimizer,
    seed=seed,
    steps_per_epoch=steps_per_epoch(task.dataset, task.batch_size),
    epochs=task.length,
    ema=task.ema,
  )

  def one(state, index):
    raw = batches.gather(train, index)
    batch = training_batch(raw, epoch, seed, task.dataset.view)
    state, metrics = step(state, batch)
    return state, metrics['loss']

  state, losses = lax.scan(one, now.state, full)
  loss = jnp.sum(losses)
  if rest.size:
    state, last = one(state, rest)
    loss += last
  return _chosen(task, now, state, held), loss


def _chosen(
  task: Task, now: _Now, state: states.State, held: dict[str, Array]
) -> _Now:
  """Returns the training with its best epoch, of which this may be one."""
  variables = states.variables_of(task.program, state)
  top1, best = {}, {}
  for name in task.program.graph.trained:
    was, new = now.best[name], variables[name]
    better, top1[name] = jnp.bool(True), now.top1[name]
    if held:
      image = augment.eval_view(held['image'], view=task.dataset.view)
      said = predict(task.program.modules[name], new, image).logits
      found = jnp.mean(jnp.argmax(said, axis=-1) == held['label'])
      better = found > top1[name]
      top1[name] = jnp.maximum(found, top1[name])
    best[name] = jax.tree.map(
      lambda old, new, better=better: jnp.where(better, new, old), was, new
    )
  return _Now(state, top1, best)
