"""Label revision, around another objective (Lan et al., IEEE TCDS 2025).

https://arxiv.org/abs/2404.03693: where the teacher is wrong, its probabilities
are corrected by the label before they are distilled.
"""

import jax
import jax.numpy as jnp

from jaxkd.losses.numerics import at_least_float32
from jaxkd.objectives.base import Objective
from jaxkd.objectives.kd import kd
from jaxkd.types import Array

EXAMPLE = {'eta': 0.8}
KD = kd()


def revised(
  eta: float, objective: Objective = KD, softened: bool = True
) -> Objective:
  """Another objective, of a guide whose largest probability is the label's.

  The guide's logits become T log of `revise`, so that the probabilities at the
  temperature T are the revised ones.

  Args:
    eta: weight of the teacher's probabilities, above 0 and below 1. We do not
      know the paper's value, hence no default.
    objective: any of logits. In a config, its name or a mapping.
    softened: revise the probabilities at the objective's own `temperature`
      (1 if it has none): our choice, since the label then leads the distilled
      probabilities by exactly the margin that eta sets. False revises those at
      T = 1, which the objective then softens.

  Raises:
    ValueError: eta is not above 0 and below 1.
  """
  if not 0 < eta < 1:
    raise ValueError(f'revised: eta must be above 0 and below 1, got {eta}')
  own = objective.settings.get('temperature', 1.0)
  temperature = own if softened and isinstance(own, int | float) else 1.0

  def loss(params, memory, *, guide, batch, **others):
    if guide is None:
      raise ValueError(
        f'revised revises the logits of the guide of {objective}, and labels'
        ' have none: let a network be the guide'
      )
    logits = at_least_float32(guide.logits) / temperature
    log_p = revise(jax.nn.log_softmax(logits), batch['label'], eta)
    guide = guide.replace(logits=temperature * log_p)
    return objective.loss(params, memory, guide=guide, batch=batch, **others)

  settings: dict[str, object] = dict(
    objective=objective, eta=eta, softened=softened
  )
  return Objective('revised', settings, objective.init, loss)


def revise(log_p: Array, labels: Array, eta: float) -> Array:
  """Returns log(b p + (1 - b) onehot(y)) with b = eta / (max p - p_y + 1).

  For any eta below 1, the label's probability is then the largest. Where it
  was before, b = eta.

  Args:
    log_p: log of probabilities [B, K].
    labels: class indices, integers [B].
    eta: above 0 and below 1.

  References:
    Lan et al., https://arxiv.org/abs/2404.03693: label revision.
  """
  p_y = jnp.exp(jnp.take_along_axis(log_p, labels[:, None], axis=-1))
  beta = eta / (jnp.exp(jnp.max(log_p, axis=-1, keepdims=True)) - p_y + 1)
  is_label = jax.nn.one_hot(labels, log_p.shape[-1], dtype=bool)
  kept = jnp.log(beta) + log_p
  return jnp.where(is_label, jnp.logaddexp(kept, jnp.log1p(-beta)), kept)
