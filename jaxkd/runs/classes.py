"""Maps from the classes of a teacher to those of the data.

A map is a mapping {class of the teacher: class of the data}, or a file of one.
A class is its name or its index, counted from 0; a string of digits is an index
unless it is a name.
"""

import ast
import csv
import difflib
import functools
import importlib.util
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from jaxkd import disk
from jaxkd.catalog import UnknownNameError
from jaxkd.models.class_map import Groups

RENORMALISE = 'renormalise'  # classes in no group are left out
SAME = 'same'  # the classes are the same in spite of other names
FILES = {'.json': 'an object', '.csv': 'two columns'}


@functools.cache
def imagenet_names() -> tuple[str, ...]:
  """Returns the WordNet ids of ImageNet's 1000 classes, in their usual order.

  They are read from the installed tensorflow_datasets, without importing it; ()
  if that has no such file.
  """
  spec = importlib.util.find_spec('tensorflow_datasets')
  for folder in (spec and spec.submodule_search_locations) or ():
    path = pathlib.Path(folder) / 'datasets/imagenet2012/labels.txt'
    if path.exists():
      return tuple(path.read_text().split())
  return ()


def groups_of(
  classes: str | Mapping[Any, Any],
  unmapped: str,
  names: Sequence[str],
  count: int,
  data_names: Sequence[str],
  where: str,
  network: str = 'the network',
) -> Groups | None:
  """Returns the classes of a network that each class of the data consists of.

  Without a map, classes are compared by name: the network may have those of the
  data in another order, or more classes than the data.

  Args:
    classes: the map, as a mapping, its text, or the path of a .json or .csv
      file; 'same' if the classes are the same in spite of other names; '' if
      there is none.
    unmapped: the class of the data that all further classes belong to;
      'renormalise' leaves them out.
    names: of the network's classes, () if unknown.
    count: J, the number of the network's classes.
    data_names: of the data's K classes.
    where: how the setting is called in messages, such as 'teacher.'.
    network: what it is called in messages.

  Returns:
    None if the classes are those of the data, in their order.

  Raises:
    FileNotFoundError: there is no such file.
    KeyError: an unknown class, with suggestions.
    ValueError: classes that differ, and no map; an impossible one.
  """
  if not names and count == len(imagenet_names()):
    names = imagenet_names()
    if not classes and not set(data_names) & set(names):
      names = ()  # nothing says that they are ImageNet's
  pairs = _pairs(classes, unmapped, names, count, data_names, where, network)
  if pairs is None:
    return None
  rest = set(range(count)) - pairs.keys()
  if unmapped != RENORMALISE:
    other = _index(unmapped, data_names, len(data_names), f'{where}unmapped')
    pairs = pairs | dict.fromkeys(sorted(rest), other)
  groups = tuple(
    tuple(j for j, own in pairs.items() if own == k)
    for k in range(len(data_names))
  )
  return None if groups == tuple((j,) for j in range(count)) else groups


def _pairs(
  classes: str | Mapping[Any, Any],
  unmapped: str,
  names: Sequence[str],
  count: int,
  data_names: Sequence[str],
  where: str,
  network: str,
) -> dict[int, int] | None:
  """Returns a map as indices; None if the classes are the data's.

  The arguments and errors are those of `groups_of`.
  """
  if classes and classes != SAME:
    return _explicit(classes, names, count, data_names, where)
  if _are_same(classes, names, count, data_names):
    if unmapped == RENORMALISE:
      return None
    raise ValueError(
      f'{where}unmapped={unmapped!r} takes the classes that no class of the'
      f' data has, but every class has its own: set {where}classes, too, or'
      f' leave {where}unmapped out'
    )
  own = tuple(name for name in data_names if name != unmapped)
  if classes == SAME or not own or not set(own) <= set(names):
    raise ValueError(_differ(names, count, data_names, where, network))
  return {
    _index(name, names, count, f'{where}classes'): data_names.index(name)
    for name in own
  }


def _are_same(
  classes: str | Mapping[Any, Any],
  names: Sequence[str],
  count: int,
  data_names: Sequence[str],
) -> bool:
  """Returns whether classes are the data's, as far as is known or said."""
  unnamed = classes == SAME or not names
  return count == len(data_names) and (
    unnamed or tuple(names) == tuple(data_names)
  )


