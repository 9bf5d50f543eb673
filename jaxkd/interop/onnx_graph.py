"""An ONNX graph that grows by one operator at a time.

A value is an array as long as it follows from the parameters alone, and the
name of a tensor as soon as it depends on the input. So everything that can be
computed in advance is, such as BatchNorm's factors.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

BATCH = 'batch'  # the name of the axis whose size is left open

Value = np.ndarray | str


class UnsupportedError(ValueError):
  """An operation of a network has no translation to ONNX."""

  def __init__(self, what: str):
    super().__init__(
      f'there is no translation to ONNX of {what}, which the network uses:'
      ' export it to .stablehlo, which takes any network'
    )


class Graph:
  """Operators in order, and the constants that they read.

  Attributes:
    source: the name of the input, whose first axis is the batch.
    scope: prefix of the names of added operators: the module's path.
    nodes: the operators so far.
    constants: arrays by name.
  """

  def __init__(self, source: str):
    self.source = source
    self.scope = ''
    self.nodes: list[Any] = []
    self.constants: dict[str, np.ndarray] = {}
    self._names: dict[tuple, str] = {}
    self._rows: Value | None = None

  def __call__(self, operator: str, *inputs: Value, **attributes: Any) -> Value:
    """Adds an operator, and returns the name of its one output.

    Args:
      operator: its name in ONNX.
      *inputs: names, or arrays, which become constants.
      **attributes: of the operator.
    """
    (name,) = self.several(1, operator, *inputs, **attributes)
    return name

  def several(
    self, outputs: int, operator: str, *inputs: Value, **attributes: Any
  ) -> list[Value]:
    """Adds an operator, and returns the names of its outputs."""
    stem = f'{self.scope}/{operator.lower()}_{len(self.nodes)}'.lstrip('/')
    names = [stem] if outputs == 1 else [f'{stem}_{i}' for i in range(outputs)]
    self.connect(operator, inputs, names, **attributes)
    return [*names]

  def connect(
    self,
    operator: str,
    inputs: Iterable[Value],
    outputs: Sequence[str],
    **attributes: Any,
  ) -> None:
    """Adds an operator whose outputs have these names."""
    from onnx import helper

    named = [x if isinstance(x, str) else self._constant(x) for x in inputs]
    name = outputs[0]
    node = helper.make_node(operator, named, outputs, name=name, **attributes)
    self.nodes.append(node)

  def _constant(self, value: Any) -> str:
    """Returns the name of an array, which is stored once."""
    array = np.asarray(value)
    key = (array.dtype.str, array.shape, array.tobytes())
    name = self._names.setdefault(key, f'constant_{len(self._names)}')
    self.constants[name] = array
    return name

  def transpose(self, x: Value, axes: Iterable[int]) -> Value:
    """Returns x with its axes in another order."""
    axes = [int(axis) for axis in axes]
    if axes == sorted(axes):
      return x
    if isinstance(x, str):
      return self('Transpose', x, perm=axes)
    return np.transpose(x, axes)

  def reshape(self, x: Value, shape: Sequence[Any]) -> Value:
    """Returns x in a shape, in which one size may depend on the batch's.

    Raises:
      UnsupportedError: more than one does.
    """
    sizes = [size if is_number(size) else -1 for size in shape]
    if sizes.count(-1) > 1:
      raise UnsupportedError(f'the shape {tuple(shape)}')
    if isinstance(x, str):
      return self('Reshape', x, integers(sizes))
    return np.reshape(x, sizes)

  def sizes(self, shape: Sequence[Any]) -> Value:
    """Returns a shape as a value; the batch's size is looked up in the input.

    Raises:
      UnsupportedError: it has a size that follows from the batch's.
    """
    if all(map(is_number, shape)):
      return integers(shape)
    if any(str(size) != BATCH for size in shape if not is_number(size)):
      raise UnsupportedError(f'the shape {tuple(shape)}')
    self._rows = self._rows or self('Shape', self.source, start=0, end=1)
    parts = [integers([s]) if is_number(s) else self._rows for s in shape]
    return self('Concat', *parts, axis=0)


def is_number(size: Any) -> bool:
  """Returns whether a size is a number, not the symbolic size of the batch."""
  return isinstance(size, int | np.integer)


def integers(values: Iterable[Any]) -> np.ndarray:
  """Returns integers as the int64 array that ONNX takes for shapes and axes."""
  return np.array(list(values), np.int64)
