"""Reparameterisation: pure maps of variables that preserve the function.

`expand` (IR) makes a network wider, `extract` returns the narrow network in the
wide one, and `merge` and `fold_biases` (CBR) remove the branches.
"""

from jaxkd.reparam.branches import (
  add_branches,
  branched_prefixes,
  merge,
  merged_kernel,
)
from jaxkd.reparam.fold import batch_norms_after, fold_biases
from jaxkd.reparam.plan import RULES, Axis, Leaf, Pieces, Plan, Rule, make_plan
from jaxkd.reparam.share import expand, extract, unscale
from jaxkd.reparam.two_parts import TwoParts, two_parts

__all__ = [
  'RULES',
  'Axis',
  'Leaf',
  'Pieces',
  'Plan',
  'Rule',
  'TwoParts',
  'add_branches',
  'batch_norms_after',
  'branched_prefixes',
  'expand',
  'extract',
  'fold_biases',
  'make_plan',
  'merge',
  'merged_kernel',
  'two_parts',
  'unscale',
]
