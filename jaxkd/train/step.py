"""The train step: one pure function of the state and a batch."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxkd.graph import OBJECTIVES, Update
from jaxkd.graph.program import Program
from jaxkd.train.dot import Split, TwoGradients, total
from jaxkd.train.reach import noted, notes
from jaxkd.train.state import State, learned, merged
from jaxkd.types import Array, Batch, Metrics, Outputs, Tree


def make_step(
  program: Program,
  optimizer: optax.GradientTransformation,
  *,
  seed: int | Array,
  steps_per_epoch: int,
  ema: float = 0.0,
) -> Callable[[State, Batch], tuple[State, Metrics]]:
  """Returns (state, batch) -> (state, metrics).

  Args:
    program: the graph with its modules.
    optimizer: over the learning owners.
    seed: of the run; the step's randomness is a function of it and the step.
    steps_per_epoch: so that weights can be functions of the epoch.
    ema: decay of the moving average, if the state carries one.

  The metrics are 'loss', 'loss/TRANSFER' before its weight, 'top1/NETWORK' of
  each trained network on this batch, and 'grad_norm' before clipping.

  What no loss depends on stays as it is: it does not even decay, as in PyTorch,
  where it has no gradient.

  An optimizer of two gradients gets them from one forward pass and two backward
  passes; what the first has kept for them is kept once.
  """
  two = isinstance(optimizer, TwoGradients)

  def step(state: State, batch: Batch) -> tuple[State, Metrics]:
    params, frozen = program.resolve(state.params), program.graph.frozen
    said, _ = program.forward(params, state.stats, batch['image'], frozen)
    key = jax.random.fold_in(jax.random.key(seed), state.step)
    seen = _Seen(batch, said, _epoch(state.step, steps_per_epoch), key)
    metrics, grads, opt = {}, [], []
    for update, old in zip(program.graph.updates(), state.opt, strict=True):
      changing = learned(state.params, update)
      parts, pull, (stats, memory, found) = jax.vjp(
        functools.partial(_losses, program, seen, state, update, two),
        changing,
        notes(changing),
        has_aux=True,
      )
      grad, used = _gradient(parts, pull)
      change, new = optimizer.update(grad, old, changing)
      change = jax.tree.map(jnp.multiply, change, used)
      params: Any = optax.apply_updates(changing, change)
      params = merged(state.params, params)
      state = state._replace(params=params, stats=stats, memory=memory)
      found['loss'] += metrics.get('loss', 0.0)
      metrics, opt = {**metrics, **found}, [*opt, new]
      grads.append(total(grad) if two else grad)
    metrics['grad_norm'] = optax.tree.norm(grads)
    state = state._replace(step=state.step + 1, opt=tuple(opt))
    return state._replace(ema=state.ema and _average(state, ema)), metrics

  return step


class _Seen(NamedTuple):
  """What all updates of a step have in common.

  batch: what they learn from.
  said: by frozen network, its outputs.
  epoch: float32 scalar.
  key: the step's.
  """

  batch: Batch
  said: dict[str, Outputs]
  epoch: Array
  key: Array


def _losses(
  program: Program,
  seen: _Seen,
  state: State,
  update: Update,
  two: bool,
  changing: dict[str, Tree],
  used: Tree,
) -> tuple[list[Array], tuple[dict[str, Tree], dict[str, Tree], Metrics]]:
  """Returns the loss of an update, or two, of labels and of networks.

  Args:
    program: the graph with its modules.
    seen: see there.
    state: before the update.
    update: of some learners.
    two: whether the losses of labels and of networks are to be apart.
    changing: the parameters that the update changes.
    used: notes that go with them, see `reach`.

  Returns:
    The losses; and statistics and memory after the update, and metrics.
  """
  params = merged(state.params, noted(changing, used))
  outputs, stats = program.forward(
    program.resolve(params),
    state.stats,
    seen.batch['image'],
    update.networks - seen.said.keys(),
    seen.key,
  )
  parts, memory, metrics = [], state.memory, {}
  split = update.from_labels, update.from_networks
  for transfers in split if two else (update.transfers,):
    loss, memory, found = program.losses(
      params.get(OBJECTIVES, {}),
      memory,
      {**seen.said, **outputs},
      seen.batch,
      seen.epoch,
      seen.key,
      transfers,
    )
    parts, metrics = [*parts, loss], {**metrics, **found}
  metrics |= {f'top1/{n}': _top1(x, seen.batch) for n, x in outputs.items()}
  metrics['loss'] = functools.reduce(jnp.add, parts)
  return parts, (stats, memory, metrics)


def _gradient(
  parts: list[Array], pull: Callable[[list[Array]], tuple[Tree, Tree]]
) -> tuple[Tree, Tree]:
  """Returns the gradient of a loss; of two, a `Split` for each owner.

  And, for each array, 1 where a loss depends on it and 0 elsewhere.
  """
  pulled = [
    pull([jnp.ones_like(p) if p is part else jnp.zeros_like(p) for p in parts])
    for part in parts
  ]
  if len(parts) == 1:
    return pulled[0]
  (task, task_uses), (guide, guide_uses) = pulled
  grads = {owner: Split(task[owner], guide[owner]) for owner in task}
  return grads, jax.tree.map(jnp.maximum, task_uses, guide_uses)


def _epoch(step: Array, steps_per_epoch: int) -> Array:
  """Returns the epoch, continuous and counted from 0."""
  # Whole epochs and the rest apart: a float32 step count is not exact.
  return step // steps_per_epoch + (step % steps_per_epoch / steps_per_epoch)


def _average(state: State, decay: float) -> Any:
  """Returns the moving average with what has just been learned in it."""
  params = {name: state.params[name] for name in state.ema['params']}
  now = {'params': params, 'stats': state.stats}
  return optax.incremental_update(now, state.ema, 1 - decay)


def _top1(outputs: Outputs, batch: Batch) -> Array:
  """Returns the fraction of right answers among the examples that count."""
  hits = jnp.argmax(outputs.logits, axis=-1) == batch['label']
  return jnp.sum(hits * batch['mask']) / jnp.maximum(jnp.sum(batch['mask']), 1)
