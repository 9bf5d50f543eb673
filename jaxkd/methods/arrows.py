"""What one guide asks of one learner: an objective, or several with weights."""

from collections.abc import Mapping
from typing import Any

from jaxkd import objectives
from jaxkd.catalog import UnknownNameError, lookup, suggestion
from jaxkd.graph import LABELS, Fusion, Transfer, Weight
from jaxkd.methods import weights
from jaxkd.objectives import Objective

# A name, or a mapping with 'name': one objective. Any other mapping: several.
Spec = str | Mapping[str, Any]


def labelled(learner: str, weight: weights.Spec = 1.0) -> Transfer:
  """Returns the transfer from labels: cross-entropy."""
  objective = objectives.cross_entropy()
  return Transfer(LABELS, learner, objective, weights.make(weight))


def arrows(
  guide: str | Fusion,
  learner: str,
  spec: Spec,
  weight: weights.Spec = 1.0,
  detach: bool = True,
) -> tuple[Transfer, ...]:
  """Returns the transfers from a guide to a learner.

  Args:
    guide: of all of them.
    learner: of all of them.
    spec: see `parts`.
    weight: of all of them, a factor of what each has; see `weights.make`.
    detach: stop the gradients at the guide.
  """
  weight = weights.make(weight)
  return tuple(
    Transfer(guide, learner, objective, weights.times(weight, own), detach)
    for objective, own in parts(spec)
  )


def parts(spec: Spec) -> tuple[tuple[Objective, Weight], ...]:
  """Returns objectives and their weights.

  Args:
    spec: one objective, as `objectives.make` takes it, or several: name -> a
      weight, or a mapping of arguments. Among the arguments may be
        weight          a number, or a schedule, see `weights.make`; 1. Or
                        'benchmark', for that in `objectives.PUBLISHED`
        warmup_epochs   over which it grows to its weight; 0
        name            of the objective, where the key is a name of its own,
                        as for two of one kind that look at different taps

  Raises:
    KeyError: no such objective or schedule, with suggestions; an objective that
      is not in the benchmark.
    ValueError: no objective at all, or an argument that it does not take.

  >>> for objective, weight in parts({'kd': 0.9, 'dkd': {'beta': 2.0}}):
  ...   print(weight, objective.name)
  0.9 kd
  1.0 dkd
  """
  if isinstance(spec, Mapping) and 'name' not in spec:
    if not spec:
      raise ValueError(
        'no objective at all: name one, with its weight, like {"kd": 0.9}'
      )
    return tuple(_part(key, given) for key, given in spec.items())
  if isinstance(spec, Mapping):
    return (_part(spec['name'], spec),)
  return ((objectives.make(spec), 1.0),)


def _part(
  key: str, given: float | Mapping[str, Any]
) -> tuple[Objective, Weight]:
  settings = {'weight': given} if not isinstance(given, Mapping) else given
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


def chosen(
  objective: Spec | None, objectives: Spec | None, default: Spec
) -> Spec:
  """Returns what a method has to ask: several objectives, or one, or its own.

  A config file often has an `objective` already; so `objectives` take its
  place, and need not come with its removal.
  """
  given = objective if objectives is None else objectives
  return default if given is None else given
