"""Which arrays of a checkpoint are the weights of a network.

A checkpoint may have a state dict under any key, or several of them, and any
prefix in front of its names: 'state_dict_ema' -> 'module.conv1.weight'. So a
set of weights is a prefix under which all names of the network occur; keys and
parts of names are treated alike.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxkd.interop.torch_pickle import Object, Ordered

AVERAGE, RAW = 'average', 'raw'  # values of the setting `weights`
TOP = 'top level'  # how messages call the empty prefix
# Parts of names that wrappers insert anywhere (torch.compile, FSDP, activation
# checkpointing), and those between a pickled module and its arrays.
INSERTED = (
  *('_orig_mod', '_fsdp_wrapped_module', '_checkpoint_wrapped_module'),
  *('_modules', '_parameters', '_buffers'),
)
COUNT = 'n_averaged'  # of torch.optim.swa_utils.AveragedModel
# Last parts of the names of arrays that are no weights: the counters of
# BatchNorm and of averages, and the counts of operations by thop.
BOOKKEEPING = ('num_batches_tracked', COUNT, 'total_ops', 'total_params')
# Keys of an optimizer, whose moments may have the names of the weights.
OPTIMIZER = re.compile(r'opt(im(izers?)?)?(_state(s|_dict)?)?|exp_avg(_sq)?')
WORDS = re.compile(r'[A-Z]+(?![a-z])|[A-Z]?[a-z]+')
AVERAGED = {'average', 'averaged', 'avg', 'ema', 'polyak', 'shadow', 'swa'}
# Lightning saves the average under the first key, if it saves the second one.
LIGHTNING = ('state_dict', 'current_model_state')
SHOWN = 3  # names in a message

Names = Mapping[str, frozenset[str]]  # dialect -> names of all arrays


class Entry(NamedTuple):
  """An array of a checkpoint.

  group: keys of the mapping that it is in.
  name: these keys and its name there, joined by dots.
  array: NumPy's or PyTorch's.
  """

  group: tuple[str, ...]
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


def choose(
  checkpoint: Any,
  model: str,
  names: Names,
  fits: Callable[[Weights], bool],
  weights: str = '',
) -> tuple[Weights, tuple[str, ...]]:
  """Returns the weights of a network in a checkpoint, and notes on the choice.

  If no set of weights has exactly the names of the network, it is the set with
  the most of them.

  Args:
    checkpoint: see `entries`.
    model: name of the network.
    names: of its arrays, in each dialect, the most common first.
    fits: whether a set with the right names has the right shapes.
    weights: 'average' or 'raw', or the key of a set, or the part of its key
      that no other has; '': the average if there is one.

  Raises:
    ValueError: there are no weights of the network, or none of that kind, or
      several.
  """
  sets = _sets(checkpoint, model, names, weights)
  exact = [x for x in sets if not x.arrays.keys() ^ names[x.dialect]]
  if len(exact) > 1:
    exact = [x for x in exact if fits(x)] or exact
  if not exact:
    chosen = max(
      sets,
      key=lambda x: (len(x.arrays.keys() & names[x.dialect]), -len(x.arrays)),
    )
    _check_names(chosen, model, names[chosen.dialect])
    return chosen, ()
  chosen = _choice(exact, model, weights)
  return chosen, tuple(_notes(chosen, exact))


def entries(checkpoint: Any) -> list[Entry]:
  """Returns the arrays in mappings and lists, at any depth.

  Args:
    checkpoint: a state dict, or anything with some in it; pickled modules, too.
  """
  arrays = []
  seen: set[int] = set()  # the objects of a pickle may refer to each other
  todo: list[tuple[Any, tuple[str, ...], tuple[str, ...] | None]] = [
    (checkpoint, (), None)
  ]
  while todo:
    node, path, module = todo.pop()
    if id(node) in seen:
      continue
    seen.add(id(node))
    # All arrays of a pickled module count as one mapping.
    if isinstance(node, Object) and not isinstance(node, Ordered):
      module = path if module is None else module
    below = []
    for key, child in _children(node):
      if hasattr(child, 'shape') and hasattr(child, 'dtype'):
        parts = '.'.join((*path, key)).split('.')
        name = '.'.join(x for x in parts if x not in INSERTED)
        arrays.append(Entry(path if module is None else module, name, child))
      else:
        below.append((child, (*path, key), module))
    todo += reversed(below)
  return arrays


def _children(node: Any) -> Iterator[tuple[str, Any]]:
  if isinstance(node, Mapping):
    yield from ((str(key), child) for key, child in node.items())
  elif isinstance(node, list | tuple):
    yield from ((str(i), child) for i, child in enumerate(node))


def _sets(
  checkpoint: Any, model: str, names: Names, weights: str
) -> list[Weights]:
  """Returns the sets of weights that have any names of the network."""
  found = entries(checkpoint)
  if not found:
    keys = ', '.join(repr(x) for x, _ in [*_children(checkpoint)][: 2 * SHOWN])
    raise ValueError(
      'a state dict has arrays by name, perhaps under a key such as'
      f" 'state_dict'; this one {f'has only {keys}' if keys else 'is empty'}"
    )
  counts: Counter[tuple[str, str]] = Counter()  # by prefix and dialect
  for entry in found:
    parts = entry.name.split('.')
    for i in range(len(parts)):
      name, prefix = '.'.join(parts[i:]), ''.join(f'{x}.' for x in parts[:i])
      counts.update((prefix, d) for d in names if name in names[d])
  best: dict[str, str] = {}  # prefix -> its dialect
  for prefix in dict.fromkeys(prefix for prefix, _ in counts):
    if not any(map(OPTIMIZER.fullmatch, prefix.split('.'))):
      best[prefix] = max(names, key=lambda d: counts[prefix, d])
  complete = [p for p, d in best.items() if counts[p, d] == len(names[d])]
  kept = complete or sorted(best, key=lambda p: -counts[p, best[p]])[:SHOWN]
  if weights and weights not in (AVERAGE, RAW):
    kept = _named(kept, weights)
  if not kept:
    shown = ', '.join(x.name for x in found[:SHOWN])
    raise ValueError(
      f'none of its {len(found)} arrays ({shown}, ...) has a name of a {model}'
      f' ({", ".join(sorted(next(iter(names.values())))[:SHOWN])}, ...)'
    )
  return [_weights(found, p, best[p], names, complete) for p in kept]


def _named(prefixes: Sequence[str], weights: str) -> list[str]:
  """Returns the prefixes that a user has named."""
  wanted = '' if weights == TOP else f'{weights}.'
  exact = [x for x in prefixes if x == wanted]
  parts = [x for x in prefixes if wanted and f'.{wanted}' in f'.{x}']
  if not exact and not parts:
    keys = ', '.join(x.removesuffix('.') or TOP for x in prefixes)
    raise ValueError(
      f'weights={weights!r}: there are no weights of that name, only: {keys}'
    )
  return exact or parts


def _weights(
  found: Sequence[Entry],
  prefix: str,
  dialect: str,
  names: Names,
  complete: Sequence[str],
) -> Weights:
  """Returns the set of weights under a prefix.

  Args:
    found: all arrays.
    prefix: of the set.
    dialect: of the set.
    names: of the network, by dialect.
    complete: the prefixes of all sets.
  """

  def is_own(entry: Entry) -> bool:
    own = entry.name.startswith(prefix)
    return own and entry.name.removeprefix(prefix) in names[dialect]

  homes = {x.group for x in found if is_own(x)}
  near = [
    x
    for x in found
    if (x.group in homes or (len(homes) > 1 and x.name.startswith(prefix)))
    and x.name.rpartition('.')[2] not in BOOKKEEPING
  ]
  others = tuple(x for x in complete if x.startswith(prefix) and x != prefix)
  other = tuple(x for x in complete if not prefix.startswith(x))
  counted = f'{prefix.removesuffix("module.")}{COUNT}'
  keys = {x.name.partition('.')[0] for x in found}
  return Weights(
    prefix,
    dialect,
    {
      x.name.removeprefix(prefix): x.array
      for x in near
      if x.name.startswith(prefix)
      and not (others and x.name.startswith(others))
    },
    tuple(
      x.name
      for x in near
      if not x.name.startswith(prefix)
      and not (other and x.name.startswith(other))
    ),
    averaged=any(x.name == counted for x in found)
    or any(
      word.lower() in AVERAGED
      for part in prefix.split('.')
      for word in WORDS.findall(part)
    )
    or (prefix.startswith(f'{LIGHTNING[0]}.') and {*LIGHTNING} <= keys),
  )


def _check_names(chosen: Weights, model: str, wanted: frozenset[str]) -> None:
  """Raises ValueError if less than half of the names are there."""
  have = chosen.arrays.keys() & wanted
  if 2 * len(have) < len(wanted):
    absent = ', '.join(sorted(wanted - have)[:SHOWN])
    other = ', '.join([*chosen.arrays][:SHOWN])
    raise ValueError(
      f'the state dict of a {model} does not fit the model: it has'
      f' {len(have)} of the {len(wanted)} names, not {absent}, ...; its own are'
      f' {other}, ...'
    )


def _choice(exact: Sequence[Weights], model: str, weights: str) -> Weights:
  averages = [x for x in exact if x.averaged]
  raws = [x for x in exact if not x.averaged]
  pools = {AVERAGE: averages, RAW: raws}
  if weights in pools:
    pool = pools[weights]
  else:
    pool = averages if averages and len(raws) < 2 else [*exact]
  keys = ', '.join(repr(x.key) for x in exact)
  if not pool:
    raise ValueError(
      f'weights={weights!r}: it has only'
      f' {"averaged" if averages else "raw"} weights of a {model}: {keys}'
    )
  if any(not _equal(x, pool[0]) for x in pool[1:]):
    raise ValueError(
      f'it has several sets of weights of a {model}: {keys}. Name one as'
      f' weights={pool[0].key!r} (--config.teacher.weights, or --weights of'
      ' convert)'
    )
  return pool[0]


def _equal(one: Weights, other: Weights) -> bool:
  return one.arrays.keys() == other.arrays.keys() and all(
    np.array_equal(x, other.arrays[name]) for name, x in one.arrays.items()
  )


def _notes(chosen: Weights, exact: Sequence[Weights]) -> Iterator[str]:
  """Yields what a user should know of the choice."""
  others = [repr(x.key) for x in exact if x is not chosen]
  if others:
    kind = 'averaged' if chosen.averaged else 'raw'
    yield (
      f'its {kind} weights ({chosen.key!r}) are used; it also has'
      f' {", ".join(others)}, see the setting weights'
    )
  if chosen.left_out:
    count = len(chosen.left_out)
    yield (
      f'arrays outside of {chosen.key!r} are left out:'
      f' {", ".join(chosen.left_out[:SHOWN])}'
      + (f' and {count - SHOWN} more' if count > SHOWN else '')
    )
