"""Networks of a method that the config's two sections do not describe.

A teacher beside the teacher, an assistant, a peer: each is named in the
method's arguments, by a model, or by a mapping of what `graph.Model` has.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from jaxkd.catalog import call
from jaxkd.graph import Frozen, Fusion, Graph, Learner, Model, Phase, Weight
from jaxkd.methods import weights
from jaxkd.methods.arrows import labelled

CONFIGURED = ('student', 'teacher')  # the networks that have a section
Spec = str | Mapping[str, Any]
Node = TypeVar('Node', Frozen, Learner)


def node(kind: type[Node], spec: Spec) -> Node:
  """Returns a network of an architecture.

  Args:
    kind: `Learner` or `Frozen`.
    spec: 'student' or 'teacher', whose architecture is in the config; or the
      name of a model; or a mapping of its 'name' and, as in those sections,
      'width', 'settings', 'taps' and 'checkpoint'.

  Raises:
    ValueError: a mapping with anything else, with suggestions; no name; neither
      of both.

  >>> node(Learner, 'teacher').like
  'teacher'
  >>> node(Frozen, {'name': 'resnet56', 'checkpoint': 'runs/56'}).model.name
  'resnet56'
  """
  if isinstance(spec, str):
    spec = {'name': spec}
  if not isinstance(spec, Mapping):
    raise ValueError(
      f"a network is a model's name, like {'resnet20'!r}, or a mapping with"
      f' one, like {dict(name="resnet20", width=2.0)}; got {spec!r}'
    )
  if spec.get('name') in CONFIGURED and len(spec) == 1:
    return kind(like=spec['name'])
  return kind(model=call('a network', Model, dict(spec)))


def frozen(network: Learner) -> Frozen:
  """Returns a network as it is after it has learned."""
  names = ('like', 'width', 'branches', 'model')
  return Frozen(**{name: getattr(network, name) for name in names})


def is_given(network: Learner | Frozen) -> bool:
  """Does it have a checkpoint, so that it need not be trained?"""
  return network.model is not None and bool(network.model.checkpoint)


class Guides(NamedTuple):
  """Several frozen networks that guide together.

  phases: in which those are trained from labels that have no checkpoint.
  networks: by name.
  weights: by name.
  """

  phases: tuple[Phase, ...]
  networks: dict[str, Frozen]
  weights: dict[str, Weight]

  def fused(self) -> Fusion:
    """Returns them as one guide.

    Raises:
      ValueError: a weight with a schedule.
    """
    numbers = {n: x for n, x in self.weights.items() if not callable(x)}
    for name in self.weights.keys() - numbers.keys():
      raise ValueError(
        f'the weight of the teacher {name!r} has a schedule'
        f' ({self.weights[name]}), but those of fused outputs are numbers: set'
        ' fuse to False, or give a number'
      )
    return Fusion(numbers)


def guides(spec: Mapping[str, Any]) -> Guides:
  """Returns teachers.

  Args:
    spec: network -> its weight; or a mapping of 'weight' (1) and what `node`
      takes, whose 'name' is the network's if it is not there. 'teacher' is the
      config's.

  Raises:
    ValueError: no teacher at all, or one that is called the student; no
      mapping.
  """
  if not isinstance(spec, Mapping):
    raise ValueError(
      'the teachers are a mapping of networks to their weights, like'
      f' {dict(teacher=0.5, resnet56=0.5)}; got {spec!r}'
    )
  if not spec or 'student' in spec:
    raise ValueError(
      f'the teachers {tuple(spec)}: expected one or more, none of which is the'
      ' student'
    )
  phases, networks, shares = [], {}, {}
  for name, given in spec.items():
    settings = given if isinstance(given, Mapping) else {'weight': given}
    settings = {'name': name, **settings}
    shares[name] = weights.make(settings.pop('weight', 1.0))
    networks[name] = network = node(Frozen, settings)
    if name != 'teacher' and not is_given(network):
      graph = Graph({name: node(Learner, settings)}, (labelled(name),))
      phases.append(Phase(name, graph))
  return Guides(tuple(phases), networks, shares)
