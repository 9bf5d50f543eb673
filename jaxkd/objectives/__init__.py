"""Objectives: what an arrow of the graph asks of its learner."""

from collections.abc import Mapping
from typing import Any

from jaxkd.catalog import call, lookup
from jaxkd.objectives.ab import ab
from jaxkd.objectives.alpha_beta import alpha_beta
from jaxkd.objectives.annealed import annealed
from jaxkd.objectives.at import at
from jaxkd.objectives.base import Objective, pointwise
from jaxkd.objectives.brier import brier
from jaxkd.objectives.cc import cc
from jaxkd.objectives.cmkd import cmkd
from jaxkd.objectives.comparative import comparative
from jaxkd.objectives.crd import crd
from jaxkd.objectives.cross_entropy import cross_entropy
from jaxkd.objectives.ctkd import ctkd
from jaxkd.objectives.dist import dist
from jaxkd.objectives.dkd import dkd
from jaxkd.objectives.fitnet import fitnet
from jaxkd.objectives.fsp import fsp
from jaxkd.objectives.ft import ft
from jaxkd.objectives.grouped_kd import grouped_kd
from jaxkd.objectives.kd import kd
from jaxkd.objectives.kdsvd import kdsvd
from jaxkd.objectives.ltkd import ltkd
from jaxkd.objectives.mlkd import mlkd
from jaxkd.objectives.nkd import nkd
from jaxkd.objectives.nst import nst
from jaxkd.objectives.ofd import ofd
from jaxkd.objectives.permuted import permuted
from jaxkd.objectives.pkt import pkt
from jaxkd.objectives.reviewkd import reviewkd
from jaxkd.objectives.revised import revised
from jaxkd.objectives.rkd import rkd
from jaxkd.objectives.selected import selected
from jaxkd.objectives.simkd import simkd
from jaxkd.objectives.soft_cross_entropy import soft_cross_entropy
from jaxkd.objectives.sp import sp
from jaxkd.objectives.square_logits import square_logits
from jaxkd.objectives.standardised import standardised
from jaxkd.objectives.vid import vid
from jaxkd.objectives.weighted import weighted

CATALOG = {
  'ab': ab,
  'alpha_beta': alpha_beta,
  'annealed': annealed,
  'at': at,
  'brier': brier,
  'cc': cc,
  'cmkd': cmkd,
  'comparative': comparative,
  'crd': crd,
  'cross_entropy': cross_entropy,
  'ctkd': ctkd,
  'dist': dist,
  'dkd': dkd,
  'fitnet': fitnet,
  'fsp': fsp,
  'ft': ft,
  'grouped_kd': grouped_kd,
  'kd': kd,
  'kdsvd': kdsvd,
  'ltkd': ltkd,
  'mlkd': mlkd,
  'nkd': nkd,
  'nst': nst,
  'ofd': ofd,
  'permuted': permuted,
  'pkt': pkt,
  'reviewkd': reviewkd,
  'revised': revised,
  'rkd': rkd,
  'selected': selected,
  'simkd': simkd,
  'soft_cross_entropy': soft_cross_entropy,
  'sp': sp,
  'square_logits': square_logits,
  'standardised': standardised,
  'vid': vid,
  'weighted': weighted,
}

# The published weight of each transfer on CIFAR-100: the benchmark's, which is
# that of RepDistiller (https://arxiv.org/abs/1910.10699) and, for dkd, kdsvd,
# ofd and reviewkd, of mdistiller (https://arxiv.org/abs/2203.08679); beyond
# these, that of the code published with the paper, as each objective says. An
# objective that is not here has none that is known, or none that stands alone.
WEIGHTS = {
  'ab': 1.0,
  'alpha_beta': 32.0,  # of resnet56 -> resnet20, at alpha 0.8 and beta 0.3
  'at': 1000.0,
  'cc': 0.02,
  'comparative': 1.0,
  'crd': 0.8,
  'ctkd': 0.9,
  'dist': 2.0,
  'dkd': 1.0,
  'fitnet': 100.0,
  'fsp': 1.0,
  'ft': 200.0,
  'grouped_kd': 1.0,  # of faces
  'kd': 0.9,
  'kdsvd': 1.0,
  'mlkd': 0.9,
  'nkd': 1.0,
  'nst': 50.0,
  'ofd': 0.001,
  'pkt': 30_000.0,
  'reviewkd': 5.0,
  'rkd': 1.0,
  'simkd': 1.0,
  'sp': 3000.0,
  'standardised': 9.0,  # around kd, at T = 2
  'vid': 1.0,
}

# The weight of the cross-entropy beside it, where it is not 1. ab and fsp are
# taught in a stage of their own, before the labels, and comparative has labels
# as a second guide in the place of cross-entropy.
LABEL_WEIGHTS = {
  'ab': 0.0,
  'comparative': 0.0,
  'ctkd': 0.1,
  'fsp': 0.0,
  'kd': 0.1,
  'mlkd': 0.1,
  'simkd': 0.0,
  'standardised': 0.1,
}

__all__ = [
  'CATALOG',
  'LABEL_WEIGHTS',
  'WEIGHTS',
  'Objective',
  'ab',
  'alpha_beta',
  'annealed',
  'at',
  'brier',
  'cc',
  'cmkd',
  'comparative',
  'crd',
  'cross_entropy',
  'ctkd',
  'dist',
  'dkd',
  'fitnet',
  'fsp',
  'ft',
  'grouped_kd',
  'kd',
  'kdsvd',
  'ltkd',
  'make',
  'mlkd',
  'nkd',
  'nst',
  'ofd',
  'permuted',
  'pkt',
  'pointwise',
  'reviewkd',
  'revised',
  'rkd',
  'selected',
  'simkd',
  'soft_cross_entropy',
  'sp',
  'square_logits',
  'standardised',
  'vid',
  'weighted',
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
