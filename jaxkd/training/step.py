"""The train step: a pure function of the state and a batch."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxkd.graph import Transfer, Update
from jaxkd.graph.program import Program
from jaxkd.training import frozen
from jaxkd.training.dot import Parts, TwoGradients, total
from jaxkd.training.state import State, replaced, trainable
from jaxkd.training.used import flagged, flags
from jaxkd.types import Array, Batch, Metrics, Outputs, Tree

Measure = Callable[[Array, Batch], Metrics]


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
  """(state, batch) -> (state, metrics), in two parts; made by `make_step`.

  program: the graph with its modules.
  epochs: length of the phase.
  update: (state, batch, outputs of the frozen networks) -> (state, metrics).
  """

  program: Program
  epochs: int
  update: Callable[[State, Batch, dict[str, Outputs]], tuple[State, Metrics]]

  def __call__(self, state: State, batch: Batch) -> tuple[State, Metrics]:
    """Makes a step, with the frozen networks as they are."""
    networks = self.networks(state, batch['image'], fold=False)
    return self.update(state, batch, networks(batch['image']))

  def networks(
    self, state: State, image: Any, wanted: Any = None, fold: bool = True
  ) -> frozen.Networks:
    """Returns the frozen networks for any number of steps.

    Args:
      state: before any of these steps.
      image: see `frozen.networks`.
      wanted: likewise.
      fold: likewise.
    """
    return frozen.networks(self.program, state, image, wanted, fold)

  @property
  def runs_frozen(self) -> bool:
    """Whether there are frozen networks to be run."""
    return bool(frozen.running(self.program))

  def needed(self, state: State, batch: Batch) -> dict[str, Outputs]:
    """Returns which outputs of them the losses read, see `frozen.needed`."""
    return frozen.needed(self.program, state, batch, self.epochs)

  def kept(self, state: State, batch: Batch) -> list[Any]:
    """Returns the shapes of these outputs, for one batch."""
    wanted = self.needed(state, batch)

    def outputs(state, image):
      return self.networks(state, image, wanted, fold=False)(image)

    every = jax.eval_shape(outputs, state, batch['image'])
    pairs = zip(jax.tree.leaves(every), jax.tree.leaves(wanted), strict=True)
    return [x for x, is_wanted in pairs if is_wanted]


def make_step(
  program: Program,
  optimizer: optax.GradientTransformation,
  *,
  seed: int | Array,
  steps_per_epoch: int,
  epochs: int,
  ema: float = 0.0,
  measure: Measure = lambda logits, batch: {},
) -> Step:
  """Returns (state, batch) -> (state, metrics).

  Args:
    program: the graph with its modules.
    optimizer: of the learning owners and the objectives.
    seed: of the run; the step's randomness is a function of seed and step. That
      of a batch, if it has one, takes its place.
    steps_per_epoch: for weights that are functions of the epoch.
    epochs: length of the phase, likewise.
    ema: decay of the moving average, if the state has one; see `ema_decay`.
    measure: (logits, batch) -> metrics of one network, see `Problem.metrics`;
      nothing is measured by default.

  The metrics are 'loss', 'loss/TRANSFER' before its weight, 'METRIC/NETWORK' of
  each trained network on this batch, and 'grad_norm' before clipping.

  Parameters that no loss depends on are not updated, see `used`.
  """
  two = isinstance(optimizer, TwoGradients)
  gradient = _two_gradients if two else _one_gradient

  def step(
    state: State, batch: Batch, outputs: dict[str, Outputs]
  ) -> tuple[State, Metrics]:
    shared = _shared(state, batch, outputs, seed, steps_per_epoch, epochs)
    metrics, grads, opt = {}, [], []
    for update, old in zip(program.graph.updates(), state.opt, strict=True):
      params = trainable(state, update)
      losses = functools.partial(
        _losses, program, shared, state, update, measure
      )
      grad = gradient(losses, params, update)
      change, new = optimizer.update(grad.parts, old, params)
      change = jax.tree.map(jnp.multiply, change, grad.used)
      values: Any = optax.apply_updates(params, change)
      after = grad.after
      state = replaced(state, values)
      state = state._replace(stats=after.stats, memory=after.memory)
      loss = after.metrics['loss'] + metrics.get('loss', 0.0)
      metrics = {**metrics, **after.metrics, 'loss': loss}
      opt, grads = [*opt, new], [*grads, grad.total]
    metrics['grad_norm'] = optax.tree.norm(grads)
    state = state._replace(step=state.step + 1, opt=tuple(opt))
    return state._replace(ema=state.ema and _average(state, ema)), metrics

  return Step(program, epochs, step)


class _Shared(NamedTuple):
  """The values that all updates of a step share.

  batch: of examples.
  frozen: by frozen network, its outputs.
  epoch: float32 scalar.
  epochs: length of the phase.
  key: the step's.
  """

  batch: Batch
  frozen: dict[str, Outputs]
  epoch: Array
  epochs: int
  key: Array


class _After(NamedTuple):
  """The results of an update, besides parameters.

  stats: BatchNorm statistics by network.
  memory: by transfer.
  metrics: by name.
  """

  stats: dict[str, Tree]
  memory: dict[str, Tree]
  metrics: Metrics


class _Gradient(NamedTuple):
  """The gradient of an update's losses.

  parts: as the optimizer takes it: owner -> tree, or owner -> `Parts`.
  total: owner -> tree, of all losses together.
  used: owner -> tree of scalars, 1 for arrays that a loss depends on, else 0.
  after: the rest of the update's results.
  """

  parts: dict[str, Any]
  total: dict[str, Tree]
  used: dict[str, Tree]
  after: _After


# (groups of transfers, parameters, flags) -> (a loss for each group, the rest)
Losses = Callable[
  [tuple[tuple[Transfer, ...], ...], Tree, Tree], tuple[list[Array], _After]
]


def _one_gradient(losses: Losses, params: Tree, update: Update) -> _Gradient:
  """Returns the gradient of the sum of all losses."""

  def loss(params: Tree, used: Tree) -> tuple[Array, _After]:
    (whole,), after = losses((update.transfers,), params, used)
    return whole, after

  grad = jax.grad(loss, argnums=(0, 1), has_aux=True)
  (whole, used), after = grad(params, flags(params))
  return _Gradient(whole, whole, used, after)


def _two_gradients(losses: Losses, params: Tree, update: Update) -> _Gradient:
  """Returns one gradient of the labels' losses and one of the guides' losses.

  They come from one forward pass and two backward passes, which share what the
  forward pass has stored for them.
  """
  groups = update.from_labels, update.from_networks
  (labels, guides), pull, after = jax.vjp(
    functools.partial(losses, groups), params, flags(params), has_aux=True
  )
  one, zero = jnp.ones_like(labels), jnp.zeros_like(labels)
  task, used_by_labels = pull([one, zero])
  guide, used_by_guides = pull([zero, one])
  parts = {owner: Parts(task[owner], guide[owner]) for owner in task}
  used = jax.tree.map(jnp.maximum, used_by_labels, used_by_guides)
  return _Gradient(parts, total(parts), used, after)


def _losses(
  program: Program,
  shared: _Shared,
  state: State,
  update: Update,
  measure: Measure,
  groups: tuple[tuple[Transfer, ...], ...],
  params: dict[str, Tree],
  used: Tree,
) -> tuple[list[Array], _After]:
  """Returns the loss of each group of an update's transfers, and the rest.

  Args:
    program: the graph with its modules.
    shared: see there.
    state: before the update.
    update: of some learners.
    measure: see `make_step`.
    groups: the update's transfers, in one group or more.
    params: of the update, see `state.trainable`.
    used: their flags, see `used.flagged`.
  """
  state = replaced(state, flagged(params, used))
  batch = shared.batch
  outputs, stats = program.forward(
    program.resolve(state.params),
    state.stats,
    batch['image'],
    update.networks - shared.frozen.keys(),
    shared.key,
  )
  losses, memory, metrics = [], state.memory, {}
  for transfers in groups:
    loss, memory, values = program.losses(
      state.objectives,
      memory,
      {**shared.frozen, **outputs},
      batch,
      key=shared.key,
      epoch=shared.epoch,
      epochs=shared.epochs,
      transfers=transfers,
    )
    losses, metrics = [*losses, loss], {**metrics, **values}
  for name, output in outputs.items():
    values = measure(output.logits, batch)
    metrics |= {f'{metric}/{name}': value for metric, value in values.items()}
  metrics['loss'] = functools.reduce(jnp.add, losses)
  return losses, _After(stats, memory, metrics)


def _shared(
  state: State,
  batch: Batch,
  outputs: dict[str, Outputs],
  seed: int | Array,
  steps_per_epoch: int,
  epochs: int,
) -> _Shared:
  """Returns what all updates of a step share.

  Args:
    state: before the step.
    batch: with the logits of the frozen networks that are not run.
    outputs: of those that were.
    seed: see `make_step`, as the others.
    steps_per_epoch: likewise.
    epochs: likewise.
  """
  precomputed = batch.get('precomputed', {})
  # Whole epochs first: the number of steps may not be exact in float32.
  part = state.step % steps_per_epoch / steps_per_epoch
  epoch = state.step // steps_per_epoch + part
  seed = batch.get('seed', seed)
  key = jax.random.fold_in(jax.random.key(seed), state.step)
  return _Shared(batch, {**outputs, **precomputed}, epoch, epochs, key)


def _average(state: State, decay: float) -> Any:
  """Returns the moving average, updated by the state's new parameters."""
  params = {name: state.params[name] for name in state.ema['params']}
  now = {'params': params, 'stats': state.stats}
  rate = 1 - ema_decay(state.step, decay)
  return optax.incremental_update(now, state.ema, rate)


def ema_decay(step: Array | int, decay: float) -> Array:
  """Returns the decay of the moving average after so many steps.

  It is min(decay, (1 + step) / (10 + step)), so that the average forgets the
  initial values also in a training that is short in comparison with
  1 / (1 - decay) steps.

  Args:
    step: steps done, 1 or more.
    decay: of long trainings, 0 to 1.

  References:
    The rule of TensorFlow's `tf.train.ExponentialMovingAverage` with
    `num_updates`,
    https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage.
  """
  return jnp.minimum(decay, (1 + step) / (10 + step))
