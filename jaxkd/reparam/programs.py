"""Programs of functions (jaxprs) as flat lists of equations."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.extend.core import (
  ClosedJaxpr,
  Jaxpr,
  JaxprEqn,
  Literal,
  Var,
  jaxpr_as_fun,
)

# Primitives that call one other jaxpr, and the parameter that it is.
CALLS = {
  'checkpoint': 'jaxpr',
  'closed_call': 'call_jaxpr',
  'core_call': 'call_jaxpr',
  'custom_jvp_call': 'call_jaxpr',
  'custom_vjp_call': 'call_jaxpr',
  'jit': 'jaxpr',
  'pjit': 'jaxpr',
  'remat': 'jaxpr',
  'remat2': 'jaxpr',
}


def called(equation: JaxprEqn) -> tuple[Jaxpr, Sequence[Any]] | None:
  """Returns the jaxpr that an equation calls, and its constants, if it does."""
  inner = equation.params.get(CALLS.get(equation.primitive.name, ''))
  if inner is None:
    return None
  return opened(inner)


def opened(inner: Any) -> tuple[Jaxpr, Sequence[Any]]:
  """Returns a jaxpr, closed or not, and its constants."""
  if isinstance(inner, ClosedJaxpr):
    return inner.jaxpr, inner.consts
  return inner, ()


class Values(dict[Var, Any]):
  """The values of variables, while a jaxpr is computed."""

  def read(self, atoms: Sequence[Any]) -> list[Any]:
    """Returns the values of variables and literals."""
    return [x.val if isinstance(x, Literal) else self[x] for x in atoms]


def bind(equation: JaxprEqn, inputs: Sequence[Any]) -> list[Any]:
  """Returns the results of an equation for other values of its inputs."""
  operands = {
    x: value
    for x, value in zip(equation.invars, inputs, strict=True)
    if not isinstance(x, Literal)
  }
  alone = part_of([equation], list(operands), equation.outvars)
  return alone(*operands.values())


def part_of(
  equations: Sequence[JaxprEqn], inputs: Sequence[Var], outputs: Sequence[Any]
) -> Callable[..., list[Any]]:
  """Returns some equations as a function.

  Args:
    equations: in their order.
    inputs: of the function.
    outputs: its results.
  """
  jaxpr = _empty().replace(
    invars=list(inputs), outvars=list(outputs), eqns=list(equations)
  )
  return jaxpr_as_fun(ClosedJaxpr(jaxpr, ()))


@functools.cache
def _empty() -> Jaxpr:
  return jax.make_jaxpr(lambda: ())().jaxpr


def inlined(
  jaxpr: Jaxpr,
  constants: Sequence[Any],
  arguments: Sequence[Any],
  keep: Callable[[JaxprEqn], bool],
) -> list[Any]:
  """Computes a jaxpr, and those that it calls, equation by equation.

  Args:
    jaxpr: of the function.
    constants: of the jaxpr.
    arguments: of the function.
    keep: whether a call stays one equation. Others lose their rules of
      differentiation and rematerialisation.
  """
  values = Values(zip(jaxpr.constvars, constants, strict=True))
  values.update(zip(jaxpr.invars, arguments, strict=True))
  for equation in live(jaxpr):
    inputs, inner = values.read(equation.invars), called(equation)
    if inner is None or keep(equation):
      results = bind(equation, inputs)
    else:
      results = inlined(*inner, inputs, keep)
    values.update(zip(equation.outvars, results, strict=True))
  return values.read(jaxpr.outvars)


def live(jaxpr: Jaxpr) -> list[JaxprEqn]:
  """Returns the equations that the outputs depend on, in their order."""
  needed, equations = set(variables(jaxpr.outvars)), []
  for equation in reversed(jaxpr.eqns):
    if needed.intersection(equation.outvars):
      needed.update(variables(equation.invars))
      equations.append(equation)
  return equations[::-1]


def shape(atom: Any) -> tuple[int, ...]:
  """Returns the shape of a variable or literal."""
  return atom.aval.shape


def dtype(atom: Any) -> Any:
  """Returns the type of its entries."""
  return atom.aval.dtype


def variables(atoms: Sequence[Any]) -> list[Var]:
  """Returns the variables among variables and literals."""
  return [x for x in atoms if not isinstance(x, Literal)]


def producers(equations: Sequence[JaxprEqn]) -> Mapping[Var, JaxprEqn]:
  """Returns the equation that each variable is a result of."""
  return {x: equation for equation in equations for x in equation.outvars}
