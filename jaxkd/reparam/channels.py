"""Layers, by what they compute: each channel is linear in one of the kernel's.

An equation of a program is a layer if scaling a channel of one of its operands,
the kernel, scales that channel of its result and no other, whatever the rest of
its operands. It is derived from the rules below, also through the equations of
a function that it calls, such as a convolution with gradients of its own. A
primitive without a rule is not assumed to be linear.

A value's labels say by which of the kernel's channels each of its entries is
scaled: int, of the value's shape, with length 1 along axes where all are equal.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var

from jaxkd.reparam import programs

Labels = np.ndarray
PRODUCTS = ('conv_general_dilated', 'dot_general')
SWITCH, PLATFORM = 'cond', 'platform_index'


class Layer(NamedTuple):
  """Where an equation's channels are.

  kernel: which operand is scaled.
  axis: of the kernel's channels.
  output: axis of the result's channels.
  """

  kernel: int
  axis: int
  output: int


class _NotLinearError(Exception):
  """There is no rule by which channels are scaled."""


def layers(
  equation: JaxprEqn, producers: Mapping[Var, JaxprEqn]
) -> Iterator[Layer]:
  """Yields the ways in which an equation is a layer.

  Args:
    equation: of a program.
    producers: of its operands, see `programs.producers`.
  """
  if not _has_product(equation):
    return
  for kernel, operand in enumerate(equation.invars):
    if not is_float(operand):
      continue
    shape = programs.shape(operand)
    for axis in range(len(shape) - 1, -1, -1):
      labels = np.arange(shape[axis]).reshape(
        [-1 if i == axis else 1 for i in range(len(shape))]
      )
      inputs = [labels if i == kernel else None for i in range(kernel + 1)]
      inputs += [None] * (len(equation.invars) - len(inputs))
      try:
        result = _follow(equation, inputs, producers)
      except _NotLinearError:
        continue
      if result is not None and result.size == shape[axis] > 1:
        if np.array_equal(result.reshape(-1), np.arange(shape[axis])):
          yield Layer(kernel, axis, int(np.argmax(result.shape)))


def is_float(variable: Any) -> bool:
  """Returns whether a variable or literal is an array of real numbers."""
  return jnp.issubdtype(programs.dtype(variable), jnp.floating)


def is_layer(equation: JaxprEqn) -> bool:
  """Returns whether a call is a layer, whatever its operands come from."""
  return next(layers(equation, {}), None) is not None


def _has_product(equation: JaxprEqn) -> bool:
  """Returns whether there is a convolution or a matrix product inside."""
  if equation.primitive.name in PRODUCTS:
    return True
  inner = programs.called(equation)
  jaxprs = [inner] if inner else _alternatives(equation)
  return any(_has_product(x) for jaxpr, _ in jaxprs for x in jaxpr.eqns)


def _alternatives(equation: JaxprEqn) -> list[tuple[Jaxpr, Sequence[Any]]]:
  """Returns the branches of a condition."""
  if equation.primitive.name != SWITCH:
    return []
  return [programs.opened(branch) for branch in equation.params['branches']]


def _follow(
  equation: JaxprEqn,
  inputs: Sequence[Labels | None],
  producers: Mapping[Var, JaxprEqn],
) -> Labels | None:
  """Returns the labels of an equation's result, from those of its operands.

  None are the labels of a value that is not scaled.

  Raises:
    _NotLinearError: there is no rule.
  """
  if all(labels is None for labels in inputs):
    return None
  inner = programs.called(equation)
  if inner is not None:
    return _through(inner[0], inputs)
  if equation.primitive.name == SWITCH:
    return _by_platform(equation, inputs, producers)
  rule = RULES.get(equation.primitive.name)
  if rule is None:
    raise _NotLinearError
  return _reduced(rule(equation, *inputs))


def _through(jaxpr: Jaxpr, inputs: Sequence[Labels | None]) -> Labels | None:
  """Returns the labels of a jaxpr's only result."""
  labels: dict[Any, Labels | None] = {x: None for x in jaxpr.constvars}
  labels.update(zip(jaxpr.invars, inputs, strict=True))
  equations = programs.live(jaxpr)
  producers = programs.producers(equations)

  def read(atoms):
    return [None if isinstance(x, Literal) else labels[x] for x in atoms]

  for equation in equations:
    operands = read(equation.invars)
    scaled = any(x is not None for x in operands)
    if scaled and len(equation.outvars) > 1:
      raise _NotLinearError
    result = _follow(equation, operands, producers)
    labels.update(dict.fromkeys(equation.outvars, result))
  if len(jaxpr.outvars) != 1:
    raise _NotLinearError
  return read(jaxpr.outvars)[0]


