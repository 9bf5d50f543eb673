"""Figures of logged metrics and of the outputs of networks."""

from jaxkd.plots.correlation import (
  correlation,
  correlation_difference,
  heat_maps,
  mean_difference,
)
from jaxkd.plots.dependence import dependence
from jaxkd.plots.embedding import (
  NEIGHBOURS,
  PERPLEXITY,
  embed,
  neighbour_accuracy,
  scatter,
)
from jaxkd.plots.gap import AVERAGE, GapMetrics, curves, frozen, gap, gaps
from jaxkd.plots.reliability import reliability

__all__ = [
  'AVERAGE',
  'NEIGHBOURS',
  'PERPLEXITY',
  'GapMetrics',
  'correlation',
  'correlation_difference',
  'curves',
  'dependence',
  'embed',
  'frozen',
  'gap',
  'gaps',
  'heat_maps',
  'mean_difference',
  'neighbour_accuracy',
  'reliability',
  'scatter',
]
