"""Optimizers and schedules, built from optax, with the benchmark's rules.

SGD's weight decay is PyTorch's: added to the gradient before the momentum, on
every parameter, biases and BatchNorm included, unless a mask says otherwise.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import optax

from jaxkd import tree
from jaxkd.catalog import lookup
from jaxkd.training import dot


def _boundary(milestone: float, epochs: int, steps_per_epoch: int) -> int:
  """Returns the number of steps after which a milestone is passed."""
  if milestone <= 0:
    raise ValueError(
      'a milestone must be a fraction of the training (above 0 and below 1) or'
      f' a number of epochs, got {milestone}'
    )
  in_epochs = milestone * epochs if milestone < 1 else milestone
  return round(in_epochs * steps_per_epoch)


def make_schedule(
  name: str,
  learning_rate: float,
  *,
  epochs: int,
  steps_per_epoch: int,
  milestones: Sequence[float] = (),
  factor: float = 0.1,
  warmup_epochs: float = 0.0,
  final: float = 0.0,
) -> optax.Schedule:
  """Returns the learning rate as a function of the step, counted from 0.

  Args:
    name: 'constant', 'milestones' or 'cosine'.
    learning_rate: the peak.
    epochs: length of the training.
    steps_per_epoch: of which epochs consist.
    milestones: the rate is multiplied by `factor` after each. A number below 1
      is a fraction of the training, so that a shorter run keeps the shape; 1
      and above counts epochs. A milestone at 150 epochs holds from the step
      number 150 * steps_per_epoch on.
    factor: see milestones.
    warmup_epochs: the rate first rises linearly, over this many epochs.
    final: the rate at the end of the cosine, as a fraction of the peak.

  Raises:
    KeyError: no schedule of that name.
    ValueError: a milestone that is not positive.
  """
  total = epochs * steps_per_epoch
  factors: dict[int, float] = {}
  for milestone in milestones:
    # In a short run, two milestones can fall on the same step.
    step = _boundary(milestone, epochs, steps_per_epoch)
    factors[step] = factors.get(step, 1.0) * factor
  schedules = {
    'constant': lambda: optax.constant_schedule(learning_rate),
    'milestones': lambda: optax.piecewise_constant_schedule(
      learning_rate, factors
    ),
    'cosine': lambda: optax.cosine_decay_schedule(
      learning_rate, total, alpha=final
    ),
  }
  main = lookup('schedule', schedules, name)()
  warmup = round(warmup_epochs * steps_per_epoch)
  if not warmup:
    return main
  return lambda step: main(step) * jnp.minimum(1.0, (step + 1) / warmup)


def _sgd(rate, *, momentum, nesterov, weight_decay, mask, **others):
  del others
  return optax.chain(
    optax.add_decayed_weights(weight_decay, mask),
    optax.sgd(rate, momentum=momentum or None, nesterov=nesterov),
  )


def _dot(rate, *, momentum, nesterov, weight_decay, mask, delta, **others):
  del others
  if nesterov:
    raise ValueError('dot has no Nesterov momentum: set nesterov to False')
  decay = optax.add_decayed_weights(weight_decay, mask)
  return dot.dot(rate, decay, momentum, delta)


def _adamw(rate, *, weight_decay, mask, betas, eps, **others):
  del others
  return optax.adamw(
    rate, *betas, eps=eps, weight_decay=weight_decay, mask=mask
  )


# Excluded from the decay of kernels although they have several axes: the biases
# of attention, tokens and positions, as in timm; and the scales of branches.
NO_DECAY = r'(^|/)(bias|class_token|position_embedding|branch_scale)$'
OPTIMIZERS = {'adamw': _adamw, 'dot': _dot, 'sgd': _sgd}
TWO_GRADIENTS = ('dot',)  # these take one for labels and one for guides
DECAY_MASKS = {
  'all': None,
  'kernels': lambda params: jax.tree.map(
    lambda leaf, excluded: leaf.ndim > 1 and not excluded,
    params,
    tree.select(params, NO_DECAY),
  ),
}


def unguided(name: str) -> str:
  """Returns the name of the equivalent optimizer where only labels teach."""
  return {'dot': 'sgd'}.get(name, name)


def make_optimizer(
  name: str,
  schedules: optax.Schedule | Mapping[str, optax.Schedule],
  *,
  momentum: float = 0.9,
  nesterov: bool = False,
  weight_decay: float = 0.0,
  decay: str = 'all',
  clip_norm: float = 0.0,
  betas: tuple[float, float] = (0.9, 0.999),
  eps: float = 1e-8,
  delta: float = 0.075,
) -> optax.GradientTransformation:
  """Returns one optimizer of all learning owners and the objectives.

  Args:
    name: 'sgd', 'adamw' or 'dot'; the latter is a `dot.TwoGradients`.
    schedules: of the learning rate; one for all, or one for each owner.
    momentum: of SGD and DOT.
    nesterov: of SGD.
    weight_decay: coupled in SGD and DOT, decoupled in AdamW.
    decay: which parameters decay: 'all', or 'kernels' (two axes or more, except
      those named by `NO_DECAY`).
    clip_norm: the gradient of all owners together is scaled down to this norm;
      0 does not clip.
    betas: of AdamW.
    eps: of AdamW.
    delta: of DOT.

  Raises:
    KeyError: no optimizer or decay mask of that name.
    ValueError: DOT with Nesterov's momentum, or momenta out of its range.
  """
  kind = lookup('optimizer', OPTIMIZERS, name)
  settings = dict(
    momentum=momentum,
    nesterov=nesterov,
    weight_decay=weight_decay,
    mask=lookup('decay mask', DECAY_MASKS, decay),
    betas=betas,
    eps=eps,
    delta=delta,
  )
  if isinstance(schedules, Mapping):
    update = optax.partition(
      {owner: kind(rate, **settings) for owner, rate in schedules.items()},
      lambda params: {owner: owner for owner in params},
    )
  else:
    update = kind(schedules, **settings)
  two = name in TWO_GRADIENTS
  if clip_norm:
    clip = dot.clip if two else optax.clip_by_global_norm
    update = optax.chain(clip(clip_norm), update)
  return dot.TwoGradients(update.init, update.update) if two else update
