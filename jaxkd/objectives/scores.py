"""How much each example of a batch deserves to be taught.

A score is (guide, learner, batch) -> float32 [B]; where it is not said
otherwise, the more the better. p are the guide's probabilities at T = 1, y is
the label.
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


def _labelled(p: Array, batch: Batch) -> Array:
  return jnp.take_along_axis(p, batch['label'][:, None], axis=-1)[:, 0]


def right(guide: Outputs, learner: Outputs, batch: Batch) -> Array:
  """Returns 1 where the guide's answer is the label, and 0 elsewhere."""
  del learner
  answer = jnp.argmax(guide.logits, axis=-1)
  return (answer == batch['label']).astype(jnp.float32)


def confidence(guide: Outputs, learner: Outputs, batch: Batch) -> Array:
  """Returns max p, how sure the guide is of its answer."""
  del learner, batch
  return jnp.max(_probabilities(guide), axis=-1)


def target(guide: Outputs, learner: Outputs, batch: Batch) -> Array:
  """Returns p_y, how sure the guide is of the label."""
  del learner
  return _labelled(_probabilities(guide), batch)


def margin(guide: Outputs, learner: Outputs, batch: Batch) -> Array:
  """Returns p_y less the largest of the other classes, from -1 to 1."""
  del learner
  p = _probabilities(guide)
  is_label = jax.nn.one_hot(batch['label'], p.shape[-1], dtype=bool)
  return _labelled(p, batch) - jnp.max(jnp.where(is_label, 0, p), axis=-1)


def error(guide: Outputs, learner: Outputs, batch: Batch) -> Array:
  """Returns |p - onehot(y)|: large for what the guide finds hard.

  The EL2N score of Paul et al., NeurIPS 2021, https://arxiv.org/abs/2107.07075,
  of the guide.
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
