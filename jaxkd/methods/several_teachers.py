"""Several frozen teachers of one student."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxkd.graph import Frozen, Fusion, Graph, Learner, Phase, Weight
from jaxkd.methods import weights
from jaxkd.methods.network_specs import is_pretrained, network
from jaxkd.methods.transfers import from_labels


class Teachers(NamedTuple):
  """Several frozen networks that guide together.

  phases: those that train, from labels, the networks without a checkpoint.
  networks: by name.
  weights: by name.
  """

  phases: tuple[Phase, ...]
  networks: dict[str, Frozen]
  weights: dict[str, Weight]

  def fused(self) -> Fusion:
    """Returns the teachers as one guide.

    Raises:
      ValueError: a weight with a schedule.
    """
    numbers = {n: x for n, x in self.weights.items() if not callable(x)}
    for name in self.weights.keys() - numbers.keys():
      raise ValueError(
        f'the weight of the teacher {name!r} has a schedule'
        f' ({self.weights[name]}), but those of fused outputs must be numbers:'
        ' set fuse to False, or give a number'
      )
    return Fusion(numbers)


def teachers(spec: Mapping[str, Any]) -> Teachers:
  """Returns the teachers that a config names.

  Args:
    spec: network -> its weight; or a mapping of 'weight' (1) and what
      `network_specs.network` takes, whose 'name' is the network's by default.
      'teacher' is the config's.

  Raises:
    ValueError: no teacher at all, or one that is called student; no mapping.
  """
  if not isinstance(spec, Mapping):
    raise ValueError(
      'the teachers must be a mapping of networks to their weights, like'
      f' {dict(teacher=0.5, resnet56=0.5)}; got {spec!r}'
    )
  if not spec or 'student' in spec:
    raise ValueError(
      'the teachers must be one network or more, and not the student, got'
      f' {tuple(spec)}'
    )
  phases, networks, shares = [], {}, {}
  for name, value in spec.items():
    settings = value if isinstance(value, Mapping) else {'weight': value}
    settings = {'name': name, **settings}
    shares[name] = weights.make(settings.pop('weight', 1.0))
    networks[name] = teacher = network(Frozen, settings)
    if name != 'teacher' and not is_pretrained(teacher):
      graph = Graph({name: network(Learner, settings)}, (from_labels(name),))
      phases.append(Phase(name, graph))
  return Teachers(tuple(phases), networks, shares)
