"""Gap preserving distillation (Guo et al., ICLR 2025).

https://arxiv.org/abs/2410.04140. A dynamic teacher starts as an expansion of
the student, is trained with it, and shares its parameters: the student is a
slice of it. So the gap between them starts at zero, and the student never has a
teacher that is far ahead. Where the paper and the authors' code differ, the
code is followed: lambda is the weight of the transfer from the dynamic teacher
to the student.

Deviations: activations of the dynamic teacher are copies of the student's, not
copies divided by r (see `scaling`); a static teacher is in eval mode.
"""

import functools
import math
import warnings

import flax.linen as nn

from jaxkd import reparam
from jaxkd.graph import (
  Expansion,
  Frozen,
  Graph,
  Learner,
  Network,
  Phase,
  Shared,
)
from jaxkd.methods import weights
from jaxkd.methods.transfers import ObjectiveSpec, from_guide, from_labels

SCE = {'name': 'soft_cross_entropy', 'smoothing': 0.1}


def gpd(
  static: ObjectiveSpec | None = 'kd',
  dynamic: ObjectiveSpec = SCE,
  weight: weights.Spec = 3.0,
  ratio: float = 2.0,
  label_weight: weights.Spec = 1.0,
  static_weight: weights.Spec = 1.0,
  guide_dynamic: bool = True,
  sharing: bool = True,
  noise: float = 1e-6,
  relative_noise: bool = False,
  scaling: str = 'copy',
) -> tuple[Phase, ...]:
  """Gap preserving distillation; all defaults but `static` are the authors'.

  Args:
    static: objective from the frozen teacher to the two others, one or several,
      see `jaxkd.methods.transfers.weighted_objectives`.
    dynamic: objective from the dynamic teacher to the student, likewise.
    weight: lambda, of `dynamic`; as all weights a number or a schedule, see
      `jaxkd.methods.weights.make`.
    ratio: r, width of the dynamic teacher in multiples of the student's.
    label_weight: of the cross-entropy of both against the labels.
    static_weight: of `static`; 0, or no `static`: there is no static teacher
      (from scratch; fine-tuning, from a student's checkpoint).
    guide_dynamic: the static teacher also guides the dynamic one.
    sharing: the student is a slice of the dynamic teacher; otherwise it has
      parameters of its own, and they only start as the same function.
    noise: standard deviation of the noise that makes the copies differ at the
      start.
    relative_noise: `noise` is in units of each array's standard deviation.
    scaling: of the stored arrays, 'copy' or 'official'; see
      `reparam.make_plan`.

  Raises:
    ValueError: a ratio below 1, negative noise.

  References:
    Figure 1 of the paper; the authors' train_dkd.py and gpd_utils.py.
  """
  _check(ratio, noise, sharing)
  static = static if static_weight else None
  plan = functools.partial(_plan, scaling)
  expander = functools.partial(_expander, plan, noise, relative_noise)
  sliced = Shared('dynamic_teacher', functools.partial(_sharing, plan))
  networks: dict[str, Network] = {'teacher': Frozen()} if static else {}
  networks |= {
    'dynamic_teacher': Learner('student', width=ratio, expander=expander),
    'student': sliced if sharing else Learner(),
  }
  pair = ('dynamic_teacher', 'student')
  transfers = [from_labels(name, label_weight) for name in pair]
  if static:
    for name in pair if guide_dynamic else pair[1:]:
      transfers += from_guide('teacher', name, static, static_weight)
  transfers += from_guide(*pair, dynamic, weight)
  return (Phase('gpd', Graph(networks, tuple(transfers))),)


def _check(ratio: float, noise: float, sharing: bool) -> None:
  """Refuses an impossible dynamic teacher, and warns of a pointless one."""
  if ratio < 1:
    raise ValueError(
      f'ratio of gpd must be at least 1, got {ratio}: a dynamic teacher is not'
      ' narrower than its student'
    )
  if noise < 0:
    raise ValueError(
      f'noise of gpd must be at least 0, got {noise}: it is a standard'
      ' deviation'
    )
  copies = math.ceil(ratio)
  if copies - sharing > 1 and not noise:
    warnings.warn(
      f'gpd with ratio={ratio}, sharing={sharing} and noise=0: the copies that'
      ' the student does not share stay identical; set noise to 1e-6 or more',
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


def _expander(make_plan, noise, relative, *modules):
  plan = make_plan(*modules)
  return Expansion(
    expand=lambda variables, key: reparam.expand(
      variables, plan, key, noise, relative
    ),
    parameters=functools.partial(reparam.unscale, plan=plan),
  )


def _sharing(make_plan, *modules):
  return functools.partial(reparam.extract, plan=make_plan(*modules))
