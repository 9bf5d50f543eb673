"""The networks of a graph: architectures, and where parameters come from.

A network learns parameters of its own, or is frozen, or shares another's.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn

from jaxkd.types import Array, Tree, Variables

# How a network's parameters follow from its owner's: (its module, the owner's
# module, input shape [H, W, C]) -> (owner's parameters -> its parameters). The
# map is recomputed at every step and differentiated through.
Sharing = Callable[
  [nn.Module, nn.Module, tuple[int, int, int]], Callable[[Tree], Tree]
]


def same(
  module: nn.Module, owner: nn.Module, input_shape: tuple[int, int, int]
) -> Callable[[Tree], Tree]:
  """The sharing of two equal architectures: all of the owner's parameters."""
  del module, owner, input_shape
  return lambda params: params


class Expansion(NamedTuple):
  """How a network starts as the expansion of a narrower one.

  expand: (the narrow network's initial variables, key) -> the variables that
    are stored for the wide one.
  parameters: the stored parameters -> those that the wide one computes with.
  """

  expand: Callable[[Variables, Array], Variables]
  parameters: Callable[[Tree], Tree]


# (the narrow module, the wide one, input shape [H, W, C]) -> its expansion.
Expander = Callable[[nn.Module, nn.Module, tuple[int, int, int]], Expansion]


@dataclasses.dataclass(frozen=True)
class Model:
  """An architecture with its settings, and where its variables come from.

  name: of the architecture.
  width: channels, in multiples of the architecture's.
  settings: further arguments of the architecture.
  taps: further taps, by name.
  checkpoint: of its variables; '': none.
  branches: of its convolutions while it is trained.
  start: a checkpoint from which its training starts; '': random values.
  read_out: how its outputs become logits, a key of `models.READ_OUTS`; '':
    that on the card of its checkpoint.
  weights: which weights of a checkpoint that has several, see
    `checkpoints.load`.
  outputs: a file of its logits for the training images, which takes the place
    of the network; '': none.
  image_size: height and width of the images that it takes; 0: those of its
    checkpoint or else of the data.
  channels: of these images, likewise.
  mean, std: of their normalisation, for pixels between 0 and 1; (): likewise.
  classes: a map from the classes of its checkpoint to those of the data: a
    mapping, 'same', or a file; '': by name.
  unmapped: the class of the data that its further classes belong to;
    'renormalise' leaves them out.
  allow_guessing: whether it may be no better than guessing.
  """

  name: str
  width: float = 1.0
  settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  taps: Mapping[str, str] = dataclasses.field(default_factory=dict)
  checkpoint: str = ''
  branches: int = 1
  start: str = ''
  read_out: str = 'softmax'
  weights: str = ''
  outputs: str = ''
  image_size: int = 0
  channels: int = 0
  mean: Sequence[float] = ()
  std: Sequence[float] = ()
  classes: str | Mapping[Any, Any] = ''
  unmapped: str = 'renormalise'
  allow_guessing: bool = False


@dataclasses.dataclass(frozen=True)
class ReusedHead:
  """Another network's classifier, in place of a network's own.

  of: the other network. Its classifier is copied in every step, and no gradient
    flows into it.
  factor: of the projector in front of it, see `models.reusing`.
  """

  of: str
  factor: int = 2


@dataclasses.dataclass(frozen=True)
class Learner:
  """A network that owns its parameters and learns them.

  like: the network whose architecture it has; its own name if None.
  width: channels, in multiples of that architecture's.
  branches: of its convolutions; None takes the architecture's.
  same_start: has the same initial variables as the network it is like, so that
    two trainings can be compared; otherwise it has its own.
  expander: makes its initial variables from those of the narrower network that
    it is like.
  model: its architecture, instead of that of the network it is like.
  head: another network's classifier, in place of its own.
  """

  like: str | None = None
  width: float = 1.0
  branches: int | None = None
  same_start: bool = False
  expander: Expander | None = None
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


def role(network: Network) -> str:
  """Returns in words where a network's parameters come from."""
  if isinstance(network, Shared):
    return f'shares {network.owner}'
  if isinstance(network, Frozen):
    return 'frozen'
  if network.head:
    return f'learns before the head of {network.head.of}'
  return f'grows out of {network.like}' if network.expander else 'learns'
