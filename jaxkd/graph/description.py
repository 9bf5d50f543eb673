"""A distillation method is a graph: networks, and arrows that say who teaches.

A `Graph` is pure description: names, roles and objectives. `program.bind`
puts a Flax module into each node.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn

from jaxkd import catalog
from jaxkd.objectives import Objective
from jaxkd.types import Array, Tree, Variables

LABELS = 'labels'
OBJECTIVES = 'objectives'  # the owner of what objectives learn

# How a network sits in its owner: (its module, the owner's module, input shape
# [H, W, C]) -> (owner's parameters -> its parameters). The map is recomputed at
# every step and differentiated through.
Sharing = Callable[
  [nn.Module, nn.Module, tuple[int, int, int]], Callable[[Tree], Tree]
]


def same(
  module: nn.Module, owner: nn.Module, input_shape: tuple[int, int, int]
) -> Callable[[Tree], Tree]:
  """The sharing of two equal architectures: all of the owner's parameters."""
  del module, owner, input_shape
  return lambda params: params


class Growth(NamedTuple):
  """How a network grows out of a narrower one.

  grow: (where the narrow one starts, key) -> what is stored for the wide one.
  read: what is stored -> the parameters that the wide one computes with.
  """

  grow: Callable[[Variables, Array], Variables]
  read: Callable[[Tree], Tree]


# (the narrow module, the wide one, input shape [H, W, C]) -> how.
Growing = Callable[[nn.Module, nn.Module, tuple[int, int, int]], Growth]


@dataclasses.dataclass(frozen=True)
class Model:
  """What the config says of `student` and `teacher`, of any other network.

  name: of the architecture.
  width: channels, in multiples of the architecture's.
  settings: further arguments of the architecture.
  taps: further ones of its taps.
  checkpoint: where its variables are; '': nowhere yet.
  """

  name: str
  width: float = 1.0
  settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  taps: Mapping[str, str] = dataclasses.field(default_factory=dict)
  checkpoint: str = ''


@dataclasses.dataclass(frozen=True)
class ReusedHead:
  """Another network's classifier, in place of a network's own.

  of: the other network. Its classifier is read from it in every step; no
    gradient flows back into it from here.
  factor: of the projector in between, see `models.reusing`.
  """

  of: str
  factor: int = 2


@dataclasses.dataclass(frozen=True)
class Learner:
  """A network that owns its parameters and learns them.

  like: the network whose architecture it has; its own name if None.
  width: channels, in multiples of that architecture's.
  branches: of its convolutions; None has the architecture's.
  same_start: starts where the network it is like starts, so that two trainings
    can be compared; otherwise from random values of its own.
  growing: starts by growing out of the network it is like.
  model: an architecture that no other network has to have.
  head: another network's classifier, in the place of its own.
  """

  like: str | None = None
  width: float = 1.0
  branches: int | None = None
  same_start: bool = False
  growing: Growing | None = None
  model: Model | None = None
  head: ReusedHead | None = None


@dataclasses.dataclass(frozen=True)
class Frozen:
  """A network in eval mode, outside of differentiation and of the optimizer.

  Its variables come from a checkpoint or from an earlier phase.
  """

  like: str | None = None
  width: float = 1.0
  branches: int | None = None
  model: Model | None = None


@dataclasses.dataclass(frozen=True)
class Shared:
  """A network whose parameters are a function of another's, its owner's.

  It has BatchNorm statistics of its own.
  """

  owner: str
  sharing: Sharing = same
  like: str | None = None
  width: float = 1.0
  branches: int | None = None


Network = Learner | Frozen | Shared


@dataclasses.dataclass(frozen=True)
class Fusion:
  """A guide made of several networks: the weighted sum of their outputs.

  Logits are summed before any softmax; taps that all members have in the same
  shape are summed too.
  """

  weights: Mapping[str, float]

  def __str__(self) -> str:
    return ' + '.join(f'{w:g} {name}' for name, w in self.weights.items())


# A number, or a function of the epoch (float32 scalar, continuous from 0) and
# the number of epochs of the phase.
Weight = float | Callable[[Array, int], Array]


@dataclasses.dataclass(frozen=True)
class Transfer:
  """An arrow: the guide teaches the learner through an objective.

  guide: the name of a network, a `Fusion` of networks, or 'labels'.
  learner: the name of a network that learns or shares.
  weight: a number, or a function (epoch, epochs) that returns one, see
    `Weight`.
  detach: stop the gradient at the guide's outputs.
  chance: a factor of the weight that is drawn on each batch: a function of a
    key, which is the same for all transfers of a step.
  """

  guide: str | Fusion
  learner: str
  objective: Objective
  weight: Weight = 1.0
  detach: bool = True
  chance: Callable[[Array], Array] | None = None

  @property
  def name(self) -> str:
    """Identifies the transfer in metrics, parameters and memory."""
    return f'{self.guide}->{self.learner}:{self.objective.name}'

  @property
  def guides(self) -> tuple[str, ...]:
    """The networks among the guides: none for labels."""
    if isinstance(self.guide, Fusion):
      return tuple(self.guide.weights)
    return () if self.guide == LABELS else (self.guide,)