def _by_platform(
  equation: JaxprEqn,
  inputs: Sequence[Labels | None],
  producers: Mapping[Var, JaxprEqn],
) -> Labels | None:
  """Returns the labels after one of several ways to compute the same function.

  They are those of `lax.platform_dependent`, of which one with rules is enough.
  """
  index, *operands = inputs
  condition: Any = equation.invars[0]
  source = producers.get(condition)
  if index is not None or source is None:
    raise _NotLinearError
  if source.primitive.name != PLATFORM:
    raise _NotLinearError
  for jaxpr, _ in _alternatives(equation):
    try:
      return _through(jaxpr, operands)
    except _NotLinearError:
      continue
  raise _NotLinearError


def _reduced(labels: Labels) -> Labels:
  """Returns labels with length 1 along the axes where they are equal."""
  for axis in range(labels.ndim):
    first = np.take(labels, [0], axis)
    if np.all(labels == first):
      labels = first
  return labels


def _unchanged(equation: JaxprEqn, labels: Any) -> Labels:
  if not is_float(equation.outvars[0]):  # rounded to integers
    raise _NotLinearError
  return labels


def _product(equation: JaxprEqn, left: Any, right: Any) -> Labels:
  if left is not None and right is not None:
    raise _NotLinearError
  labels: Any = right if left is None else left
  return _of_rank(equation, labels)


def _quotient(equation: JaxprEqn, left: Any, right: Any) -> Labels:
  if right is not None:
    raise _NotLinearError
  return _of_rank(equation, left)


def _of_rank(equation: JaxprEqn, labels: Labels) -> Labels:
  """Returns labels whose value is not repeated along new axes."""
  if labels.ndim != len(programs.shape(equation.outvars[0])):
    raise _NotLinearError
  return labels


def _sum(equation: JaxprEqn, left: Any, right: Any) -> Labels:
  """Both summands have to be scaled, and equally."""
  if left is None or right is None or left.ndim != right.ndim:
    raise _NotLinearError
  left, right = np.broadcast_arrays(left, right)
  if not np.array_equal(left, right):
    raise _NotLinearError
  return left


def _reshaped(equation: JaxprEqn, labels: Any, *_: Any) -> Labels:
  """Axes that are merged or split get all their labels if any of them has."""
  if equation.params.get('dimensions') is not None:
    raise _NotLinearError
  old = list(programs.shape(equation.invars[0]))
  new = list(programs.shape(equation.outvars[0]))
  full, target, i, j = [], [], 0, 0
  while i < len(old) or j < len(new):
    first, second = i, j
    many, few = 1, 1  # entries of the group's axes, before and after
    i, many = (i + 1, old[i]) if i < len(old) else (i, 1)
    j, few = (j + 1, new[j]) if j < len(new) else (j, 1)
    while many != few:
      if many < few:
        i, many = i + 1, many * old[i]
      else:
        j, few = j + 1, few * new[j]
    varies = any(n > 1 for n in labels.shape[first:i])
    full += old[first:i] if varies else [1] * (i - first)
    target += new[second:j] if varies else [1] * (j - second)
  return np.broadcast_to(labels, full).reshape(target)


def _broadcast(equation: JaxprEqn, labels: Any, *_: Any) -> Labels:
  shape = [1] * len(programs.shape(equation.outvars[0]))
  axes = equation.params['broadcast_dimensions']
  for axis, n in zip(axes, labels.shape, strict=True):
    shape[axis] = n
  return labels.reshape(shape)


def _squeezed(equation: JaxprEqn, labels: Any) -> Labels:
  return np.squeeze(labels, equation.params['dimensions'])


