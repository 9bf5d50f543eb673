"""Scores of examples: how much each of a batch should be distilled.

A score is (learner, guide, batch) -> float32 [B]; unless stated otherwise,
higher is better. p are the guide's probabilities at T = 1, y is the label.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxkd.catalog import lookup
from jaxkd.losses.numerics import at_least_float32
from jaxkd.types import Array, Batch, Outputs

Score = Callable[[Outputs, Outputs, Batch], Array]


def _probabilities(outputs: Outputs) -> Array:
  return jax.nn.softmax(at_least_float32(outputs.logits))


def _of_label(p: Array, batch: Batch) -> Array:
  return jnp.take_along_axis(p, batch['label'][:, None], axis=-1)[:, 0]


def right(learner: Outputs, guide: Outputs, batch: Batch) -> Array:
  """Returns 1 where the guide's prediction is the label, and 0 elsewhere."""
  del learner
  prediction = jnp.argmax(guide.logits, axis=-1)
  return (prediction == batch['label']).astype(jnp.float32)


def confidence(learner: Outputs, guide: Outputs, batch: Batch) -> Array:
  """Returns max p, the guide's confidence in its prediction."""
  del learner, batch
  return jnp.max(_probabilities(guide), axis=-1)


def target(learner: Outputs, guide: Outputs, batch: Batch) -> Array:
  """Returns p_y, the guide's confidence in the label."""
  del learner
  return _of_label(_probabilities(guide), batch)


def margin(learner: Outputs, guide: Outputs, batch: Batch) -> Array:
  """Returns p_y less the largest of the other classes, from -1 to 1."""
  del learner
  p = _probabilities(guide)
  is_label = jax.nn.one_hot(batch['label'], p.shape[-1], dtype=bool)
  return _of_label(p, batch) - jnp.max(jnp.where(is_label, 0, p), axis=-1)


def error(learner: Outputs, guide: Outputs, batch: Batch) -> Array:
  """Returns |p - onehot(y)|: large for examples that are hard for the guide.

  The guide's EL2N score (Paul et al., NeurIPS 2021,
  https://arxiv.org/abs/2107.07075).
  """
  del learner
  p = _probabilities(guide)
  return jnp.linalg.norm(
    p - jax.nn.one_hot(batch['label'], p.shape[-1]), axis=1
  )


SCORES = {
  'confidence': confidence,
  'error': error,
  'margin': margin,
  'right': right,
  'target': target,
}


def make(score: str | Score) -> Score:
  """Returns a score by its name, or as it is.

  Raises:
    KeyError: no such score, with suggestions.
  """
  return score if callable(score) else lookup('score', SCORES, score)
