"""Distillation from frozen teachers (Hinton, Vinyals, Dean, 2015).

https://arxiv.org/abs/1503.02531
"""

from collections.abc import Mapping
from typing import Any

from jaxkd.graph import Graph, Learner, Phase
from jaxkd.methods import weights
from jaxkd.methods.several_teachers import teachers as teachers_of
from jaxkd.methods.transfers import ObjectiveSpec, from_guide, from_labels_by


def kd(
  temperature: float = 4.0,
  label_weight: weights.Spec = 0.1,
  guide_weight: weights.Spec = 0.9,
  objective: ObjectiveSpec | None = None,
  label_objective: ObjectiveSpec | None = None,
) -> tuple[Phase, ...]:
  """Hinton distillation from a frozen teacher.

  Args:
    temperature: T of both softmaxes.
    label_weight: of the cross-entropy against labels; a number or a schedule,
      see `jaxkd.methods.weights.make`.
    guide_weight: of T² KL(teacher ‖ student), likewise.
    objective: one or several in place of that divergence, with weights of
      their own, see `jaxkd.methods.transfers.weighted_objectives`;
      `temperature` and `guide_weight` do not apply to them.
    label_objective: from the labels, see `distil`.

  References:
    https://arxiv.org/abs/1503.02531; the defaults are the CIFAR-100
    benchmark's, https://arxiv.org/abs/1910.10699.
  """
  if objective is not None:
    return distil(objective, label_weight, label_objective=label_objective)
  divergence = {'name': 'kd', 'temperature': temperature}
  return distil(
    divergence, label_weight, guide_weight, label_objective=label_objective
  )


def distil(
  objective: ObjectiveSpec = 'kd',
  label_weight: weights.Spec = 1.0,
  guide_weight: weights.Spec = 1.0,
  warmup_epochs: int = 0,
  teachers: Mapping[str, Any] | None = None,
  fuse: bool = False,
  label_objective: ObjectiveSpec | None = None,
) -> tuple[Phase, ...]:
  """Distillation from frozen teachers by any objectives.

  Args:
    objective: from each teacher to the student; one or several: a name of the
      catalogue, or a mapping of 'name' and arguments, such as the taps that it
      compares, or a mapping of names to weights or arguments, see
      `jaxkd.methods.transfers.weighted_objectives`.
    label_weight: of the objective of labels; a number or a schedule, see
      `jaxkd.methods.weights.make`.
    guide_weight: of the objectives, likewise. Published ones lie between 0.02
      and 30,000: see the objective.
    warmup_epochs: over which the objectives grow to their weight.
    teachers: network -> its weight, or a mapping of 'weight' and the settings
      that `jaxkd.methods.network_specs.network` takes; the config's `teacher`
      alone. Those without a checkpoint are trained from labels first.
    fuse: the student has one guide, the weighted sum of the teachers' outputs,
      in place of several losses.
    label_objective: from the labels to the student, as `objective`; None is
      that of the data's problem, cross-entropy for one label for each image.

  Raises:
    ValueError: an invalid objective, weight or teacher.
  """
  guides = teachers_of({'teacher': 1.0} if teachers is None else teachers)
  weight = weights.make(guide_weight, warmup_epochs)
  if fuse:
    transfers = from_guide(guides.fused(), 'student', objective, weight)
  else:
    transfers = tuple(
      transfer
      for name, share in guides.weights.items()
      for transfer in from_guide(
        name, 'student', objective, weights.times(weight, share)
      )
    )
  labels = from_labels_by(label_objective, 'student', label_weight)
  graph = Graph(
    networks={**guides.networks, 'student': Learner()},
    transfers=(*labels, *transfers),
  )
  return (*guides.phases, Phase('distil', graph))
