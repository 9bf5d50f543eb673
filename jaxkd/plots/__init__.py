"""Figures of what a run has logged."""

from jaxkd.plots.gap import curves, frozen, gap, gaps

__all__ = ['curves', 'frozen', 'gap', 'gaps']