def _transposed(equation: JaxprEqn, labels: Any) -> Labels:
  return np.transpose(labels, equation.params['permutation'])


def _sliced(equation: JaxprEqn, labels: Any) -> Labels:
  params = equation.params
  strides = params['strides'] or [1] * labels.ndim
  part = [
    slice(start, stop, stride) if n > 1 else slice(None)
    for n, start, stop, stride in zip(
      labels.shape,
      params['start_indices'],
      params['limit_indices'],
      strides,
      strict=True,
    )
  ]
  return labels[tuple(part)]


def _concatenated(equation: JaxprEqn, *parts: Any) -> Labels:
  return _joined(equation.params['dimension'], equation, parts)


def _stacked(equation: JaxprEqn, *parts: Any) -> Labels:
  axis = equation.params['axis']
  if any(part is None for part in parts):
    raise _NotLinearError
  return _joined(axis, None, [np.expand_dims(x, axis) for x in parts])


def _joined(
  axis: int, equation: JaxprEqn | None, parts: Sequence[Any]
) -> Labels:
  """Returns the labels of values one after the other.

  Args:
    axis: along which.
    equation: whose operands they are; None: each has length 1.
    parts: labels of each.
  """
  if any(part is None for part in parts):
    raise _NotLinearError
  others = [(*x.shape[:axis], *x.shape[axis + 1 :]) for x in parts]
  shape = list(np.broadcast_shapes(*others))
  sizes = [1] * len(parts)
  if equation is not None:
    sizes = [programs.shape(x)[axis] for x in equation.invars]
  whole = [
    np.broadcast_to(part, [*shape[:axis], size, *shape[axis:]])
    for part, size in zip(parts, sizes, strict=True)
  ]
  return np.concatenate(whole, axis)


def _summed(equation: JaxprEqn, labels: Any) -> Labels:
  axes = tuple(equation.params['axes'])
  if any(labels.shape[axis] > 1 for axis in axes):
    raise _NotLinearError
  return np.squeeze(labels, axes)


def _matrix_product(equation: JaxprEqn, left: Any, right: Any) -> Labels:
  summed, batch = equation.params['dimension_numbers']
  if left is not None and right is not None:
    raise _NotLinearError
  side = 0 if right is None else 1
  labels: Any = left if right is None else right
  if any(labels.shape[axis] > 1 for axis in summed[side]):
    raise _NotLinearError
  taken = [
    [
      i
      for i in range(len(programs.shape(x)))
      if i not in (*summed[n], *batch[n])
    ]
    for n, x in enumerate(equation.invars)
  ]
  free = [len(axes) for axes in taken]
  labels = np.transpose(labels, (*batch[side], *taken[side], *summed[side]))
  shape = list(labels.shape[: len(batch[side]) + free[side]])
  split = len(batch[side])
  ones = [1] * free[1 - side]
  own = shape[split:]
  own = own + ones if side == 0 else ones + own
  return labels.reshape(shape[:split] + own)


def _convolution(equation: JaxprEqn, left: Any, right: Any) -> Labels:
  numbers = equation.params['dimension_numbers']
  features = numbers.rhs_spec[0]
  if left is not None or right.size != right.shape[features]:
    raise _NotLinearError
  if equation.params['batch_group_count'] != 1:
    raise _NotLinearError
  shape = [1] * right.ndim
  shape[numbers.out_spec[1]] = right.size
  return right.reshape(shape)


RULES: Mapping[str, Callable[..., Labels]] = {
  'add': _sum,
  'add_any': _sum,
  'broadcast_in_dim': _broadcast,
  'concatenate': _concatenated,
  'conv_general_dilated': _convolution,
  'convert_element_type': _unchanged,
  'copy': _unchanged,
  'div': _quotient,
  'dot_general': _matrix_product,
  'mul': _product,
  'neg': _unchanged,
  'reduce_sum': _summed,
  'reshape': _reshaped,
  'slice': _sliced,
  'squeeze': _squeezed,
  'stack': _stacked,
  'sub': _sum,
  'transpose': _transposed,
}
