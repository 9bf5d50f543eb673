"""A distillation method is a graph: networks, and transfers between them.

A `Graph` is pure description: names, roles and objectives. `program.bind`
puts a Flax module into each node.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from jaxkd import catalog
from jaxkd.graph.networks import (
  Frozen,
  Learner,
  Model,
  Network,
  ReusedHead,
  Shared,
)
from jaxkd.objectives import Objective
from jaxkd.types import Array

LABELS = 'labels'
OBJECTIVES = 'objectives'  # the owner of the objectives' parameters


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
  """One edge of the graph: the guide teaches the learner by an objective.

  guide: the name of a network, a `Fusion` of networks, or 'labels'.
  learner: the name of a network that learns or shares.
  weight: a number, or a function (epoch, epochs) that returns one, see
    `Weight`.
  detach: stop the gradient at the guide's outputs.
  default: its objective is cross-entropy in the place of the loss of labels
    that the data's problem has, see `Problem.label_objective`.
  dropout: a random factor of the weight, 0 or 1 on each batch: a function of a
    key, which is the same for all transfers of a step.
  """

  guide: str | Fusion
  learner: str
  objective: Objective
  weight: Weight = 1.0
  detach: bool = True
  dropout: Callable[[Array], Array] | None = None
  default: bool = dataclasses.field(default=False, compare=False)

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

  networks: by name. The last of those that are trained is the graph's result.
  transfers: who teaches whom.
  turns: the learners in groups that are updated one after another on each
    batch, so that a group is taught by the groups before it as they are after
    their update; () updates all of them at once.

  Raises:
    ValueError: an invalid name, transfer, sharing or order of turns, which the
      message names.
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
          f'{name!r} cannot be the name of a network, which is also that of'
          ' its folder: use letters, digits, and _ - .'
        )
    for name, network in self.networks.items():
      if isinstance(network, Learner) and network.expander and not network.like:
        raise ValueError(
          f'{name!r} has an expander, but no network to expand: set like=...'
        )
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
    names = [name for turn in self.turns for name in turn]
    if self.turns and sorted(names) != sorted(self.learners):
      raise ValueError(
        f'every learner must have one turn: the learners are {self.learners},'
        f' the turns {self.turns}'
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
          f'nothing teaches {name!r}: add a transfer to it, or freeze it'
        )

  def with_label_objective(self, objective: Objective) -> 'Graph':
    """Returns the graph with another objective in its default transfers."""
    transfers = tuple(
      dataclasses.replace(t, objective=objective) if t.default else t
      for t in self.transfers
    )
    return dataclasses.replace(self, transfers=transfers)

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
    """The reused classifier of each network that has another network's."""
    return {
      name: network.head
      for name, network in self.networks.items()
      if isinstance(network, Learner) and network.head
    }

  @property
  def guided(self) -> bool:
    """Whether a network is a guide; otherwise labels alone teach."""
    return any(transfer.guides for transfer in self.transfers)

  @property
  def result(self) -> str:
    """The network that the graph is for: the last one that is trained."""
    return self.trained[-1]

  def owner(self, name: str) -> str:
    """Returns the network that owns the parameters of network `name`."""
    network = self.networks[name]
    return network.owner if isinstance(network, Shared) else name

  def architecture(self, name: str) -> str | Model:
    """Returns a network's own model, or the name of the config's section."""
    network = self.networks[name]
    if isinstance(network, Shared) or network.model is None:
      like = network.like or name
      follow = like != name and like in self.networks
      return self.architecture(like) if follow else like
    return network.model

  def updates(self) -> tuple['Update', ...]:
    """Returns the updates of each batch, in their order."""
    return tuple(
      Update(turn, tuple(t for t in self.transfers if self._learns(t, turn)))
      for turn in self.turns or (self.learners,)
    )

  def _learns(self, transfer: Transfer, turn: tuple[str, ...]) -> bool:
    return self.owner(transfer.learner) in turn


class Update(NamedTuple):
  """One gradient step of some learners.

  learners: whose parameters it changes.
  transfers: those to them.
  """

  learners: tuple[str, ...]
  transfers: tuple[Transfer, ...]

  @property
  def networks(self) -> set[str]:
    """Those that take part, as learners or as guides."""
    learners = {transfer.learner for transfer in self.transfers}
    return learners.union(*(transfer.guides for transfer in self.transfers))

  @property
  def from_labels(self) -> tuple[Transfer, ...]:
    """The transfers whose guide is the labels."""
    return tuple(t for t in self.transfers if not t.guides)

  @property
  def from_networks(self) -> tuple[Transfer, ...]:
    """The transfers whose guides are networks."""
    return tuple(t for t in self.transfers if t.guides)


@dataclasses.dataclass(frozen=True)
class Phase:
  """A graph, a duration and an optimizer; a method is a list of phases.

  epochs, learning_rate, schedule and seed: None takes the run's own setting.
  stop: the training ends after so many epochs, although its schedule is that of
    all `epochs`; None trains to the end.
  reusable: its network depends on no other setting of the run than those of the
    data and the optimizer, so that other runs can take it from the cache.
  """

  name: str
  graph: Graph
  epochs: int | None = None
  learning_rate: float | None = None
  stop: int | None = None
  schedule: str | None = None
  seed: int | None = None
  reusable: bool = False
