"""Assistants: networks of sizes between the teacher's and the student's.

Where the teacher is far ahead, assistants close the gap in steps. They are
trained in order, from large to small, each with the networks before it frozen,
and the student is the last.
"""

from collections.abc import Sequence

from jaxkd.catalog import check_whole
from jaxkd.graph import Learner, Phase
from jaxkd.methods import weights
from jaxkd.methods.chain import all_before, chain, last_before
from jaxkd.methods.network_specs import NetworkSpec, network
from jaxkd.methods.transfers import ObjectiveSpec

KD_5 = {'name': 'kd', 'temperature': 5.0}


def takd(
  assistants: Sequence[NetworkSpec],
  objective: ObjectiveSpec = 'kd',
  label_weight: weights.Spec = 0.1,
  guide_weight: weights.Spec = 0.9,
) -> tuple[Phase, ...]:
  """Teacher assistants (Mirzadeh et al., AAAI 2020): a chain.

  Each network is taught by the one before it alone, with the loss
    l CE + g D(the one before)
  and D T² KL in the paper. Its weights (l = 1 - g) and T were searched for each
  network; the defaults are those of KD in the CIFAR-100 benchmark. (The
  released code averages D over the classes, too, so its g is 100 times less.)

  Args:
    assistants: from large to small, each as `network_specs.network` takes it;
      one with a checkpoint is not trained again.
    objective: D, `kd` at T = 4; one or several, see
      `jaxkd.methods.transfers.weighted_objectives`.
    label_weight: l; a number or a schedule, see `jaxkd.methods.weights.make`.
    guide_weight: g, likewise.

  Raises:
    ValueError: no assistants.

  References:
    https://arxiv.org/abs/1902.03393, eq. 3.
  """
  links = _links('takd', assistants)
  return chain(links, last_before, objective, label_weight, guide_weight)


def dgkd(
  assistants: Sequence[NetworkSpec],
  objective: ObjectiveSpec = KD_5,
  label_weight: weights.Spec = 0.0,
  guide_weight: weights.Spec = 1.0,
  dropped: int = 1,
) -> tuple[Phase, ...]:
  """Densely guided distillation (Son et al., ICCV 2021).

  Each network is taught by the teacher and by all assistants before it, with
  the loss
    l CE + g sum over guides of D(guide)
  where D is T² KL at T = 5, l = 0 and g = 1 in the released code. On each batch
  some of the guides are dropped at random. Choice: at least one guide is kept,
  so the first assistant always has the teacher.

  Args:
    assistants: from large to small, each as `network_specs.network` takes it;
      one with a checkpoint is not trained again.
    objective: D; one or several, see
      `jaxkd.methods.transfers.weighted_objectives`.
    label_weight: l; a number or a schedule, see `jaxkd.methods.weights.make`.
    guide_weight: g, likewise.
    dropped: guides that are dropped on each batch; 0 drops none, and of n
      guides n - 1 are dropped at most.

  Raises:
    ValueError: no assistants; a negative number of dropped guides.

  References:
    https://arxiv.org/abs/2009.08825.
  """
  check_whole('dgkd', 'dropped', dropped, least=0)
  links = _links('dgkd', assistants)
  return chain(
    links, all_before, objective, label_weight, guide_weight, dropped
  )


def _links(
  method: str, assistants: Sequence[NetworkSpec]
) -> dict[str, Learner]:
  if not assistants or not isinstance(assistants, list | tuple):
    raise ValueError(
      f'assistants of {method} must be one model or more, got {assistants!r}:'
      " give a tuple from large to small, like ('resnet56', 'resnet20')"
    )
  links = {
    f'assistant{n}': network(Learner, spec) for n, spec in enumerate(assistants)
  }
  return {**links, 'student': Learner()}