def _differ(
  names: Sequence[str],
  count: int,
  data_names: Sequence[str],
  where: str,
  network: str,
) -> str:
  """Returns the message for classes that differ, without a map."""
  own = f'{count} classes ({_some(names)})' if names else f'{count} classes'
  same = f", or to '{SAME}' if they are the same, in this order"
  return (
    f'{where}classes: {network} has {own}, the data have {len(data_names)}'
    f' ({_some(data_names)}): set it to a map from its classes to theirs, like'
    f' {{{names[0] if names else 0!r}: {data_names[0]!r}}}, or to a .json or'
    f' .csv file of one{same if count == len(data_names) else ""}'
  )


def _explicit(
  classes: str | Mapping[Any, Any],
  names: Sequence[str],
  count: int,
  data_names: Sequence[str],
  where: str,
) -> dict[int, int]:
  """Returns a map that the user has given, as indices."""
  setting, pairs = f'{where}classes', {}
  for key, value in read_map(classes, setting):
    own = _index(key, names, count, f'{setting} (the network)')
    if own in pairs:
      raise ValueError(f'{setting} has {key!r} twice: remove one of them')
    pairs[own] = _index(
      value, data_names, len(data_names), f'{setting} (the data)'
    )
  if not pairs:
    raise ValueError(f'{setting} must have at least one class, got {classes!r}')
  return pairs


def read_map(
  classes: str | Mapping[Any, Any], setting: str
) -> list[tuple[Any, Any]]:
  """Returns the pairs (class of the network, class of the data) of a map.

  Args:
    classes: a mapping, its text, or the path of a .json file (an object) or a
      .csv file (two columns, without a heading).
    setting: its name, for messages.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the text or file is none of these.
  """
  if isinstance(classes, Mapping):
    return list(classes.items())
  try:
    if classes.lstrip().startswith('{'):
      return list(ast.literal_eval(classes.strip()).items())
    path = disk.expanded(classes)
    if path.suffix not in FILES:
      raise ValueError('it is neither a mapping nor a .json or .csv file')
    with path.open(newline='', encoding='utf-8-sig') as file:
      if path.suffix == '.json':
        return list(json.load(file).items())
      rows = [[x.strip() for x in row] for row in csv.reader(file) if row]
      return [(own, data) for own, data in rows]
  except FileNotFoundError as error:
    raise FileNotFoundError(f'{setting}: no such file: {classes}') from error
  except (AttributeError, SyntaxError, ValueError) as error:
    raise ValueError(
      f'{setting} must be a map of classes like {{"n01440764": "tench"}}, or'
      f' the path of a .json file ({FILES[".json"]}) or a .csv file'
      f' ({FILES[".csv"]}) of one, got {classes!r}: {error}'
    ) from error


def _index(of: Any, names: Sequence[str], count: int, what: str) -> int:
  """Returns the index of a class, given its name or index."""
  if isinstance(of, str) and of in names:
    if list(names).count(of) > 1:
      raise ValueError(f'{what}: two classes are called {of!r}: use indices')
    return list(names).index(of)
  index = int(of) if isinstance(of, str) and of.isdecimal() else of
  if isinstance(index, bool) or not isinstance(index, int):
    near = difflib.get_close_matches(str(of), names, n=3, cutoff=0.5)
    hint = f'did you mean {" or ".join(map(repr, near))}? ' if near else ''
    there = (
      f'there are {_some(names)}' if names else 'its classes have no names'
    )
    raise UnknownNameError(
      f'{what}: no class {of!r}: {hint}{there}; an index is 0..{count - 1}'
    )
  if not 0 <= index < count:
    raise ValueError(
      f'{what}: no class {of!r}: an index must be in 0..{count - 1}'
    )
  return index


def _some(names: Sequence[str]) -> str:
  """Returns the first names of a list."""
  return ', '.join(names[:3]) + (', ...' if len(names) > 3 else '')


def map_text(groups: Groups, count: int, data_names: Sequence[str]) -> str:
  """Returns a map in words.

  Args:
    groups: see `groups_of`.
    count: of the network's classes.
    data_names: of the data's classes.
  """
  used, total = sum(map(len, groups)), len(groups)
  empty = [
    name for name, own in zip(data_names, groups, strict=True) if not own
  ]
  reached = f'{total - len(empty):,} of the ' if empty else 'the '
  words = (
    f'{used:,} of its {count:,} classes {"is" if used == 1 else "are"}'
    f' {reached}{total:,} of the data'
  )
  if used == count == total and not empty:
    words = f'its {count:,} classes are those of the data in another order'
  elif used > total - len(empty):
    words += ', whose probabilities are sums'
  if used < count:
    words += f'; the other {count - used:,} are left out'
  if empty:
    words += f'; it has no class for {_some(empty)}: probability 0'
  return words
