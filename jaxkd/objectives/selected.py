"""Data selection, around another objective (Lan et al., IEEE TCDS 2025).

https://arxiv.org/abs/2404.03693: only a part of the examples is distilled,
there chosen by influence; the others teach by their labels alone.
"""

import jax.numpy as jnp

from jaxkd.objectives import scores
from jaxkd.objectives.base import Objective
from jaxkd.objectives.kd import kd
from jaxkd.objectives.scores import Score
from jaxkd.objectives.weighted import times
from jaxkd.types import Array, Batch, Outputs

KD = kd()


def selected(
  keep: float,
  score: str | Score,
  objective: Objective = KD,
) -> Objective:
  """Another objective, of those examples of a batch that score highest.

  The others' loss is 0, and counts in the mean over the batch. Deviation: the
  paper's score and ratio are not known to us, hence no defaults; and this one
  selects from each batch.

  Args:
    keep: the part of the batch that is kept, above 0 to 1; rounded to a whole
      number of examples, and 1 at least.
    score: a name of `scores.SCORES`, or such a function.
    objective: one that has a loss for each example. In a config, its name or a
      mapping.

  Raises:
    KeyError: no such score, with suggestions.
    ValueError: no such part.
  """
  if not 0 < keep <= 1:
    raise ValueError(
      f'selected has keep={keep}: expected a part of the batch, above 0 to 1'
    )
  of = scores.make(score)

  def kept(guide: Outputs, learner: Outputs, batch: Batch) -> Array:
    found = jnp.where(batch['mask'] > 0, of(guide, learner, batch), -jnp.inf)
    # Of equals the first are kept, so that there are as many as there should.
    place = jnp.argsort(jnp.argsort(-found))
    examples = jnp.sum(batch['mask'])
    count = jnp.minimum(jnp.maximum(jnp.round(keep * examples), 1), examples)
    return (place < count).astype(found.dtype)

  settings: dict[str, object] = dict(
    objective=objective, score=score, keep=keep
  )
  return Objective('selected', settings, objective.init, times(objective, kept))
