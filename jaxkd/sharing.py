"""Values that the runs of one process share: data, and tables of outputs.

Inside of `sharing()`, `shared` returns the value that an earlier call with the
same key has made; outside, each caller gets its own, and nothing is kept.
"""

import collections
import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

T = TypeVar('T')

# By kind: key -> (value, size), the latest used last. None: nothing is shared.
_kept: dict[str, collections.OrderedDict[str, tuple[Any, int]]] | None = None


@contextlib.contextmanager
def sharing() -> Iterator[None]:
  """Shares values until the block ends; a block inside of another adds none."""
  global _kept
  outermost = _kept is None
  if outermost:
    _kept = {}
  try:
    yield
  finally:
    if outermost:
      _kept = None


def shared(
  kind: str, key: str, make: Callable[[], T], size: int = 1, limit: int = 1
) -> T:
  """Returns a value, made now or by an earlier call with the same key.

  Args:
    kind: of values, such as 'data'.
    key: of the value among those of its kind.
    make: makes the value.
    size: of the value; any unit, the same for all of a kind.
    limit: of the sizes of all values of this kind. Those that have not been
      used for the longest time are dropped first; a value that is larger than
      the limit is kept alone.
  """
  if _kept is None:
    return make()
  values = _kept.setdefault(kind, collections.OrderedDict())
  if key in values:
    values.move_to_end(key)
    return values[key][0]
  while values and sum(n for _, n in values.values()) + size > limit:
    values.popitem(last=False)
  value = make()
  values[key] = value, size
  return value
