"""Reparameterisation: pure maps between trees that keep the function.

`expand` (IR) grows a network, `extract` finds the small one in the grown one,
`merge` and `fold_biases` (CBR) take the branches away again.
"""

from jaxkd.reparam.branches import add, merge, merged, prefixes
from jaxkd.reparam.fold import (
  Affine,
  fold_batch_norm,
  fold_biases,
  followers,
)
from jaxkd.reparam.plan import RULES, Axis, Leaf, Plan, Rule, make_plan
from jaxkd.reparam.share import expand, extract, stored

__all__ = [
  'RULES',
  'Affine',
  'Axis',
  'Leaf',
  'Plan',
  'Rule',
  'add',
  'expand',
  'extract',
  'fold_batch_norm',
  'fold_biases',
  'followers',
  'make_plan',
  'merge',
  'merged',
  'prefixes',
  'stored',
]
