"""The distance of a network from the Bayes posterior of synthetic data.

Hamidi et al., ECCV 2024, https://arxiv.org/abs/2407.18041, argue that a teacher
should be near the posterior in squared distance. With e_y the one-hot label and
y drawn from p*,

  E |q - e_y|^2 = |q - p*|^2 + 1 - |p*|^2
  E[-log q_y]   = KL(p* || q) + H(p*)

so that the expected Brier score and NLL are distances to p* plus constants.
"""

import chex
import jax
import jax.numpy as jnp

from jaxkd.metrics.agreement import kl
from jaxkd.metrics.sums import Sums, masked_sum
from jaxkd.types import Array


def distance(logits: Array, posterior: Array, mask: Array) -> Sums:
  """Returns sums over a batch of distances between q = softmax(logits) and p*.

  Args:
    logits: [B, K].
    posterior: p*, probabilities [B, K].
    mask: [B], 1 for examples that count.

  Returns:
    'posterior_square': |q - p*|^2, summed over classes; 'posterior_kl':
    KL(p* || q) in nats; 'seen': examples. Float32 scalars. Of N examples with
    the mean m of 'posterior_square', the Frobenius norm of the difference of
    the two [N, K] matrices, which the paper's experiment reports, is sqrt(N m).
  """
  chex.assert_equal_shape([logits, posterior])
  log_q = jax.nn.log_softmax(logits)
  square = jnp.sum((jnp.exp(log_q) - posterior) ** 2, axis=-1)
  return {
    'posterior_square': masked_sum(square, mask),
    'posterior_kl': masked_sum(kl(jnp.log(posterior), log_q), mask),
    'seen': masked_sum(jnp.ones_like(mask), mask),
  }
