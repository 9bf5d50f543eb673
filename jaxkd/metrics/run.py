"""From sums over batches to metrics of a split."""

from collections.abc import Iterable, Mapping

import jax
import numpy as np

from jaxkd.metrics.calibration import BINS, expected_calibration_error
from jaxkd.metrics.sums import Sums


def totals(sums: Iterable[Sums], size: int) -> dict[str, np.ndarray]:
  """Adds up the sums of all batches.

  Args:
    sums: for each batch, arrays that add up, and 'seen', the examples.
    size: of the split.

  Returns:
    The sum over the split of each entry, float64, with the shape that it has
    in a batch.

  Raises:
    RuntimeError: not every example was counted exactly once.
  """
  total: dict[str, np.ndarray] = {'seen': np.zeros(())}
  dispatched = list(sums)  # all batches, before the first is waited for
  for batch in jax.device_get(dispatched):
    for name, value in batch.items():
      total[name] = total.get(name, 0.0) + np.asarray(value, np.float64)
  if total['seen'] != size:
    raise RuntimeError(f'evaluated {total["seen"]:g} of {size} examples')
  return total


def gathered(
  rows: Iterable[Mapping[str, np.ndarray]], size: int
) -> dict[str, np.ndarray]:
  """Returns rows of all batches, one after another, without padding.

  Args:
    rows: for each batch in order, arrays [B, ...]; only the last batch is
      padded, at its end. {} where there are none.
    size: N, of the split.

  Returns:
    By name, [N, ...].
  """
  batches = jax.device_get(list(rows))
  return {
    name: np.concatenate([batch[name] for batch in batches])[:size]
    for name in batches[0]
  }


def summary(total: Mapping[str, np.ndarray]) -> dict[str, float]:
  """Returns the mean of each scalar over the split, and the 'ece' of bins.

  Args:
    total: as `totals` returns it.
  """
  metrics = {
    name: float(value / total['seen'])
    for name, value in total.items()
    if np.ndim(value) == 0 and name != 'seen'
  }
  if set(BINS) <= set(total):
    metrics['ece'] = expected_calibration_error(*(total[n] for n in BINS))
  return metrics
