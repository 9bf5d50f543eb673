"""Objectives: the losses of transfers, by name.

An objective is one file, headed by its paper, and a line in `CATALOG`. Beside
its function, the file may have
  PUBLISHED  a `Published`, its weights on CIFAR-100
  EXAMPLE    settings with which it is defined between any two networks that
             have its features: those without a default, above all; a function
             is called with the number of classes
"""

import sys
from collections.abc import Mapping
from typing import Any

from jaxkd.catalog import call, lookup
from jaxkd.objectives.ab import ab
from jaxkd.objectives.alpha_beta import alpha_beta
from jaxkd.objectives.annealed import annealed
from jaxkd.objectives.at import at
from jaxkd.objectives.base import Objective, Published, pointwise
from jaxkd.objectives.binary_cross_entropy import binary_cross_entropy
from jaxkd.objectives.binary_kd import binary_kd
from jaxkd.objectives.brier import brier
from jaxkd.objectives.cc import cc
from jaxkd.objectives.cmkd import cmkd
from jaxkd.objectives.comparative import comparative
from jaxkd.objectives.crd import crd
from jaxkd.objectives.cross_entropy import cross_entropy
from jaxkd.objectives.ctkd import ctkd
from jaxkd.objectives.dist import dist
from jaxkd.objectives.dkd import dkd
from jaxkd.objectives.ekd import ekd
from jaxkd.objectives.fitnet import fitnet
from jaxkd.objectives.fsp import fsp
from jaxkd.objectives.ft import ft
from jaxkd.objectives.grouped_kd import grouped_kd
from jaxkd.objectives.hard_kd import hard_kd
from jaxkd.objectives.kd import kd
from jaxkd.objectives.kdsvd import kdsvd
from jaxkd.objectives.ltkd import ltkd
from jaxkd.objectives.mlkd import mlkd
from jaxkd.objectives.nkd import nkd
from jaxkd.objectives.nst import nst
from jaxkd.objectives.ofd import ofd
from jaxkd.objectives.permuted import permuted
from jaxkd.objectives.pkt import pkt
from jaxkd.objectives.pld import pld
from jaxkd.objectives.reordered import reordered
from jaxkd.objectives.reviewkd import reviewkd
from jaxkd.objectives.revised import revised
from jaxkd.objectives.rkd import rkd
from jaxkd.objectives.rld import rld
from jaxkd.objectives.selected import selected
from jaxkd.objectives.simkd import simkd
from jaxkd.objectives.soft_cross_entropy import soft_cross_entropy
from jaxkd.objectives.sp import sp
from jaxkd.objectives.square_logits import square_logits
from jaxkd.objectives.standardised import standardised
from jaxkd.objectives.vid import vid
from jaxkd.objectives.vkd import vkd
from jaxkd.objectives.weighted import weighted

CATALOG = {
  'ab': ab,
  'alpha_beta': alpha_beta,
  'annealed': annealed,
  'at': at,
  'binary_cross_entropy': binary_cross_entropy,
  'binary_kd': binary_kd,
  'brier': brier,
  'cc': cc,
  'cmkd': cmkd,
  'comparative': comparative,
  'crd': crd,
  'cross_entropy': cross_entropy,
  'ctkd': ctkd,
  'dist': dist,
  'dkd': dkd,
  'ekd': ekd,
  'fitnet': fitnet,
  'fsp': fsp,
  'ft': ft,
  'grouped_kd': grouped_kd,
  'hard_kd': hard_kd,
  'kd': kd,
  'kdsvd': kdsvd,
  'ltkd': ltkd,
  'mlkd': mlkd,
  'nkd': nkd,
  'nst': nst,
  'ofd': ofd,
  'permuted': permuted,
  'pkt': pkt,
  'pld': pld,
  'reordered': reordered,
  'reviewkd': reviewkd,
  'revised': revised,
  'rkd': rkd,
  'rld': rld,
  'selected': selected,
  'simkd': simkd,
  'soft_cross_entropy': soft_cross_entropy,
  'sp': sp,
  'square_logits': square_logits,
  'standardised': standardised,
  'vid': vid,
  'vkd': vkd,
  'weighted': weighted,
}

__all__ = [
  'CATALOG',
  'PUBLISHED',
  'Objective',
  'Published',
  'example',
  'make',
  'pointwise',
]


def _in_module(name: str, what: str) -> Any:
  """Returns a constant of an objective's module, or None."""
  return getattr(sys.modules[CATALOG[name].__module__], what, None)


# The objectives whose weights are published.
PUBLISHED: dict[str, Published] = {
  name: weights
  for name in CATALOG
  if (weights := _in_module(name, 'PUBLISHED')) is not None
}


def example(name: str, num_classes: int) -> dict[str, Any]:
  """Returns an objective's name and settings for an example, as `make` takes.

  Args:
    name: a key of `CATALOG`.
    num_classes: K.
  """
  settings = _in_module(name, 'EXAMPLE') or {}
  values = {
    key: value(num_classes) if callable(value) else value
    for key, value in settings.items()
  }
  return {'name': name, **values}


def make(spec: str | Mapping[str, Any] | Objective) -> Objective:
  """Returns an objective by its name, or by its name and settings.

  Args:
    spec: a key of `CATALOG`, for its defaults, or a mapping with the key under
      'name' and the function's keyword arguments beside it. The argument
      'objective', of those that wrap another one, is such a spec, too. An
      `Objective` is returned as it is.

  Raises:
    KeyError: no such objective, with suggestions.
    ValueError: an unknown argument, with suggestions; no name.

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
