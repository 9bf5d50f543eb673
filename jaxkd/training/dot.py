"""DOT, a distillation-oriented trainer (Zhao et al., ICCV 2023).

https://arxiv.org/abs/2307.08436. SGD with a separate momentum for each of two
gradients: that of the task, the losses against labels, and that of the losses
against guides. The latter has the larger momentum, so that the student follows
its guides first. With g the gradients of the weighted losses, m the momentum, w
the weight decay and d the delta,

  v_task  = (m - d) v_task  + g_task + w p
  v_guide = (m + d) v_guide + g_guide
  p       = p - rate (v_task + v_guide)

and both v are 0 before the first step. Parameters that have had a gradient from
only one of the two losses so far have the momentum m, which is plain SGD. (Here
that means a gradient other than 0; the released code asks whether PyTorch has
computed one. There, parameters that only guides' losses train do not decay in
the first step.)
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxkd.types import Array, Tree


class Parts(NamedTuple):
  """Two trees of one structure, such as an owner's two gradients.

  task: of the transfers from labels.
  guide: of the transfers from networks.
  """

  task: Tree
  guide: Tree


class TwoGradients(optax.GradientTransformation):
  """An optimizer whose gradients are, for each owner, its `Parts`."""


class DotState(NamedTuple):
  """The state of DOT.

  velocity: v, of both losses.
  active: for each array and loss, whether a gradient was other than 0; bools.
  rate: the schedule's state.
  """

  velocity: Parts
  active: Parts
  rate: optax.OptState


def dot(
  rate: optax.Schedule,
  decay: optax.GradientTransformation,
  momentum: float,
  delta: float,
) -> optax.GradientTransformation:
  """Returns the optimizer; its gradients are owner -> `Parts`.

  Args:
    rate: the learning rate at a step.
    decay: adds the weight decay to a gradient; without a state.
    momentum: m.
    delta: d; 0 is SGD.

  Raises:
    ValueError: a momentum below 0, or of 1 or more.
  """
  if not 0 <= momentum - delta <= momentum + delta < 1:
    raise ValueError(
      f'dot has momentum={momentum} and delta={delta}, so the momenta are'
      f' {momentum - delta:g} and {momentum + delta:g}: both must be at least 0'
      ' and below 1, and delta at least 0'
    )
  by_rate = optax.scale_by_learning_rate(rate)

  def init(params: Any) -> DotState:
    zeros = jax.tree.map(jnp.zeros_like, params)
    never = jax.tree.map(lambda _: jnp.bool(False), params)
    return DotState(
      Parts(zeros, zeros), Parts(never, never), by_rate.init(params)
    )

  def update(updates: Any, state: Any, params: Any = None) -> Any:
    grads = _split(updates)
    active = jax.tree.map(
      lambda before, g: before | jnp.any(g != 0), state.active, grads
    )
    both = jax.tree.map(jnp.logical_and, *active)
    task, _ = decay.update(grads.task, decay.init(params), params)
    velocity = Parts(
      _accumulated(state.velocity.task, task, both, momentum, -delta),
      _accumulated(state.velocity.guide, grads.guide, both, momentum, delta),
    )
    total = jax.tree.map(jnp.add, *velocity)
    change, rate_state = by_rate.update(total, state.rate, params)
    return change, DotState(velocity, active, rate_state)

  return optax.GradientTransformation(init, update)


def _accumulated(
  velocity: Tree, grads: Tree, both: Tree, momentum: float, delta: float
) -> Tree:
  """Returns a velocity after one step; delta holds where `both` is true."""

  def one(v: Array, g: Array, both: Array) -> Array:
    return jnp.where(both, momentum + delta, momentum) * v + g

  return jax.tree.map(one, velocity, grads, both)


def clip(max_norm: float) -> optax.GradientTransformation:
  """Returns the clipping of two gradients by the norm of their sum.

  Both are scaled by the same factor.
  """

  def update(updates: Any, state: Any, params: Any = None) -> Any:
    del params
    norm = optax.tree.norm(total(updates))
    factor = jnp.where(norm > max_norm, max_norm / norm, 1.0)
    return jax.tree.map(lambda g: g * factor, updates), state

  return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def total(grads: Any) -> Any:
  """Returns the gradients of all losses together: a tree of owners."""
  return jax.tree.map(jnp.add, *_split(grads))


def _split(grads: Any) -> Parts:
  """Returns owner -> `Parts` as `Parts` of owner -> tree."""

  def pick(part: int) -> Any:
    return jax.tree.map(
      lambda owner: owner[part], grads, is_leaf=lambda x: isinstance(x, Parts)
    )

  return Parts(pick(0), pick(1))
