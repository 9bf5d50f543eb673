"""The names that arguments take."""

import fnmatch
from collections.abc import Iterable

from jaxkd import data as datasets
from jaxkd import methods, models, objectives


def _matching(names: Iterable[str], pattern: str) -> list[str]:
  return fnmatch.filter(sorted(names), pattern or '*')


def list_models(pattern: str = '') -> list[str]:
  """Returns the names of architectures.

  Args:
    pattern: with the wildcards of file names, such as 'resnet*'; '' takes all.

  >>> list_models('wrn_16_*')
  ['wrn_16_1', 'wrn_16_2']
  """
  return _matching(models.CATALOG, pattern)


def list_methods(pattern: str = '') -> list[str]:
  """Returns the names of methods; see `list_models`.

  >>> list_methods('*kd')[:3]
  ['dgkd', 'kd', 'pro_kd']
  """
  return _matching(methods.CATALOG, pattern)


def list_objectives(pattern: str = '') -> list[str]:
  """Returns the names of objectives; see `list_models`.

  >>> list_objectives('binary*')
  ['binary_cross_entropy', 'binary_kd']
  """
  return _matching(objectives.CATALOG, pattern)


def list_data(pattern: str = '') -> list[str]:
  """Returns the names of data sets; see `list_models`.

  Those that read a source are written with it, such as 'folder:PATH'.

  >>> list_data('cifar*')
  ['cifar10', 'cifar100']
  """
  return _matching(
    (
      f'{name}:{datasets.SOURCES[name]}' if name in datasets.SOURCES else name
      for name in datasets.CATALOG
    ),
    pattern,
  )
