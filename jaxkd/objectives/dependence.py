"""Which of its inputs a function depends on, found by tracing it."""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Literal

from jaxkd import tree
from jaxkd.types import Tree


def depends_on(
  function: Callable[..., Any], inputs: Tree, *others: Tree
) -> list[str]:
  """Returns the names of the arrays that a function's results depend on.

  Args:
    function: (inputs, *others) -> a tree of arrays; it is traced.
    inputs: arrays or their shapes; a name is their path, as in 'guide/logits'.
    *others: further arguments, which are not looked at.
  """
  program = jax.make_jaxpr(function)(inputs, *others)
  needed = _needed(program)
  named = zip(tree.leaves(inputs), program.jaxpr.invars, strict=False)
  return [name for name, variable in named if variable in needed]


def _needed(program: ClosedJaxpr) -> set[Any]:
  """Returns the variables that a program's results depend on."""
  needed: set[Any] = {
    x for x in program.jaxpr.outvars if not isinstance(x, Literal)
  }
  for equation in reversed(program.eqns):
    if needed.intersection(equation.outvars):
      needed.update(x for x in equation.invars if not isinstance(x, Literal))
  return needed
