"""Accuracy and negative log-likelihood."""

import jax
import jax.numpy as jnp

from jaxkd.types import Array, Metrics


def counts(logits: Array, labels: Array, mask: Array) -> Metrics:
  """Returns sums, not means, so that batches add up.

  Args:
    logits: [B, K].
    labels: int [B].
    mask: [B], 1 for examples that count.

  Returns:
    'top1': right answers; 'nll': nats; 'seen': examples. Float32 scalars.
  """
  hits = jnp.argmax(logits, axis=-1) == labels
  log_p = jax.nn.log_softmax(logits)
  nll = -jnp.take_along_axis(log_p, labels[:, None], axis=-1)[:, 0]
  return {
    'top1': jnp.sum(hits * mask),
    'nll': jnp.sum(nll * mask),
    'seen': jnp.sum(mask),
  }
