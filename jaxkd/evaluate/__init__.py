"""Evaluation: masked sums over batches, so that every example counts once."""

from jaxkd.evaluate.accuracy import counts
from jaxkd.evaluate.run import means

__all__ = ['counts', 'means']
