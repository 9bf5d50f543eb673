"""The translations of JAX's primitives to ONNX.

Operators are those of opset 18, https://onnx.ai/onnx/operators.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from jaxkd.interop.onnx_graph import (
  Graph,
  UnsupportedError,
  Value,
  integers,
  is_number,
)

Converter = Callable[..., Value | list[Value]]

# One function for each primitive: (graph, equation, *values) -> its value


def _operator(name: str) -> Converter:
  return lambda graph, equation, *values: graph(name, *values)


def _same(graph: Graph, equation: Any, x: Value) -> Value:
  return x


def _not_equal(graph: Graph, equation: Any, x: Value, y: Value) -> Value:
  return graph('Not', graph('Equal', x, y))


def _one_like(equation: Any) -> np.ndarray:
  return np.ones((), equation.outvars[0].aval.dtype)


def _square(graph: Graph, equation: Any, x: Value) -> Value:
  return graph('Mul', x, x)


def _rsqrt(graph: Graph, equation: Any, x: Value) -> Value:
  return graph('Reciprocal', graph('Sqrt', x))


def _erfc(graph: Graph, equation: Any, x: Value) -> Value:
  return graph('Sub', _one_like(equation), graph('Erf', x))


def _log1p(graph: Graph, equation: Any, x: Value) -> Value:
  return graph('Log', graph('Add', _one_like(equation), x))


def _expm1(graph: Graph, equation: Any, x: Value) -> Value:
  return graph('Sub', graph('Exp', x), _one_like(equation))


def _integer_pow(graph: Graph, equation: Any, x: Value) -> Value:
  return graph('Pow', x, equation.params['y'] * _one_like(equation))


def _clamp(
  graph: Graph, equation: Any, low: Value, x: Value, high: Value
) -> Value:
  return graph('Min', graph('Max', x, low), high)


def _select(graph: Graph, equation: Any, which: Value, *cases: Value) -> Value:
  if equation.invars[0].aval.dtype != np.bool_:
    raise UnsupportedError('a choice between more than two values')
  return graph('Where', which, cases[1], cases[0])


def _cast(graph: Graph, equation: Any, x: Value) -> Value:
  from onnx import helper

  dtype = np.dtype(equation.params['new_dtype'])
  if dtype == equation.invars[0].aval.dtype:
    return x
  return graph('Cast', x, to=helper.np_dtype_to_tensor_dtype(dtype))


def _reshape(graph: Graph, equation: Any, x: Value) -> Value:
  return graph.reshape(x, equation.outvars[0].aval.shape)


def _transpose(graph: Graph, equation: Any, x: Value) -> Value:
  return graph.transpose(x, equation.params['permutation'])


def _broadcast(graph: Graph, equation: Any, x: Value) -> Value:
  old, new = equation.invars[0].aval.shape, equation.params['shape']
  aligned: list[Any] = [1] * len(new)
  for size, axis in zip(
    old, equation.params['broadcast_dimensions'], strict=True
  ):
    aligned[axis] = size
  if tuple(aligned) != tuple(old):
    x = graph.reshape(x, aligned)
  if tuple(aligned) == tuple(new):
    return x
  # A 1 leaves the size as it is in ONNX.
  wanted = [1 if a == n else n for a, n in zip(aligned, new, strict=True)]
  return graph('Expand', x, graph.sizes(wanted))


def _concatenate(graph: Graph, equation: Any, *parts: Value) -> Value:
  return graph('Concat', *parts, axis=equation.params['dimension'])


def _stack(graph: Graph, equation: Any, *parts: Value) -> Value:
  axis = equation.params['axis']
  rows = [graph('Unsqueeze', part, integers([axis])) for part in parts]
  return graph('Concat', *rows, axis=axis)


def _slice(graph: Graph, equation: Any, x: Value) -> Value:
  shape, params = equation.invars[0].aval.shape, equation.params
  starts, ends = params['start_indices'], params['limit_indices']
  return _cut(graph, x, shape, starts, ends, params['strides'])


def _cut(
  graph: Graph,
  x: Value,
  shape: Sequence[Any],
  starts: Sequence[Any],
  ends: Sequence[Any],
  steps: Sequence[int] | None = None,
) -> Value:
  """Returns the part of x, of this shape, between starts and ends."""
  steps = steps or (1,) * len(shape)
  axes = range(len(shape))
  cut = [
    row
    for row in zip(starts, ends, axes, steps, strict=True)
    if row != (0, shape[row[2]], row[2], 1)
  ]
  if not all(is_number(number) for row in cut for number in row):
    raise UnsupportedError('a part of the batch')
  return graph('Slice', x, *map(integers, zip(*cut, strict=True))) if cut else x


def _gather(graph: Graph, equation: Any, x: Value, where: Value) -> Value:
  """Adds the gather of basic indexing, or of indexing by one list."""
  numbers = equation.params['dimension_numbers']
  shape, wanted = (
    equation.invars[0].aval.shape,
    equation.outvars[0].aval.shape,
  )
  sizes, axes = equation.params['slice_sizes'], numbers.start_index_map
  if isinstance(where, str):
    raise UnsupportedError('indices that depend on the image')
  if where.ndim == 1:
    starts = [0] * len(shape)
    for axis, start in zip(axes, where.tolist(), strict=True):
      starts[axis] = start
    ends = [i + size for i, size in zip(starts, sizes, strict=True)]
    return graph.reshape(_cut(graph, x, shape, starts, ends), wanted)
  others = tuple(i for i in range(len(shape)) if i not in axes)
  if where.ndim == 2 and numbers.offset_dims == others and len(axes) == 1:
    return graph('Gather', x, where[:, 0].astype(np.int64), axis=axes[0])
  raise UnsupportedError('indexing by more than one array')


def _reverse(graph: Graph, equation: Any, x: Value) -> Value:
  axes = equation.params['dimensions']
  last, beyond, back = ([n] * len(axes) for n in (-1, -(2**31), -1))
  return graph('Slice', x, *map(integers, (last, beyond, axes, back)))


def _split(graph: Graph, equation: Any, x: Value) -> list[Value]:
  sizes, axis = equation.params['sizes'], equation.params['axis']
  return graph.several(len(sizes), 'Split', x, integers(sizes), axis=axis)


def _pad(graph: Graph, equation: Any, x: Value, value: Value) -> Value:
  low, high, between = zip(*equation.params['padding_config'], strict=True)
  if any(between):
    raise UnsupportedError('padding between pixels')
  return graph('Pad', x, integers((*low, *high)), value)


def _reduce(name: str) -> Converter:
  def convert(graph: Graph, equation: Any, x: Value) -> Value:
    axes = integers(equation.params['axes'])
    return graph(name, x, axes, keepdims=0)

  return convert


def _arg_reduce(name: str) -> Converter:
  def convert(graph: Graph, equation: Any, x: Value) -> Value:
    from onnx import helper

    (axis,) = equation.params['axes']
    dtype = np.dtype(equation.params['index_dtype'])
    index = graph(name, x, axis=axis, keepdims=0)
    return graph('Cast', index, to=helper.np_dtype_to_tensor_dtype(dtype))

  return convert


def _cumsum(graph: Graph, equation: Any, x: Value) -> Value:
  axis = np.array(equation.params['axis'], np.int64)
  return graph('CumSum', x, axis, reverse=int(equation.params['reverse']))


def _sort(graph: Graph, equation: Any, x: Value, *others: Value) -> list[Value]:
  if others:
    raise UnsupportedError('sorting by another array')
  axis = equation.params['dimension']
  size = integers([equation.invars[0].aval.shape[axis]])
  return graph.several(2, 'TopK', x, size, axis=axis, largest=0)[:1]


def _dot(graph: Graph, equation: Any, x: Value, y: Value) -> Value:
  """Adds a product of matrices [rows..., M, S] and [rows..., S, N]."""
  (sums, its_sums), (rows, its_rows) = equation.params['dimension_numbers']
  shape, its_shape = (tuple(v.aval.shape) for v in equation.invars)
  free, its_free = (
    [i for i in range(len(size)) if i not in used]
    for size, used in (
      (shape, {*rows, *sums}),
      (its_shape, {*its_rows, *its_sums}),
    )
  )

  def arranged(x: Value, shape: Sequence[Any], *axes: Sequence[int]) -> Value:
    first, *matrix = axes
    sizes = [shape[i] for i in first]
    sizes += [math.prod(shape[i] for i in group) for group in matrix]
    x = graph.transpose(x, [i for group in axes for i in group])
    whole = all(len(group) == 1 for group in matrix)
    return x if whole else graph.reshape(x, sizes)

  x = arranged(x, shape, rows, free, sums)
  y = arranged(y, its_shape, its_rows, its_sums, its_free)
  product = graph('MatMul', x, y)
  whole = len(free) == len(its_free) == 1
  return (
    product if whole else graph.reshape(product, equation.outvars[0].aval.shape)
  )


def _convolution(graph: Graph, equation: Any, x: Value, kernel: Value) -> Value:
  params = equation.params
  numbers, padding = params['dimension_numbers'], params['padding']
  if {*params['lhs_dilation'], params['batch_group_count']} != {1}:
    raise UnsupportedError('a transposed convolution')
  y = graph(
    'Conv',
    graph.transpose(x, numbers.lhs_spec),
    graph.transpose(kernel, numbers.rhs_spec),
    strides=params['window_strides'],
    pads=_pads(padding),
    dilations=params['rhs_dilation'],
    group=params['feature_group_count'],
  )
  return graph.transpose(y, np.argsort(numbers.out_spec))


def _pads(padding: Iterable[tuple[int, int]]) -> tuple[int, ...]:
  low, high = zip(*padding, strict=True)
  if min(*low, *high) < 0:
    raise UnsupportedError(f'a window with the padding {tuple(padding)}')
  return (*low, *high)


def _pool(
  graph: Graph, equation: Any, name: str, x: Value, **kwargs: Any
) -> Value:
  """Adds a pooling of NHWC maps, which ONNX has for NCHW."""
  params = equation.params
  window, strides, padding = (
    params[key] for key in ('window_dimensions', 'window_strides', 'padding')
  )
  outer = [(window[i], strides[i], *padding[i]) for i in (0, -1)]
  if outer != [(1, 1, 0, 0)] * 2 or {
    *params['base_dilation'],
    *params['window_dilation'],
  } != {1}:
    raise UnsupportedError('a window over more than H and W, or with gaps')
  last = len(window) - 1
  y = graph(
    name,
    graph.transpose(x, (0, last, *range(1, last))),
    kernel_shape=window[1:-1],
    strides=strides[1:-1],
    pads=_pads(padding[1:-1]),
    **kwargs,
  )
  return graph.transpose(y, (0, *range(2, last + 1), 1))


def _max_pool(graph: Graph, equation: Any, x: Value) -> Value:
  return _pool(graph, equation, 'MaxPool', x)


def _sum_pool(graph: Graph, equation: Any, x: Value) -> Value:
  # With the padding counted, an average is the sum over the window's size.
  mean = _pool(graph, equation, 'AveragePool', x, count_include_pad=1)
  size = math.prod(equation.params['window_dimensions'])
  return graph('Mul', mean, size * _one_like(equation))


PRIMITIVES: dict[str, Converter] = {
  'abs': _operator('Abs'),
  'add': _operator('Add'),
  'and': _operator('And'),
  'argmax': _arg_reduce('ArgMax'),
  'argmin': _arg_reduce('ArgMin'),
  'broadcast_in_dim': _broadcast,
  'ceil': _operator('Ceil'),
  'clamp': _clamp,
  'concatenate': _concatenate,
  'conv_general_dilated': _convolution,
  'convert_element_type': _cast,
  'copy': _same,
  'cos': _operator('Cos'),
  'cumsum': _cumsum,
  'div': _operator('Div'),
  'dot_general': _dot,
  'eq': _operator('Equal'),
  'erf': _operator('Erf'),
  'erfc': _erfc,
  'exp': _operator('Exp'),
  'expm1': _expm1,
  'floor': _operator('Floor'),
  'gather': _gather,
  'ge': _operator('GreaterOrEqual'),
  'gt': _operator('Greater'),
  'integer_pow': _integer_pow,
  'le': _operator('LessOrEqual'),
  'log': _operator('Log'),
  'log1p': _log1p,
  'logistic': _operator('Sigmoid'),
  'lt': _operator('Less'),
  'max': _operator('Max'),
  'min': _operator('Min'),
  'mul': _operator('Mul'),
  'ne': _not_equal,
  'neg': _operator('Neg'),
  'not': _operator('Not'),
  'or': _operator('Or'),
  'pad': _pad,
  'pow': _operator('Pow'),
  'reduce_max': _reduce('ReduceMax'),
  'reduce_min': _reduce('ReduceMin'),
  'reduce_prod': _reduce('ReduceProd'),
  'reduce_sum': _reduce('ReduceSum'),
  'reduce_window_max': _max_pool,
  'reduce_window_sum': _sum_pool,
  'reshape': _reshape,
  'rev': _reverse,
  'rsqrt': _rsqrt,
  'select_n': _select,
  'sign': _operator('Sign'),
  'sin': _operator('Sin'),
  'slice': _slice,
  'sort': _sort,
  'split': _split,
  'sqrt': _operator('Sqrt'),
  'square': _square,
  'squeeze': _reshape,
  'stack': _stack,
  'stop_gradient': _same,
  'sub': _operator('Sub'),
  'tanh': _operator('Tanh'),
  'transpose': _transpose,
}
