"""Averaged weights in checkpoints: under which keys, and what they lack."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from jaxkd.interop.entries import Entry, Weights

COUNT = 'n_averaged'  # beside the module of an optim.swa_utils.AveragedModel
WORDS = re.compile(r'[A-Z]+(?![a-z])|[A-Z]?[a-z]+')
AVERAGED = {'average', 'averaged', 'avg', 'ema', 'polyak', 'shadow', 'swa'}
# Lightning saves the average under the first key, if it saves the second one.
LIGHTNING = ('state_dict', 'current_model_state')
STATISTICS = ('running_mean', 'running_var')


def is_averaged(prefix: str, names: Collection[str]) -> bool:
  """Returns whether a set of weights is a moving average, by its prefix.

  Args:
    prefix: of the set.
    names: of all arrays of the checkpoint.
  """
  if f'{prefix.removesuffix("module.")}{COUNT}' in names:
    return True
  keys = {name.partition('.')[0] for name in names}
  if prefix.startswith(f'{LIGHTNING[0]}.') and keys.issuperset(LIGHTNING):
    return True
  words = [x.lower() for part in prefix.split('.') for x in WORDS.findall(part)]
  return any(word in AVERAGED for word in words)


def own(names: Collection[str]) -> list[str]:
  """Returns the names of parameters, without those of BatchNorm statistics."""
  return [x for x in names if x.rpartition('.')[2] not in STATISTICS]


def completed(
  entries: Sequence[Entry],
  sets: Sequence[Weights],
  exact: Sequence[Weights],
  names: Mapping[str, frozenset[str]],
) -> list[Weights]:
  """Returns averages of parameters alone, with the statistics of the raw set.

  Many average only the parameters, by name or, as torch_ema does, as a list in
  the order of the parameters.

  Args:
    entries: all arrays of the checkpoint.
    sets: the sets of weights with all parameters.
    exact: those with all arrays of the network, and no other.
    names: of its arrays, in each dialect.
  """
  raw = [x for x in exact if not x.averaged]
  if len(raw) != 1:
    return []
  (whole,) = raw
  parameters = own(list(whole.arrays))
  done = {x.prefix for x in exact}
  by_name = [
    x._replace(arrays={**whole.arrays, **x.arrays})
    for x in sets
    if x.averaged
    and x.prefix not in done
    and x.arrays.keys() < names[x.dialect]
    and x.dialect == whole.dialect
  ]
  listed = [
    whole._replace(
      prefix=f'{prefix}.',
      averaged=True,
      arrays={**whole.arrays, **dict(zip(parameters, arrays, strict=True))},
    )
    for prefix, arrays in _lists(entries)
    if [x.shape for x in arrays] == [whole.arrays[x].shape for x in parameters]
  ]
  return by_name + listed


def _lists(entries: Sequence[Entry]) -> Iterator[tuple[str, list[Any]]]:
  """Yields the key and the arrays of each list under a key of averages."""
  lists = defaultdict(list)
  for entry in entries:
    prefix, _, last = entry.name.rpartition('.')
    if last.isdigit():
      lists[prefix].append(entry.array)
  names = {entry.name for entry in entries}
  for prefix, arrays in lists.items():
    if is_averaged(f'{prefix}.', names):
      yield prefix, arrays
