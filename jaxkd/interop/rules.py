"""Rules that turn our name of an array into the names of another project.

A rule is a regular expression and its replacement. The rules of a dialect are
applied one after another to a name whose last part is PyTorch's already:
'conv_stem.weight'. A replacement can also say that the array has another layout
there, in one of two ways:

  'attention.{query,key,value}.weight'   one array for each of these names: the
                                         parts of ours along the first axis
  'layer_scale[..., 1, 1]'               further axes of size 1 at the end
"""

import re
from collections.abc import Callable, Iterable, Mapping

import numpy as np

Rule = tuple[str, str | Callable[[re.Match], str]]
Rules = tuple[Rule, ...]

LEAVES = {
  'kernel': 'weight',
  'scale': 'weight',
  'bias': 'bias',
  'mean': 'running_mean',
  'var': 'running_var',
}
BLOCK = r'stage(\d+)_block(\d+)/'


def translate(name: str, rules: Rules) -> str:
  """Returns PyTorch's name of a leaf, with the marks of its layout.

  Args:
    name: 'stage1_block0/conv1/kernel', without the collection.
    rules: of a dialect.
  """
  module, _, leaf = name.rpartition('/')
  name = f'{module}.{LEAVES[leaf]}' if leaf in LEAVES else name
  for pattern, replacement in rules:
    name = re.sub(pattern, replacement, name)
  return name.replace('/', '.')


def spread(name: str, array: np.ndarray) -> dict[str, np.ndarray]:
  """Returns the arrays of a state dict that one array stands for.

  Args:
    name: from `translate`.
    array: in PyTorch's layout, apart from the marks in the name.
  """
  name, axes = _unmarked(name)
  names = alternatives(name)
  pieces = np.split(array, len(names)) if len(names) > 1 else [array]
  return {
    part: piece.reshape(*piece.shape, *axes)
    for part, piece in zip(names, pieces, strict=True)
  }


def joined(name: str, entries: Mapping[str, np.ndarray]) -> np.ndarray:
  """Returns one array from those of a state dict: inverts `spread`.

  Args:
    name: from `translate`.
    entries: of the state dict, by name.
  """
  name, axes = _unmarked(name)
  pieces = [entries[part] for part in alternatives(name)]
  array = np.concatenate(pieces) if len(pieces) > 1 else pieces[0]
  return array.reshape(array.shape[: array.ndim - len(axes)])


def numbered(pattern: str, theirs: Iterable[str], ours: Iterable[str]) -> Rule:
  """Returns the rule for blocks that are numbered differently there.

  Args:
    pattern: of all blocks of ours.
    theirs: prefixes there, one for each block.
    ours: prefixes here, in the same order.
  """
  table = dict(zip(ours, theirs, strict=True))
  return pattern, lambda match: table[match[0]]


def _unmarked(name: str) -> tuple[str, tuple[int, ...]]:
  """Returns a name without its mark of further axes, and these axes."""
  name, mark, axes = name.partition('[..., ')
  return name, tuple(map(int, axes.rstrip(']').split(', '))) if mark else ()


def alternatives(name: str) -> list[str]:
  """Returns the names that a name with alternatives in braces stands for."""
  match = re.fullmatch(r'(.*)\{(.*)\}(.*)', name)
  if not match:
    return [name]
  before, alternatives, after = match.groups()
  return [f'{before}{part}{after}' for part in alternatives.split(',')]
