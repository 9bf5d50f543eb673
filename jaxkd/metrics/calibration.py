"""Calibration: whether a network is right as often as it is confident.

Guo, Pleiss, Sun, Weinberger, ICML 2017, https://arxiv.org/abs/1706.04599,
section 2. The confidence is the largest probability. Bins have equal widths;
bin m of M holds the confidences in ((m - 1) / M, m / M].
"""

from collections.abc import Mapping

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxkd.metrics.sums import Sums, masked_sum
from jaxkd.types import Array

BINS = ('bin_count', 'bin_confidence', 'bin_hits')


def bins(logits: Array, labels: Array, mask: Array, num_bins: int = 15) -> Sums:
  """Returns sums over the examples in each bin of confidence.

  Args:
    logits: [B, K].
    labels: int [B].
    mask: [B], 1 for examples that count.
    num_bins: of equal width, over (0, 1]; the paper has 15.

  Returns:
    'bin_count': examples; 'bin_confidence': their confidences; 'bin_hits':
    right answers. Float32 [num_bins], which counts up to 2^24 examples of one
    batch exactly.
  """
  chex.assert_rank([logits, labels, mask], [2, 1, 1])
  confidence = jnp.max(jax.nn.softmax(logits), axis=-1)
  hits = jnp.argmax(logits, axis=-1) == labels
  edges = np.linspace(0, 1, num_bins + 1, dtype=np.float32)[1:-1]
  place = jnp.sum(confidence[:, None] > edges[None], axis=-1)
  member = jax.nn.one_hot(place, num_bins) * mask[:, None]
  over_bins = jax.vmap(masked_sum, in_axes=(None, 1))
  sums = (over_bins(x, member) for x in (mask, confidence, hits))
  return dict(zip(BINS, sums, strict=True))


def expected_calibration_error(
  count: np.ndarray, confidence: np.ndarray, hits: np.ndarray
) -> float:
  """Returns the ECE: mean |accuracy - confidence| of bins, by their share.

  It is a fraction, 0 at best. It depends on the bins, and over N examples even
  a calibrated network has one of the order of sqrt(num_bins / N).

  Args:
    count: examples in each bin, [num_bins]; at least one in all.
    confidence: their confidences, added up, [num_bins].
    hits: right answers, [num_bins].

  References:
    Guo et al., 2017, https://arxiv.org/abs/1706.04599, eq. 3.
  """
  return float(np.sum(np.abs(hits - confidence)) / np.sum(count))


def reliability(total: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Returns the points of a reliability diagram, one for each bin.

  Args:
    total: the sums of `bins`, added up over at least one example.

  Returns:
    'confidence' and 'accuracy': means over the bin's examples, NaN in an empty
    bin; 'share': of all examples. Float64 [num_bins].
  """
  count, confidence, hits = (total[name] for name in BINS)
  some = np.where(count > 0, count, np.nan)
  return {
    'confidence': confidence / some,
    'accuracy': hits / some,
    'share': count / np.sum(count),
  }
