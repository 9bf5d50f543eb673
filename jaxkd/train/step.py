"""The train step: one pure function of the state and a batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxkd.graph import OBJECTIVES, Update
from jaxkd.program import Program
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
  """
  updates, frozen = program.graph.updates(), set(program.graph.frozen)

  def step(state: State, batch: Batch) -> tuple[State, Metrics]:
    key = jax.random.fold_in(jax.random.key(seed), state.step)
    epoch = _epoch(state.step, steps_per_epoch)
    params, image = program.resolve(state.params), batch['image']
    known, _ = program.forward(params, state.stats, image, frozen)

    def loss_fn(changing: dict[str, Tree], state: State, update: Update):
      params, names = merged(state.params, changing), update.networks - frozen
      outputs, stats = program.forward(
        program.resolve(params), state.stats, image, names, key
      )
      loss, memory, metrics = program.losses(
        params.get(OBJECTIVES, {}),
        state.memory,
        {**known, **outputs},
        batch,
        epoch,
        key,
        update.transfers,
      )
      metrics |= {f'top1/{n}': _top1(x, batch) for n, x in outputs.items()}
      return loss, (stats, memory, metrics)

    grad_fn, metrics, grads, opt = jax.grad(loss_fn, has_aux=True), {}, [], []
    for update, old in zip(updates, state.opt, strict=True):
      changing = learned(state.params, update)
      grad, (stats, memory, found) = grad_fn(changing, state, update)
      change, new = optimizer.update(grad, old, changing)
      params: Any = optax.apply_updates(changing, change)
      params = merged(state.params, params)
      state = state._replace(params=params, stats=stats, memory=memory)
      found['loss'] += metrics.get('loss', 0.0)
      metrics, grads, opt = {**metrics, **found}, [*grads, grad], [*opt, new]
    metrics['grad_norm'] = optax.tree.norm(grads)
    state = state._replace(step=state.step + 1, opt=tuple(opt))
    return state._replace(ema=state.ema and _average(state, ema)), metrics

  return step


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
