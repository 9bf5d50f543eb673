"""Multiply-accumulates of a network, from shapes alone.

`of_layers` knows the layers of the catalogue's networks, whatever they compute
with. `of_program` looks at the program that JAX makes of any network, whatever
it is written with.
"""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr, JaxprEqn, Literal, jaxprs_in_params

from jaxkd.models.layers import Conv
from jaxkd.models.shufflenet import GroupedConv
from jaxkd.tree import shapes

Sources = frozenset[str]  # what a value is made of: IMAGE, PARAMS, both, none
NONE, IMAGE, PARAMS = (frozenset(x) for x in ((), ('image',), ('params',)))
LAYERS = Conv | GroupedConv | nn.Conv | nn.Dense | nn.DenseGeneral


def of_layers(net: nn.Module, input_shape: tuple[int, int, int]) -> int:
  """Returns the number for one image, [H, W, C], of all `LAYERS`."""
  total = 0

  def record(layer, args, kwargs, context):
    nonlocal total
    y = layer(*args, **kwargs)
    module = context.module
    if context.method_name == '__call__' and isinstance(module, LAYERS):
      kernel = module.variables['params']['kernel']
      total += y.size * kernel.size // int(np.prod(module.features))
    return y

  with nn.intercept_methods(record):
    shapes(net, input_shape)
  return total


def of_program(net: nn.Module, input_shape: tuple[int, int, int]) -> int:
  """Returns the number for one image, [H, W, C], of all products.

  A convolution or a matrix product counts if it multiplies something made of
  the image with something made of parameters alone.
  """
  variables = shapes(net, input_shape)
  image = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
  program = jax.make_jaxpr(net.apply)(variables, image).jaxpr
  marks = {name: PARAMS if name == 'params' else NONE for name in variables}
  sources = [
    marks[path[0].key] for path, _ in jax.tree.leaves_with_path(variables)
  ]
  return _count(program, [*sources, IMAGE])[0]


def _count(
  program: Jaxpr, sources: Sequence[Sources]
) -> tuple[int, list[Sources]]:
  """Returns the number of a program, and what its results are made of."""
  known = dict(zip(program.invars, sources, strict=False))

  def read(variables):
    return [
      NONE if isinstance(x, Literal) else known.get(x, NONE) for x in variables
    ]

  total = 0
  for equation in program.eqns:
    number, made = _one(equation, read(equation.invars))
    total += number
    known.update(zip(equation.outvars, made, strict=True))
  return total, read(program.outvars)


def _one(equation: JaxprEqn, given: list[Sources]) -> tuple[int, list[Sources]]:
  """Returns the number of one equation, and what its results are made of."""
  number, found = 0, []
  name, size = equation.primitive.name, len(equation.outvars)
  if name in PRODUCTS and _weighs(*given):
    number = PRODUCTS[name](equation)
  if name in LOOPS:  # what starts as a constant may be carried from the image
    given = [sources or IMAGE for sources in given]
  # The branches of a condition are alternatives: the largest one counts. What
  # programs are called with is the last that the equation is given.
  for inner in jaxprs_in_params(equation.params):
    inside, results = _count(inner, given[len(given) - len(inner.invars) :])
    number = max(number, inside * equation.params.get('length', 1))
    found += [results] if len(results) == size else []
  made = [NONE.union(*x) for x in zip(*found or [given], strict=True)]
  return number, made if found else [NONE.union(*given)] * size


def _weighs(left: Sources, right: Sources) -> bool:
  """Is one operand made of the image, the other of parameters alone?"""
  return PARAMS in (left, right) and bool(IMAGE & (left | right))


def _of_convolution(equation: JaxprEqn) -> int:
  _, kernel, result = _sizes(equation)
  numbers = equation.params
  features = kernel[numbers['dimension_numbers'].rhs_spec[0]]
  # A transposed one has zeros between the pixels.
  zeros = math.prod(numbers['lhs_dilation'])
  return math.prod(result) * math.prod(kernel) // (features * zeros)


def _of_matrices(equation: JaxprEqn) -> int:
  left, _, result = _sizes(equation)
  (summed, _), _ = equation.params['dimension_numbers']
  return math.prod(result) * math.prod(left[axis] for axis in summed)


def _sizes(equation: JaxprEqn) -> list[tuple[int, ...]]:
  """Returns the shapes of the two operands and of the result."""
  values: list[Any] = [*equation.invars, *equation.outvars]
  return [value.aval.shape for value in values]


PRODUCTS = {
  'conv_general_dilated': _of_convolution,
  'dot_general': _of_matrices,
}
LOOPS = ('scan', 'while')
