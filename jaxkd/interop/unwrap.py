"""Which arrays of a checkpoint are the weights of a network.

A checkpoint may have a state dict under any key, or several of them, and any
prefix in front of its names: 'state_dict_ema' -> 'module.conv1.weight'. So a
set of weights is a prefix under which all names of the network occur; keys and
parts of names are treated alike.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxkd.interop import averages
from jaxkd.interop.entries import TOP, Entry, Weights, children, entries

AVERAGE, RAW = 'average', 'raw'  # values of the setting `weights`
# Last parts of the names of arrays that are no weights: the counters of
# BatchNorm and of averages, and the counts of operations by thop.
BOOKKEEPING = (
  *('num_batches_tracked', averages.COUNT, 'total_ops', 'total_params'),
)
# Keys of an optimizer, whose moments may have the names of the weights.
OPTIMIZER = re.compile(r'opt(im(izers?)?)?(_state(s|_dict)?)?|exp_avg(_sq)?')
SHOWN = 3  # names in a message

Names = Mapping[str, frozenset[str]]  # dialect -> names of all arrays


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
    weights: 'average' or 'raw', or the key of a set, or a part of its key that
      no other has; '': the average if there is one.

  Raises:
    ValueError: there are no weights of the network, or none of that kind, or
      several.
  """
  found = entries(checkpoint)
  sets = _sets(found, checkpoint, model, names)
  exact = [x for x in sets if not x.arrays.keys() ^ names[x.dialect]]
  exact += averages.completed(found, sets, exact, names)
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


def _sets(
  found: Sequence[Entry], checkpoint: Any, model: str, names: Names
) -> list[Weights]:
  """Returns the sets of weights that have any names of the network."""
  if not found:
    keys = ', '.join(repr(x) for x, _ in [*children(checkpoint)][: 2 * SHOWN])
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
  if not best:
    shown = ', '.join(x.name for x in found[:SHOWN])
    raise ValueError(
      f'the state dict of a {model} does not fit the model: none of its'
      f' {len(found)} arrays ({shown}, ...) has one of the names'
      f' {", ".join(sorted(next(iter(names.values())))[:SHOWN])}, ...'
    )
  # Those with all parameters; otherwise the nearest, for the message.
  complete = [
    p for p, d in best.items() if counts[p, d] >= len(averages.own(names[d]))
  ]
  kept = complete or sorted(best, key=lambda p: -counts[p, best[p]])[:SHOWN]
  return [_weights(found, p, best[p], names, complete) for p in kept]


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
  # Its names go across mappings, as those of a pickled module do.
  nested = any(not prefix.startswith(home) for home in homes)
  near = [
    x
    for x in found
    if (x.group in homes or (nested and x.name.startswith(prefix)))
    and x.name.rpartition('.')[2] not in BOOKKEEPING
  ]
  others = tuple(x for x in complete if x.startswith(prefix) and x != prefix)
  other = tuple(x for x in complete if not prefix.startswith(x))
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
    averaged=averages.is_averaged(prefix, {x.name for x in found}),
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
  """Returns the set that a user wants.

  Args:
    exact: the sets that fit the network.
    model: name of the network.
    weights: see `choose`.
  """
  averaged = [x for x in exact if x.averaged]
  raw = [x for x in exact if not x.averaged]
  if weights in (AVERAGE, RAW):
    pool = averaged if weights == AVERAGE else raw
  elif weights:
    wanted = '' if weights == TOP else f'{weights}.'
    pool = [x for x in exact if x.prefix == wanted] or [
      x for x in exact if wanted and f'.{wanted}' in f'.{x.prefix}'
    ]
  else:
    pool = averaged if averaged and len(raw) < 2 else exact
  keys = ', '.join(
    f'{x.key!r}{" (averaged)" if x.averaged else ""}' for x in exact
  )
  if not pool:
    raise ValueError(
      f'there are no weights {weights!r} of a {model}, only: {keys}. Name one'
      f' of them, or {AVERAGE!r} or {RAW!r}'
    )
  if any(not _equal(x, pool[0]) for x in pool[1:]):
    raise ValueError(
      f'there are several weights of a {model}: {keys}. Name one of them, as in'
      f' weights={pool[0].key!r} (--config.teacher.weights, or --weights of the'
      ' command convert)'
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
    kind = 'averaged ' if chosen.averaged else ''
    yield (
      f'its {kind}weights {chosen.key!r} are used; it also has'
      f' {", ".join(others)}, see the setting weights'
    )
  if chosen.left_out:
    count = len(chosen.left_out)
    yield (
      f'arrays outside of {chosen.key!r} are left out:'
      f' {", ".join(chosen.left_out[:SHOWN])}'
      + (f' and {count - SHOWN} more' if count > SHOWN else '')
    )
