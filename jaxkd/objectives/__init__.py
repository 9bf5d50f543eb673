"""Objectives: what an arrow of the graph asks of its learner."""

from collections.abc import Mapping
from typing import Any

from jaxkd.catalog import call, lookup
from jaxkd.objectives.alpha_beta import alpha_beta
from jaxkd.objectives.base import Objective, pointwise
from jaxkd.objectives.cmkd import cmkd
from jaxkd.objectives.comparative import comparative
from jaxkd.objectives.ctkd import ctkd
from jaxkd.objectives.dist import dist
from jaxkd.objectives.dkd import dkd
from jaxkd.objectives.fitnet import fitnet
from jaxkd.objectives.grouped_kd import grouped_kd
from jaxkd.objectives.kd import kd
from jaxkd.objectives.labels import brier, cross_entropy, square_logits
from jaxkd.objectives.ltkd import ltkd
from jaxkd.objectives.mlkd import mlkd
from jaxkd.objectives.nkd import nkd
from jaxkd.objectives.soft_cross_entropy import soft_cross_entropy
from jaxkd.objectives.standardised import standardised

CATALOG = {
  'alpha_beta': alpha_beta,
  'brier': brier,
  'cmkd': cmkd,
  'comparative': comparative,
  'cross_entropy': cross_entropy,
  'ctkd': ctkd,
  'dist': dist,
  'dkd': dkd,
  'fitnet': fitnet,
  'grouped_kd': grouped_kd,
  'kd': kd,
  'ltkd': ltkd,
  'mlkd': mlkd,
  'nkd': nkd,
  'soft_cross_entropy': soft_cross_entropy,
  'square_logits': square_logits,
  'standardised': standardised,
}

__all__ = [
  'CATALOG',
  'Objective',
  'alpha_beta',
  'brier',
  'cmkd',
  'comparative',
  'cross_entropy',
  'ctkd',
  'dist',
  'dkd',
  'fitnet',
  'grouped_kd',
  'kd',
  'ltkd',
  'make',
  'mlkd',
  'nkd',
  'pointwise',
  'soft_cross_entropy',
  'square_logits',
  'standardised',
]


def make(spec: str | Mapping[str, Any] | Objective) -> Objective:
  """Returns the objective that a name, or a name with settings, stands for.

  Args:
    spec: a key of `CATALOG`, for its defaults, or a mapping with the key under
      'name' and the function's keyword arguments beside it. The argument
      'objective', of those that wrap another one, is such a spec in its turn.
      An objective stands for itself.

  Raises:
    KeyError: no such objective, with suggestions.
    ValueError: an argument it does not take, with suggestions, or no name.

  >>> print(make({'name': 'dkd', 'beta': 2.0}))
  dkd(alpha=1.0, beta=2.0, temperature=4.0)
  >>> print(make({'name': 'standardised', 'objective': 'kd'}))
  standardised(objective=kd(temperature=4.0))
  """
  if isinstance(spec, Objective):
    return spec
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
  if 'objective' in settings:
    settings['objective'] = make(settings['objective'])
  return call(
    f'objective {name!r}', lookup('objective', CATALOG, name), settings
  )