@dataclasses.dataclass(frozen=True)
class Graph:
  """Networks and the transfers between them.

  networks: by name.
  transfers: who teaches whom.
  turns: the learners in groups that are updated one after another on each
    batch, so that a group is taught by what the groups before it have just
    become; () updates all of them at once.

  Raises:
    ValueError: a transfer, a sharing or an order of turns that cannot be,
      saying which.
  """

  networks: Mapping[str, Network]
  transfers: tuple[Transfer, ...]
  turns: tuple[tuple[str, ...], ...] = ()

  def __post_init__(self):
    for reserved in (LABELS, OBJECTIVES):
      if reserved in self.networks:
        raise ValueError(f'{reserved!r} cannot be the name of a network')
    for name in self.networks:
      if not re.fullmatch(r'\w[\w.-]*', name):
        raise ValueError(
          f'{name!r} cannot be the name of a network, which is that of a'
          ' folder: take letters, digits, and _ - .'
        )
    for name, network in self.networks.items():
      if isinstance(network, Learner) and network.growing and not network.like:
        raise ValueError(f'{name!r} grows: say out of which network (like=...)')
      if isinstance(network, Learner) and network.head:
        other = catalog.lookup('network', self.networks, network.head.of)
        if isinstance(other, Learner) and other.head:
          raise ValueError(
            f'{name!r} has the classifier of {network.head.of!r}, which has'
            f' that of {other.head.of!r}; name a network with its own'
          )
      if isinstance(network, Shared):
        owner = catalog.lookup('network', self.networks, network.owner)
        if isinstance(owner, Shared):
          raise ValueError(
            f'{name!r} shares the parameters of {network.owner!r}, which'
            f' shares those of {owner.owner!r}; name {owner.owner!r} instead'
          )
    self._check_transfers()
    self._check_turns()

  def _check_turns(self) -> None:
    given = [name for turn in self.turns for name in turn]
    if self.turns and sorted(given) != sorted(self.learners):
      raise ValueError(
        f'every learner has one turn: the learners are {self.learners}, the'
        f' turns {self.turns}'
      )

  def _check_transfers(self) -> None:
    seen = set()
    for transfer in self.transfers:
      for name in (*transfer.guides, transfer.learner):
        catalog.lookup('network', self.networks, name)
      if isinstance(self.networks[transfer.learner], Frozen):
        raise ValueError(f'{transfer.name}: the learner is frozen')
      if transfer.name in seen:
        raise ValueError(f'two transfers are called {transfer.name!r}')
      seen.add(transfer.name)
    taught = {transfer.learner for transfer in self.transfers}
    for name in self.trained:
      if name not in taught:
        raise ValueError(
          f'nobody teaches {name!r}: add a transfer to it, or freeze it'
        )

  @property
  def trained(self) -> tuple[str, ...]:
    """Networks that run in train mode: those that learn or share."""
    return tuple(
      n for n, x in self.networks.items() if not isinstance(x, Frozen)
    )

  @property
  def frozen(self) -> tuple[str, ...]:
    """Networks that run in eval mode."""
    return tuple(n for n, x in self.networks.items() if isinstance(x, Frozen))

  @property
  def learners(self) -> tuple[str, ...]:
    """Networks whose own parameters are learned."""
    return tuple(n for n, x in self.networks.items() if isinstance(x, Learner))

  @property
  def heads(self) -> dict[str, ReusedHead]:
    """The classifiers of networks that have another network's."""
    return {
      name: network.head
      for name, network in self.networks.items()
      if isinstance(network, Learner) and network.head
    }

  @property
  def guided(self) -> bool:
    """Does a network teach? Otherwise labels alone do."""
    return any(transfer.guides for transfer in self.transfers)

  def owner(self, name: str) -> str:
    """Returns the network that owns the parameters of network `name`."""
    network = self.networks[name]
    return network.owner if isinstance(network, Shared) else name

  def architecture(self, name: str) -> str | Model:
    """Returns a network's model, or the name that the config knows it by."""
    network = self.networks[name]
    if isinstance(network, Shared) or network.model is None:
      like = network.like or name
      known = like != name and like in self.networks
      return self.architecture(like) if known else like
    return network.model

  def updates(self) -> tuple['Update', ...]:
    """Returns what is done on each batch, one update after another."""
    return tuple(
      Update(turn, tuple(t for t in self.transfers if self._learns(t, turn)))
      for turn in self.turns or (self.learners,)
    )

  def _learns(self, transfer: Transfer, turn: tuple[str, ...]) -> bool:
    return self.owner(transfer.learner) in turn


class Update(NamedTuple):
  """One gradient step of some learners.

  learners: whose parameters it changes.
  transfers: what they are taught.
  """

  learners: tuple[str, ...]
  transfers: tuple[Transfer, ...]

  @property
  def networks(self) -> set[str]:
    """Those that take part, learning or teaching."""
    learners = {transfer.learner for transfer in self.transfers}
    return learners.union(*(transfer.guides for transfer in self.transfers))

  def apart(self) -> tuple[tuple[Transfer, ...], tuple[Transfer, ...]]:
    """Returns the transfers from labels, and those from networks."""
    return (
      tuple(t for t in self.transfers if not t.guides),
      tuple(t for t in self.transfers if t.guides),
    )


@dataclasses.dataclass(frozen=True)
class Phase:
  """A graph, a duration and an optimizer; a method is a list of phases.

  epochs, learning_rate and schedule: None takes the run's own setting.
  stop: the training is broken off after so many epochs, although its schedule
    is that of all `epochs`; None goes on to the end.
  """

  name: str
  graph: Graph
  epochs: int | None = None
  learning_rate: float | None = None
  stop: int | None = None
  schedule: str | None = None
