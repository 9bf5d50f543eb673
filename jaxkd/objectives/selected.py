"""Data selection, around another objective (Lan et al., IEEE TCDS 2025).

https://arxiv.org/abs/2404.03693: only a part of the examples is distilled, in
the paper those of the highest influence; the others count by their labels
alone.
"""

import jax.numpy as jnp

from jaxkd.objectives import scores
from jaxkd.objectives.base import Objective
from jaxkd.objectives.kd import kd
from jaxkd.objectives.scores import Score
from jaxkd.objectives.weighted import times
from jaxkd.types import Array, Batch, Outputs

EXAMPLE = {'keep': 0.5, 'score': 'margin'}
KD = kd()


def selected(
  keep: float,
  score: str | Score,
  objective: Objective = KD,
) -> Objective:
  """Another objective, on the examples of a batch with the highest scores.

  The others' loss is 0, and counts in the mean over the batch. Deviation: we do
  not know the paper's score and ratio, hence no defaults; and this one selects
  from each batch.

  Args:
    keep: the fraction of the batch that is kept, above 0 to 1; rounded to a
      whole number of examples, at least 1.
    score: a name of `scores.SCORES`, or such a function.
    objective: one that has a loss for each example. In a config, its name or a
      mapping.

  Raises:
    KeyError: no such score, with suggestions.
    ValueError: a fraction outside of that range.
  """
  if not 0 < keep <= 1:
    raise ValueError(
      'selected: keep must be a fraction of the batch, above 0 to 1, got'
      f' {keep}'
    )
  score_of = scores.make(score)

  def kept(learner: Outputs, guide: Outputs, batch: Batch) -> Array:
    value = score_of(learner, guide, batch)
    value = jnp.where(batch['mask'] > 0, value, -jnp.inf)
    # Ties go to the first, so that the count is exact.
    rank = jnp.argsort(jnp.argsort(-value))
    examples = jnp.sum(batch['mask'] > 0)
    count = jnp.minimum(jnp.maximum(jnp.round(keep * examples), 1), examples)
    return (rank < count).astype(value.dtype)

  settings: dict[str, object] = dict(
    objective=objective, score=score, keep=keep
  )
  return Objective('selected', settings, objective.init, times(objective, kept))
