"""The arrays of a checkpoint, at any depth, and sets of weights among them."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

TOP = 'top level'  # how messages call the empty prefix
# Parts of names that wrappers insert anywhere (torch.compile, FSDP, activation
# checkpointing), and those between a pickled module and its arrays.
INSERTED = (
  *('_orig_mod', '_fsdp_wrapped_module', '_checkpoint_wrapped_module'),
  *('_modules', '_parameters', '_buffers'),
)


class Entry(NamedTuple):
  """An array of a checkpoint.

  group: keys of the mapping that it is in, each with a dot behind it.
  name: these keys and its name there.
  array: NumPy's or PyTorch's.
  """

  group: str
  name: str
  array: Any


class Weights(NamedTuple):
  """A set of weights in a checkpoint.

  prefix: of its names, with a dot at its end, or ''.
  dialect: whose names they are.
  arrays: by name without the prefix, also arrays that the network lacks.
  left_out: names of other arrays beside them.
  averaged: whether they are a moving average.
  """

  prefix: str
  dialect: str
  arrays: dict[str, Any]
  left_out: tuple[str, ...]
  averaged: bool

  @property
  def key(self) -> str:
    """What messages and the setting `weights` call it."""
    return self.prefix.removesuffix('.') or TOP


def entries(checkpoint: Any) -> list[Entry]:
  """Returns the arrays in mappings and lists, at any depth.

  Args:
    checkpoint: a state dict, or anything with some in it; pickled modules, too.
  """
  arrays = []
  seen: set[int] = set()  # the objects of a pickle may refer to each other
  todo: list[tuple[Any, tuple[str, ...]]] = [(checkpoint, ())]
  while todo:
    node, path = todo.pop()
    if id(node) in seen:
      continue
    seen.add(id(node))
    below = []
    for key, child in children(node):
      if hasattr(child, 'shape') and hasattr(child, 'dtype'):
        name = _joined((*path, key))
        arrays.append(Entry(_joined((*path, '')), name, child))
      else:
        below.append((child, (*path, key)))
    todo += reversed(below)
  return arrays


def _joined(keys: tuple[str, ...]) -> str:
  """Returns keys as one name, without what wrappers insert."""
  parts = '.'.join(keys).split('.')
  return '.'.join(x for x in parts if x not in INSERTED)


def children(node: Any) -> Iterator[tuple[str, Any]]:
  """Yields the items of a mapping or a list with their keys."""
  if isinstance(node, Mapping):
    yield from ((str(key), child) for key, child in node.items())
  elif isinstance(node, list | tuple):
    yield from ((str(i), child) for i, child in enumerate(node))
