"""Transfers from a config: one objective, or several with weights."""

from collections.abc import Mapping
from typing import Any

from jaxkd import objectives
from jaxkd.catalog import UnknownNameError, lookup, suggestion
from jaxkd.graph import LABELS, Fusion, Transfer, Weight
from jaxkd.methods import weights
from jaxkd.objectives import Objective

# A name, or a mapping with 'name': one objective. Any other mapping: several.
ObjectiveSpec = str | Mapping[str, Any]


def from_labels(learner: str, weight: weights.Spec = 1.0) -> Transfer:
  """Returns the transfer from labels to a learner: cross-entropy.

  Or another objective, if the data's problem has one, see `Transfer.default`.
  """
  objective = objectives.cross_entropy()
  weight = weights.make(weight)
  return Transfer(LABELS, learner, objective, weight, default=True)


def from_labels_by(
  objective: ObjectiveSpec | None, learner: str, weight: weights.Spec = 1.0
) -> tuple[Transfer, ...]:
  """Returns the transfers from labels to a learner by any objectives.

  Args:
    objective: as `from_guide` takes it; None is that of `from_labels`.
    learner: of all of them.
    weight: a factor of each objective's own weight.
  """
  if objective is None:
    return (from_labels(learner, weight),)
  return from_guide(LABELS, learner, objective, weight)


def from_guide(
  guide: str | Fusion,
  learner: str,
  objective: ObjectiveSpec,
  weight: weights.Spec = 1.0,
  detach: bool = True,
) -> tuple[Transfer, ...]:
  """Returns the transfers from a guide to a learner, one for each objective.

  Args:
    guide: of all of them; it may be the labels.
    learner: of all of them.
    objective: one or several, see `weighted_objectives`.
    weight: a factor of each objective's own weight; see `weights.make`.
    detach: stop the gradients at the guide.
  """
  weight = weights.make(weight)
  return tuple(
    Transfer(guide, learner, each, weights.times(weight, own), detach)
    for each, own in weighted_objectives(objective)
  )


def weighted_objectives(
  spec: ObjectiveSpec,
) -> tuple[tuple[Objective, Weight], ...]:
  """Returns objectives and their weights.

  Args:
    spec: one objective, as `objectives.make` takes it, or several: name -> a
      weight, or a mapping of arguments. Among the arguments may be
        weight          a number, or a schedule, see `weights.make`; 1. Or
                        'benchmark', for that in `objectives.PUBLISHED`
        warmup_epochs   over which it grows to its weight; 0
        name            of the objective, where the key is a name of its own,
                        as for two of one kind that compare different taps

  Raises:
    KeyError: no such objective or schedule, with suggestions; an objective that
      is not in the benchmark.
    ValueError: no objective at all, or an argument that it does not take.

  >>> for objective, weight in weighted_objectives(
  ...   {'kd': 0.9, 'dkd': {'beta': 2.0}}
  ... ):
  ...   print(weight, objective.name)
  0.9 kd
  1.0 dkd
  """
  if isinstance(spec, Mapping) and 'name' not in spec:
    if not spec:
      raise ValueError(
        'objective must name one objective or more, got {}: give a name, or'
        ' names with weights, such as {"kd": 0.9}'
      )
    return tuple(_weighted(key, settings) for key, settings in spec.items())
  if isinstance(spec, Mapping):
    return (_weighted(spec['name'], spec),)
  return ((objectives.make(spec), 1.0),)


def _weighted(
  key: str, settings: float | Mapping[str, Any]
) -> tuple[Objective, Weight]:
  if not isinstance(settings, Mapping):
    settings = {'weight': settings}
  settings = {'name': key, **settings}
  name = settings['name']
  if isinstance(name, str) and name not in objectives.CATALOG:
    raise UnknownNameError(
      f'no objective {name!r}. (Of several, an objective is a name with a'
      " weight or arguments; one with arguments needs its 'name'.)"
      f' {suggestion(name, objectives.CATALOG)}'
    )
  weight, epochs = settings.pop('weight', 1.0), settings.pop('warmup_epochs', 0)
  if weight == weights.BENCHMARK:
    published = lookup(
      'objective with a published weight', objectives.PUBLISHED, name
    )
    weight = published.weight
  weight = weights.make(weight, epochs)
  objective = objectives.make(settings)
  return objective._replace(name=key) if key != name else objective, weight
