"""ONNX models of functions, translated from their jaxpr."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from jaxkd.interop.onnx_graph import (
  BATCH,
  Graph,
  UnsupportedError,
  Value,
  is_number,
)
from jaxkd.interop.onnx_primitives import PRIMITIVES
from jaxkd.types import Array, Tree

OPSET, IR_VERSION = 18, 8  # of the end of 2022: runtimes since then read it
INPUT, OUTPUT = 'image', 'logits'

# Primitives that call another jaxpr, and the parameter that it is.
CALLS = {
  'custom_jvp_call': 'call_jaxpr',
  'custom_vjp_call': 'call_jaxpr',
  'jit': 'jaxpr',
  'remat2': 'jaxpr',
}


def model(
  function: Callable[[Tree, Array], Array],
  variables: Tree,
  image_shape: tuple[int, int, int],
) -> Any:
  """Returns a function as an ONNX model, whose batch may have any size.

  Args:
    function: (variables, image [B, H, W, C]) -> logits [B, K].
    variables: arrays, which become constants.
    image_shape: (H, W, C).

  Returns:
    An `onnx.ModelProto` with the input 'image' and the output 'logits', both
    float32.

  Raises:
    UnsupportedError: a ValueError: an operation has no translation to ONNX.
  """
  (batch,) = jax.export.symbolic_shape(BATCH)
  image = jax.ShapeDtypeStruct((batch, *image_shape), jnp.float32)
  closed = jax.make_jaxpr(function)(variables, image)
  graph = Graph(INPUT)
  arrays = [np.asarray(leaf) for leaf in jax.tree.leaves(variables)]
  (logits,) = _run(graph, closed, [*arrays, INPUT])
  graph.connect('Identity', [logits], [OUTPUT])
  return _assemble(graph, image_shape, closed.out_avals[0].shape[1:])


def _run(
  graph: Graph, inner: ClosedJaxpr | Jaxpr, inputs: Iterable[Value]
) -> list[Value]:
  """Adds the operations of a jaxpr to the graph, and returns its outputs."""
  # A rematerialised function is the only one without a closure of constants.
  jaxpr = inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner
  consts = inner.consts if isinstance(inner, ClosedJaxpr) else []
  values: dict[Any, Value] = dict(zip(jaxpr.invars, inputs, strict=True))
  values |= zip(jaxpr.constvars, map(np.asarray, consts), strict=True)

  def read(atom: Any) -> Value:
    if not isinstance(atom, Literal):
      return values[atom]
    aval: Any = atom.aval  # the value may be a Python number
    return np.asarray(atom.val, aval.dtype)

  for equation in jaxpr.eqns:
    graph.scope = str(equation.source_info.name_stack)
    results = _apply(graph, equation, [read(x) for x in equation.invars])
    values |= zip(equation.outvars, results, strict=True)
  return [read(x) for x in jaxpr.outvars]


def _apply(
  graph: Graph, equation: JaxprEqn, values: Sequence[Value]
) -> Sequence[Value]:
  """Returns the results of one equation."""
  name, params = equation.primitive.name, equation.params
  if name in CALLS:
    return _run(graph, params[CALLS[name]], values)
  if name == 'platform_index':  # none of JAX's platforms is ONNX
    return [np.array(params['platforms'].index(None))]
  if name == 'cond' and not isinstance(values[0], str):
    return _run(graph, params['branches'][int(values[0])], values[1:])
  if _is_constant(equation, values):
    try:
      results = equation.primitive.bind(*values, **params)
    except NotImplementedError as error:  # of the size of the batch
      raise UnsupportedError(f'the primitive {name!r}') from error
    many = equation.primitive.multiple_results
    return jax.device_get(results if many else [results])
  if name not in PRIMITIVES:
    raise UnsupportedError(f'the primitive {name!r}')
  results = PRIMITIVES[name](graph, equation, *values)
  return results if isinstance(results, list) else [results]


def _is_constant(equation: Any, values: Sequence[Value]) -> bool:
  """Returns whether an equation depends on neither input nor batch size."""
  shapes = [variable.aval.shape for variable in equation.outvars]
  fixed = all(is_number(size) for shape in shapes for size in shape)
  return fixed and not any(isinstance(value, str) for value in values)


def _assemble(
  graph: Graph, image_shape: Sequence[int], logits_shape: Sequence[int]
) -> Any:
  """Returns the model of a graph, without operators that the logits ignore."""
  import onnx
  from onnx import helper, numpy_helper

  nodes, needed = [], {OUTPUT}
  for node in reversed(graph.nodes):
    if needed.intersection(node.output):
      nodes.insert(0, node)
      needed.update(node.input)

  def described(name: str, shape: Sequence[int]) -> Any:
    kind = onnx.TensorProto.FLOAT
    return helper.make_tensor_value_info(name, kind, [BATCH, *shape])

  model = helper.make_model(
    helper.make_graph(
      nodes,
      'jaxkd',
      [described(INPUT, image_shape)],
      [described(OUTPUT, logits_shape)],
      [
        numpy_helper.from_array(array, name)
        for name, array in graph.constants.items()
        if name in needed
      ],
    ),
    opset_imports=[helper.make_opsetid('', OPSET)],
    ir_version=IR_VERSION,
    producer_name='jaxkd',
  )
  onnx.checker.check_model(model, full_check=True)
  return model
