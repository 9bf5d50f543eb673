"""Evaluation: masked sums over batches, so that every example counts once.

Each measure turns a batch into sums. `totals` adds up the batches of a split,
`gathered` puts together what cannot be added up, and `summary` turns the totals
into means and the calibration error.
"""

from jaxkd.metrics.accuracy import counts
from jaxkd.metrics.agreement import agreement
from jaxkd.metrics.calibration import (
  bins,
  expected_calibration_error,
  reliability,
)
from jaxkd.metrics.posterior import distance
from jaxkd.metrics.run import gathered, summary, totals

__all__ = [
  'agreement',
  'bins',
  'counts',
  'distance',
  'expected_calibration_error',
  'gathered',
  'reliability',
  'summary',
  'totals',
]
