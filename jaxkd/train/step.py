"""The train step: one pure function of the state and a batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxkd.graph import OBJECTIVES
from jaxkd.program import Program
from jaxkd.train.state import State, learned
from jaxkd.types import Batch, Metrics


def make_step(
  program: Program,
  optimizer: optax.GradientTransformation,
  *,
  seed: int,
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

  def step(state: State, batch: Batch) -> tuple[State, Metrics]:
    key = jax.random.fold_in(jax.random.key(seed), state.step)
    # Whole epochs and the rest apart: a float32 step count is not exact.
    epoch = state.step // steps_per_epoch + (
      state.step % steps_per_epoch / steps_per_epoch
    )

    def loss_fn(trained):
      params = {**state.params, **trained}
      outputs, stats = program.forward(
        program.resolve(params), state.stats, batch['image']
      )
      loss, memory, metrics = program.losses(
        params.get(OBJECTIVES, {}), state.memory, outputs, batch, epoch, key
      )
      return loss, (outputs, stats, memory, metrics)

    trained = learned(program, state.params)
    grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
    (_, (outputs, stats, memory, metrics)), grads = grad_fn(trained)
    updates, opt = optimizer.update(grads, state.opt, trained)
    new: Any = optax.apply_updates(trained, updates)
    average: Any = state.ema and optax.incremental_update(
      {'params': new, 'stats': stats}, state.ema, 1 - ema
    )
    metrics |= {
      f'top1/{name}': _top1(outputs[name].logits, batch)
      for name in program.graph.trained
    }
    metrics['grad_norm'] = optax.tree.norm(grads)
    params = {**state.params, **new}
    state = State(state.step + 1, params, stats, memory, opt, average)
    return state, metrics

  return step


def _top1(logits: jax.Array, batch: Batch) -> jax.Array:
  """Returns the fraction of right answers among the examples that count."""
  hits = jnp.argmax(logits, axis=-1) == batch['label']
  return jnp.sum(hits * batch['mask']) / jnp.maximum(jnp.sum(batch['mask']), 1)
