"""Gap preserving distillation (Guo et al., ICLR 2025).

https://arxiv.org/abs/2410.04140. A dynamic teacher is grown out of the student,
is trained with it, and shares its parameters: the student is a slice of it. So
the gap between them starts at zero, and the student never faces a teacher that
is far ahead. Where the paper and the authors' code differ, the code is
followed: the weight lambda is on the arrow from the dynamic teacher to the
student.

Deviations: activations of the dynamic teacher are copies of the student's, not
copies divided by r (see `scaling`); a static teacher is in eval mode.
"""

import functools
import math
import warnings

import flax.linen as nn

from jaxkd import reparam
from jaxkd.graph import (
  Frozen,
  Graph,
  Growth,
  Learner,
  Network,
  Phase,
  Shared,
)
from jaxkd.methods import weights
from jaxkd.methods.arrows import Spec, arrows, labelled

SCE = {'name': 'soft_cross_entropy', 'smoothing': 0.1}


def gpd(
  static: Spec | None = 'kd',
  dynamic: Spec = SCE,
  weight: weights.Spec = 3.0,
  ratio: float = 2.0,
  label_weight: weights.Spec = 1.0,
  static_weight: weights.Spec = 1.0,
  guide_dynamic: bool = True,
  sharing: bool = True,
  noise: float = 1e-6,
  relative_noise: bool = False,
  scaling: str = 'copy',
  objectives: Spec | None = None,
) -> tuple[Phase, ...]:
  """Gap preserving distillation; all defaults but `static` are the authors'.

  Args:
    static: objective from the frozen teacher to the two others: a name of the
      catalogue, or a mapping of 'name' and arguments, or several, see
      `jaxkd.methods.arrows.parts`.
    dynamic: objective from the dynamic teacher to the student, likewise.
    weight: lambda, of `dynamic`; as all weights a number or a schedule, see
      `jaxkd.methods.weights.make`.
    ratio: r, width of the dynamic teacher in multiples of the student's.
    label_weight: of the cross-entropy of both against the labels.
    static_weight: of `static`; 0, or no `static`: there is no such teacher
      (from scratch; fine-tuning, from a student's checkpoint).
    guide_dynamic: the static teacher guides the dynamic one, too.
    sharing: the student is a slice of the dynamic teacher; otherwise it has
      parameters of its own, and only the start is common.
    noise: standard deviation of what tells the copies apart at the start.
    relative_noise: `noise` is in units of each array's standard deviation.
    scaling: of what is stored, 'copy' or 'official'; see `reparam.make_plan`.
    objectives: several in the place of `static`.

  Raises:
    ValueError: a ratio below 1, negative noise.

  References:
    Figure 1 of the paper; the authors' train_dkd.py and gpd_utils.py.
  """
  _check(ratio, noise, sharing)
  static = static if objectives is None else objectives
  static = static if static_weight else None
  plan = functools.partial(_plan, scaling)
  growing = functools.partial(_growing, plan, noise, relative_noise)
  sliced = Shared('dynamic_teacher', functools.partial(_sharing, plan))
  networks: dict[str, Network] = {'teacher': Frozen()} if static else {}
  networks |= {
    'dynamic_teacher': Learner('student', width=ratio, growing=growing),
    'student': sliced if sharing else Learner(),
  }
  pair = ('dynamic_teacher', 'student')
  transfers = [labelled(name, label_weight) for name in pair]
  if static:
    for name in pair if guide_dynamic else pair[1:]:
      transfers += arrows('teacher', name, static, static_weight)
  transfers += arrows(*pair, dynamic, weight)
  return (Phase('gpd', Graph(networks, tuple(transfers))),)


def _check(ratio: float, noise: float, sharing: bool) -> None:
  """Refuses a dynamic teacher that cannot be, warns of a pointless one."""
  if ratio < 1:
    raise ValueError(
      f'gpd has ratio={ratio}, but a dynamic teacher is no narrower than its'
      ' student: set ratio to 1 or more'
    )
  if noise < 0:
    raise ValueError(f'gpd has noise={noise}, a standard deviation is positive')
  copies = math.ceil(ratio)
  if copies - sharing > 1 and not noise:
    warnings.warn(
      f'gpd with ratio={ratio}, sharing={sharing} and noise=0: the copies that'
      ' the student does not share stay identical for ever; set noise to 1e-6'
      ' or more',
      stacklevel=3,
    )


@functools.cache
def _plan(
  scaling: str,
  student: nn.Module,
  teacher: nn.Module,
  input_shape: tuple[int, int, int],
) -> reparam.Plan:
  return reparam.make_plan(student, teacher, input_shape, scaling=scaling)


def _growing(make_plan, noise, relative, *networks):
  plan = make_plan(*networks)
  return Growth(
    grow=lambda variables, key: reparam.expand(
      variables, plan, key, noise, relative
    ),
    read=functools.partial(reparam.unscale, plan=plan),
  )


def _sharing(make_plan, *networks):
  return functools.partial(reparam.extract, plan=make_plan(*networks))
