"""Gap preserving distillation (Guo et al., ICLR 2025).

https://arxiv.org/abs/2410.04140. A dynamic teacher is grown out of the student,
is trained with it, and shares its parameters: the student is a slice of it. So
the gap between them starts at zero, and the student never faces a teacher that
is far ahead. Where the paper and the authors' code differ, the code is followed:
the weight lambda is on the arrow from the dynamic teacher to the student.

Deviations: activations of the dynamic teacher are copies of the student's, not
copies divided by r (see `scaling`); a static teacher is in eval mode.
"""

import functools
import math
import warnings
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from jaxkd import objectives, reparam
from jaxkd.graph import (
  LABELS,
  Frozen,
  Graph,
  Growth,
  Learner,
  Network,
  Shared,
  Stage,
  Transfer,
)

Spec = str | Mapping[str, Any]
SCE = {'name': 'soft_cross_entropy', 'smoothing': 0.1}


def gpd(
  static: Spec | None = 'kd',
  dynamic: Spec = SCE,
  weight: float = 3.0,
  ratio: float = 2.0,
  label_weight: float = 1.0,
  static_weight: float = 1.0,
  guide_dynamic: bool = True,
  sharing: bool = True,
  noise: float = 1e-6,
  relative_noise: bool = False,
  scaling: str = 'copy',
) -> tuple[Stage, ...]:
  """Gap preserving distillation; every default but `static` is the paper's.

  Args:
    static: objective from the static, pre-trained teacher to the student and to
      the dynamic teacher: a name of the catalogue of objectives, or a mapping
      of 'name' and arguments. None or '': no static teacher (from scratch, and
      fine-tuning, where the student has a checkpoint).
    dynamic: objective from the dynamic teacher to the student, likewise.
    weight: lambda, of `dynamic`.
    ratio: r, width of the dynamic teacher in multiples of the student's.
    label_weight: of the cross-entropy of both against the labels.
    static_weight: of `static`.
    guide_dynamic: the static teacher guides the dynamic one, too.
    sharing: the student is a slice of the dynamic teacher; otherwise it has
      parameters of its own, and only the start is common.
    noise: standard deviation of what tells the copies apart at the start.
    relative_noise: `noise` is in units of each array's standard deviation.
    scaling: of what is stored, 'copy' or 'official'; see `reparam.make_plan`.

  Raises:
    ValueError: a ratio below 1, an objective that cannot be.

  References:
    Figure 1 of the paper; the authors' train_dkd.py and gpd_utils.py.
  """
  if ratio < 1:
    raise ValueError(f'a dynamic teacher is wider than its student: {ratio=}')
  if math.ceil(ratio) > 2 and not noise:
    warnings.warn(
      f'gpd with ratio={ratio} and noise=0: the copies that the student does'
      ' not share stay identical for ever; set noise to 1e-6 or more',
      stacklevel=2,
    )
  relation = functools.partial(_plan, scaling=scaling)
  networks: dict[str, Network] = {'teacher': Frozen()} if static else {}
  networks |= {
    'dynamic_teacher': Learner(
      like='student',
      width=ratio,
      growing=functools.partial(_growing, relation, noise, relative_noise),
    ),
    'student': (
      Shared('dynamic_teacher', functools.partial(_sharing, relation))
      if sharing
      else Learner()
    ),
  }
  labels = objectives.cross_entropy()
  transfers = [
    Transfer(LABELS, 'dynamic_teacher', labels, label_weight),
    Transfer(LABELS, 'student', labels, label_weight),
  ]
  if static:
    guided = ['dynamic_teacher', 'student'] if guide_dynamic else ['student']
    arrow = objectives.make(static)
    transfers += [Transfer('teacher', x, arrow, static_weight) for x in guided]
  arrow = objectives.make(dynamic)
  transfers.append(Transfer('dynamic_teacher', 'student', arrow, weight))
  return (Stage('gpd', Graph(networks, tuple(transfers))),)


@functools.cache
def _plan(
  student: nn.Module,
  teacher: nn.Module,
  input_shape: tuple[int, int, int],
  scaling: str,
) -> reparam.Plan:
  return reparam.make_plan(student, teacher, input_shape, scaling=scaling)


def _growing(relation, noise, relative, student, teacher, input_shape):
  plan = relation(student, teacher, input_shape)
  return Growth(
    grow=lambda variables, key: reparam.expand(
      variables, plan, key, noise, relative
    ),
    read=functools.partial(reparam.stored, plan=plan),
  )


def _sharing(relation, student, teacher, input_shape):
  plan = relation(student, teacher, input_shape)
  return functools.partial(reparam.extract, plan=plan)
