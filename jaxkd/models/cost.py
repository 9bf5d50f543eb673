"""Multiply-accumulates (MACs) of a network, from shapes only.

`of_layers` counts the layers of the catalogue's networks, independently of how
they are computed. `of_program` counts the operations of the jaxpr of any
network.
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

Sources = frozenset[str]  # what a value depends on: none, or some of these
NONE, IMAGE, PARAMS, PLATFORM = (
  frozenset(x) for x in ((), ('image',), ('params',), ('platform',))
)
LAYERS = Conv | GroupedConv | nn.Conv | nn.Dense | nn.DenseGeneral


def of_layers(net: nn.Module, input_shape: tuple[int, int, int]) -> int:
  """Returns the MACs of all `LAYERS` for one image [H, W, C]."""
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
  """Returns the MACs of the jaxpr of a network for one image [H, W, C].

  A convolution or matrix product is counted if one operand depends on the image
  and the other one only on parameters.
  """
  variables = shapes(net, input_shape)
  image = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
  program = jax.make_jaxpr(net.apply)(variables, image).jaxpr
  sources = [
    PARAMS if path[0].key == 'params' else NONE
    for path, _ in jax.tree.leaves_with_path(variables)
  ]
  return _count(program, [*sources, IMAGE])[0]


def _count(
  program: Jaxpr, sources: Sequence[Sources]
) -> tuple[int, list[Sources]]:
  """Returns the MACs of a jaxpr, and the sources of its outputs.

  Args:
    program: the jaxpr.
    sources: of its inputs.
  """
  by_variable = dict(zip(program.invars, sources, strict=False))

  def read(variables):
    return [
      NONE if isinstance(x, Literal) else by_variable.get(x, NONE)
      for x in variables
    ]

  total = 0
  for equation in program.eqns:
    macs, outputs = _count_equation(equation, read(equation.invars))
    total += macs
    by_variable.update(zip(equation.outvars, outputs, strict=True))
  return total, read(program.outvars)


def _count_equation(
  equation: JaxprEqn, inputs: list[Sources]
) -> tuple[int, list[Sources]]:
  """Returns the MACs of one equation, and the sources of its outputs.

  Args:
    equation: of a jaxpr.
    inputs: the sources of its inputs.
  """
  macs, by_jaxpr = 0, []
  name, size = equation.primitive.name, len(equation.outvars)
  if name in PRODUCTS and _is_layer(*inputs):
    macs = PRODUCTS[name](equation)
  if name in LOOPS:  # a carry that starts as a constant may depend on the image
    inputs = [sources or IMAGE for sources in inputs]
  # The branches of a condition are alternatives: the largest one counts. The
  # arguments of inner jaxprs are the last inputs of the equation.
  alternatives = list(jaxprs_in_params(equation.params))
  if name == 'platform_index':
    return 0, [PLATFORM]
  if name == 'cond' and PLATFORM <= inputs[0]:  # the last one is the default
    alternatives = alternatives[-1:]
  for inner in alternatives:
    inner_macs, results = _count(
      inner, inputs[len(inputs) - len(inner.invars) :]
    )
    macs = max(macs, inner_macs * equation.params.get('length', 1))
    by_jaxpr += [results] if len(results) == size else []
  if not by_jaxpr:
    return macs, [NONE.union(*inputs)] * size
  return macs, [NONE.union(*x) for x in zip(*by_jaxpr, strict=True)]


def _is_layer(left: Sources, right: Sources) -> bool:
  """Returns whether one operand is an activation and one are parameters."""
  return PARAMS in (left, right) and bool(IMAGE & (left | right))


def _of_convolution(equation: JaxprEqn) -> int:
  _, kernel, result = _sizes(equation)
  numbers = equation.params
  features = kernel[numbers['dimension_numbers'].rhs_spec[0]]
  # The input of a transposed convolution has zeros between the pixels.
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
