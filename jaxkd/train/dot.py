"""DOT, a distillation-oriented trainer (Zhao et al., ICCV 2023).

https://arxiv.org/abs/2307.08436. SGD with a momentum of its own for each of two
gradients: of the task, which labels teach, and of what guides teach. The latter
has the larger one, so that the student follows its guides first. With g the
gradients of the weighted losses, w the weight decay and d the delta,

  v_task  = (m - d) v_task  + g_task + w p
  v_guide = (m + d) v_guide + g_guide
  p       = p - rate (v_task + v_guide)

and both v are 0 before the first step. Parameters that only one of the two
losses has reached so far have the momentum m, so that they learn by plain SGD.
(Reached is where a gradient was not 0 yet; the released code asks which ones
PyTorch has computed. There, parameters of guides' losses alone do not decay in
the first step.)
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxkd.types import Array, Tree


class Split(NamedTuple):
  """Two trees of one structure, such as an owner's two gradients.

  task: of the transfers from labels.
  guide: of the transfers from networks.
  """

  task: Tree
  guide: Tree


class TwoGradients(optax.GradientTransformation):
  """An optimizer whose gradients are, for each owner, a `Split`."""


class DotState(NamedTuple):
  """What DOT remembers.

  velocity: the two momenta.
  reached: of each array, whether a gradient has reached it; bools.
  rate: the schedule's.
  """

  velocity: Split
  reached: Split
  rate: optax.OptState


def dot(
  rate: optax.Schedule,
  decay: optax.GradientTransformation,
  momentum: float,
  delta: float,
) -> optax.GradientTransformation:
  """Returns the optimizer; its gradients are `Split`.

  Args:
    rate: the learning rate at a step.
    decay: adds what decays, without a state.
    momentum: m.
    delta: d; 0 is SGD.

  Raises:
    ValueError: a momentum below 0, or of 1 or more.
  """
  if not 0 <= momentum - delta <= momentum + delta < 1:
    raise ValueError(
      f'dot has momentum={momentum} and delta={delta}, so the momenta'
      f' {momentum - delta:g} and {momentum + delta:g}: expected them in order,'
      ' 0 or more, and below 1'
    )
  by_rate = optax.scale_by_learning_rate(rate)

  def init(params: Any) -> DotState:
    still = jax.tree.map(jnp.zeros_like, params)
    never = jax.tree.map(lambda _: jnp.bool(False), params)
    return DotState(
      Split(still, still), Split(never, never), by_rate.init(params)
    )

  def update(updates: Any, state: Any, params: Any = None) -> Any:
    grads = _apart(updates)
    reached = jax.tree.map(
      lambda before, g: before | jnp.any(g != 0), state.reached, grads
    )
    both = jax.tree.map(jnp.logical_and, *reached)
    task, _ = decay.update(grads.task, decay.init(params), params)
    velocity = Split(
      _moved(state.velocity.task, task, both, momentum, -delta),
      _moved(state.velocity.guide, grads.guide, both, momentum, delta),
    )
    total = jax.tree.map(jnp.add, *velocity)
    change, rate_state = by_rate.update(total, state.rate, params)
    return change, DotState(velocity, reached, rate_state)

  return optax.GradientTransformation(init, update)


def _moved(
  velocity: Tree, grads: Tree, both: Tree, momentum: float, delta: float
) -> Tree:
  def one(v: Array, g: Array, both: Array) -> Array:
    return jnp.where(both, momentum + delta, momentum) * v + g

  return jax.tree.map(one, velocity, grads, both)


def clip(max_norm: float) -> optax.GradientTransformation:
  """Returns what scales two gradients so that their sum has this norm or less.

  Both are scaled alike.
  """

  def update(updates: Any, state: Any, params: Any = None) -> Any:
    del params
    norm = optax.tree.norm(total(updates))
    factor = jnp.where(norm > max_norm, max_norm / norm, 1.0)
    return jax.tree.map(lambda g: g * factor, updates), state

  return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def total(grads: Any) -> Any:
  """Returns the gradients of all losses together: a tree of owners."""
  return jax.tree.map(jnp.add, *_apart(grads))


def _apart(grads: Any) -> Split:
  """Returns a split of trees of owners, out of a tree of split owners."""

  def pick(part: int) -> Any:
    return jax.tree.map(
      lambda owner: owner[part], grads, is_leaf=lambda x: isinstance(x, Split)
    )

  return Split(pick(0), pick(1))
