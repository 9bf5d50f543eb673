"""Objectives: what an arrow of the graph asks of its learner."""

from collections.abc import Mapping
from typing import Any

from jaxkd.catalog import call, lookup
from jaxkd.objectives.base import Objective, pointwise
from jaxkd.objectives.dkd import dkd
from jaxkd.objectives.fitnet import fitnet
from jaxkd.objectives.kd import kd
from jaxkd.objectives.labels import brier, cross_entropy, square_logits
from jaxkd.objectives.soft_cross_entropy import soft_cross_entropy

CATALOG = {
  'brier': brier,
  'cross_entropy': cross_entropy,
  'dkd': dkd,
  'fitnet': fitnet,
  'kd': kd,
  'soft_cross_entropy': soft_cross_entropy,
  'square_logits': square_logits,
}

__all__ = [
  'CATALOG',
  'Objective',
  'brier',
  'cross_entropy',
  'dkd',
  'fitnet',
  'kd',
  'make',
  'pointwise',
  'soft_cross_entropy',
  'square_logits',
]


def make(spec: str | Mapping[str, Any]) -> Objective:
  """Returns the objective that a name, or a name with settings, stands for.

  Args:
    spec: a key of `CATALOG`, for its defaults, or a mapping with the key under
      'name' and the function's keyword arguments beside it.

  Raises:
    KeyError: no such objective, with suggestions.
    ValueError: an argument it does not take, with suggestions, or no name.

  >>> print(make({'name': 'dkd', 'beta': 2.0}))
  dkd(alpha=1.0, beta=2.0, temperature=4.0)
  """
  settings = {'name': spec} if isinstance(spec, str) else spec
  if not isinstance(settings, Mapping) or not isinstance(
    settings.get('name'), str
  ):
    raise ValueError(
      f'an objective is a name, like {"kd"!r}, or a mapping with one, like'
      f' {dict(name="kd", temperature=4.0)}; got {spec!r}'
    )
  settings = dict(settings)
  name = settings.pop('name')
  return call(
    f'objective {name!r}', lookup('objective', CATALOG, name), settings
  )
