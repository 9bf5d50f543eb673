"""What one guide asks of one learner: an objective, or several with weights."""

from collections.abc import Mapping
from typing import Any

from jaxkd import objectives
from jaxkd.graph import Fusion, Transfer, Weight
from jaxkd.methods import weights
from jaxkd.objectives import Objective

# A name, or a mapping with 'name': one objective. Any other mapping: several.
Spec = str | Mapping[str, Any]


def arrows(
  guide: str | Fusion,
  learner: str,
  spec: Spec,
  weight: Weight = 1.0,
  detach: bool = True,
) -> tuple[Transfer, ...]:
  """Returns the transfers from a guide to a learner.

  Args:
    guide: of all of them.
    learner: of all of them.
    spec: see `parts`.
    weight: of all of them, a factor of what each has.
    detach: stop the gradients at the guide.
  """
  return tuple(
    Transfer(guide, learner, objective, weights.times(weight, own), detach)
    for objective, own in parts(spec)
  )


def parts(spec: Spec) -> tuple[tuple[Objective, Weight], ...]:
  """Returns objectives and their weights.

  Args:
    spec: one objective, as `objectives.make` takes it, or several: name -> a
      weight, or a mapping of arguments. Among the arguments may be
        weight          a number, or a schedule, see `weights.make`; 1
        warmup_epochs   over which it grows to its weight; 0
        name            of the objective, where the key is a name of its own,
                        as for two of one kind that look at different taps

  Raises:
    KeyError: no such objective or schedule, with suggestions.
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
  weight = weights.make(settings.pop('weight', 1.0))
  epochs = settings.pop('warmup_epochs', 0)
  if epochs and callable(weight):
    raise ValueError(
      f'the objective {key!r} has warmup_epochs={epochs} and a weight with a'
      f' schedule ({weight}): give one of them'
    )
  if epochs:
    weight = weights.WarmUp(weight, epochs)
  objective = objectives.make(settings)
  renamed = key != settings['name']
  return objective._replace(name=key) if renamed else objective, weight


def chosen(
  objective: Spec | None, objectives: Spec | None, default: Spec
) -> Spec:
  """Returns which of two arguments of a method was given.

  Raises:
    ValueError: both were.
  """
  if objective is not None and objectives is not None:
    raise ValueError(
      f'objective={objective!r} and objectives={objectives!r}: give one of'
      ' them; several objectives are a mapping of names and weights'
    )
  given = objectives if objective is None else objective
  return default if given is None else given
