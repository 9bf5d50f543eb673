"""How the networks of a run are connected to its data.

A network has the images and classes of the data, unless the config or, for a
teacher that is used as it is, its checkpoint says otherwise. The config comes
first, then the model card of the checkpoint, then the data.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar, cast

import flax.linen as nn
import jax.numpy as jnp

from jaxkd import checkpoints, tree
from jaxkd import config as configs
from jaxkd.checkpoints import Card, SavedNetwork
from jaxkd.data.base import View
from jaxkd.graph import Frozen, Graph, Model, Phase
from jaxkd.models.class_map import Groups, map_logits, with_classes
from jaxkd.models.own_input import LUMA, Input, convert, with_input
from jaxkd.runs import classes, functions
from jaxkd.runs.sections import model_of
from jaxkd.types import Variables

F = TypeVar('F', bound=Callable[[Any], Any] | None)
CHANNELS = (3, 1)  # RGB, grey: what images can be converted between
SIDES = (224, 32, 64, 96, 128, 160, 192, 240, 256, 288, 320, 384, 448, 512)


class Data(Protocol):
  """The part of a data set that networks are connected to."""

  @property
  def image_shape(self) -> tuple[int, int, int]:
    """(H, W, C)."""
    ...

  @property
  def view(self) -> View:
    """The normalisation of the images."""
    ...

  @property
  def num_classes(self) -> int:
    """K."""
    ...

  @property
  def class_names(self) -> tuple[str, ...]:
    """K names."""
    ...


@dataclasses.dataclass(frozen=True)
class Interface:
  """The images and classes of a network, and those of the data.

  source: the images of the data.
  target: the images that the network takes.
  num_classes: of the network.
  groups: see `models.class_map`; None: the classes of the data.
  class_names: of the data, where there are groups.
  """

  source: Input
  target: Input
  num_classes: int
  groups: Groups | None = None
  class_names: tuple[str, ...] = ()

  def convert_input(self, module: nn.Module) -> nn.Module:
    """Returns the network for images of the data."""
    return with_input(module, self.source, self.target)

  def connect(self, module: nn.Module) -> nn.Module:
    """Returns the network for images of the data, with the data's classes."""
    return with_classes(self.convert_input(module), self.groups)

  def of_data(self, function: F, as_array: Callable[[Any], Any]) -> F:
    """Returns a function for images of the data, with the data's classes.

    Args:
      function: images of the network [B, H, W, C] -> its logits [B, J]; None is
        returned as it is.
      as_array: makes the arrays that the function takes and returns.
    """
    if function is None or (self.source == self.target and not self.groups):
      return function
    run: Callable[[Any], Any] = function

    def connected(image: Any) -> Any:
      image = convert(jnp.asarray(image), self.source, self.target)
      logits = run(as_array(image))
      if self.groups is not None:
        logits = map_logits(jnp.asarray(logits), self.groups)
      return as_array(logits)

    return cast(F, connected)

  @property
  def merges(self) -> bool:
    """Whether a class of the data consists of several of the network's."""
    return any(len(own) > 1 for own in self.groups or ())

  @property
  def lines(self) -> list[str]:
    """What differs from the data, in words."""
    lines = []
    if self.target != self.source:
      lines.append(f'takes images of {self.target}')
    if self.groups is not None:
      lines.append(
        classes.map_text(self.groups, self.num_classes, self.class_names)
      )
    return lines


def interface(
  model: Model, data: Data, card: Card | None, where: str
) -> Interface | None:
  """Returns how a network is connected to data; None if nothing is said.

  Args:
    model: with the settings of the user.
    data: the data set.
    card: of the checkpoint of a network that is used as it is; None for others.
    where: how its settings are called in messages, such as 'teacher.'.

  Raises:
    FileNotFoundError, KeyError: see `classes.groups_of`.
    ValueError: an impossible input or class map.
  """
  mapped = bool(model.classes) or model.unmapped != classes.RENORMALISE
  own = model.mean, model.std, model.image_size, model.channels
  if card is None and not any(own):
    return None
  source = input_of(data.image_shape, data.view)
  target = _target(model, source, card, where)
  if card is None or not card.num_classes:
    return Interface(source, target, data.num_classes)
  names: Sequence[str] = card.class_names
  if not (mapped or names) and card.num_classes == data.num_classes:
    return Interface(source, target, card.num_classes)
  groups = classes.groups_of(
    model.classes,
    model.unmapped,
    names,
    card.num_classes,
    data.class_names,
    where,
    f'the checkpoint {model.checkpoint}' if model.checkpoint else 'the network',
  )
  return Interface(
    source, target, card.num_classes, groups, tuple(data.class_names)
  )


def input_of(shape: tuple[int, int, int], view: View) -> Input:
  """Returns the input that images of a shape, normalised by a view, are."""
  mean, std = (tuple(map(float, x)) for x in (view.mean, view.std))
  return Input(shape, mean, std, float(view.scale))


def _target(
  model: Model, source: Input, card: Card | None, where: str
) -> Input:
  """Returns the input of a network."""
  height, width, channels = source.shape
  if card is not None and card.image_shape:
    height, width, channels = card.shape
  if model.image_size:
    height = width = model.image_size
  channels = model.channels or channels
  of_data = source.shape[-1]
  if channels != of_data and not {channels, of_data} <= {*CHANNELS}:
    raise ValueError(
      f'{where}channels: the network takes {channels} channels, the images have'
      f' {of_data}, and only grey (1) and RGB (3) can be converted'
    )
  mean, std, scale = _normalisation(model, source, card, channels, where)
  return Input((height, width, channels), mean, std, scale)


Values = tuple[float, ...]


def _normalisation(
  model: Model,
  source: Input,
  card: Card | None,
  channels: int,
  where: str,
) -> tuple[Values, Values, float]:
  """Returns mean, deviation and scale of a network's input."""
  if model.mean or model.std:
    if not (model.mean and model.std):
      raise ValueError(
        f'{where}mean={tuple(model.mean)} and {where}std={tuple(model.std)}'
        ' belong together: set both'
      )
    mean = _values(f'{where}mean', model.mean, channels)
    std = _values(f'{where}std', model.std, channels)
    if min(std) <= 0:
      raise ValueError(f'{where}std must be positive, got {tuple(model.std)}')
    return mean, std, source.scale
  if card is not None and card.mean and card.std:
    if len(card.mean) in (1, channels):
      mean = _values('the mean of the card', card.mean, channels)
      std = _values('the std of the card', card.std, channels)
      return mean, std, float(card.scale or source.scale)
  if len(source.mean) in (1, channels):
    mean = _values('mean', source.mean, channels)
    return mean, _values('std', source.std, channels), source.scale
  raise ValueError(
    f'the network takes grey images, and nothing says how they are normalised:'
    f' set {where}mean and {where}std, for pixels between 0 and 1'
    f' ({" R + ".join(map(str, LUMA[:2]))} G + {LUMA[2]} B)'
  )


def _values(name: str, values: Sequence[float], channels: int) -> Values:
  """Returns a number for each channel; one number is that of all."""
  try:
    numbers = tuple(float(x) for x in values)
  except (TypeError, ValueError):
    numbers = ()
  if len(numbers) not in (1, channels) or not all(
    abs(x) < float('inf') for x in numbers
  ):
    raise ValueError(
      f'{name} must be a finite number for each of the {channels} channels, or'
      f' one for all, got {values!r}'
    )
  return numbers * channels if len(numbers) == 1 else numbers


class Interfaces:
  """The interfaces of all networks of a run, each resolved once.

  A network that has the architecture of a section of the config also has its
  input. The classes of a checkpoint belong to the network that is used as it
  is; all others have the classes of the data.
  """

  def __init__(
    self,
    phases: Sequence[Phase],
    models: Mapping[str, Model],
    data: Data,
  ):
    """Does not read anything yet.

    Args:
      phases: of the run.
      models: by section of the config.
      data: the data set.
    """
    self._models, self.data = models, data
    graphs = [phase.graph for phase in phases]
    trained = {name for graph in graphs for name in graph.trained}
    self._guides = [
      (name, graph.architecture(name))
      for graph in graphs
      for name, network in graph.networks.items()
      if isinstance(network, Frozen) and name not in trained
    ]
    self._resolved: list[tuple[str | Model, Interface | None]] = []

  def of_architecture(self, architecture: str | Model) -> Interface | None:
    """Returns the interface of a section's network, or of a model's."""
    for known, resolved in self._resolved:
      if known == architecture:
        return resolved
    resolved = self._resolve(architecture)
    self._resolved.append((architecture, resolved))
    return resolved

  def of_network(self, graph: Graph, name: str) -> Interface | None:
    """Returns the interface of a network of a graph."""
    architecture = graph.architecture(name)
    resolved = self.of_architecture(architecture)
    if resolved is None or self._is_guide(name, architecture):
      return resolved
    return dataclasses.replace(
      resolved, num_classes=self.data.num_classes, groups=None
    )

  def of_graph(self, graph: Graph) -> dict[str, Interface]:
    """Returns the interfaces of the networks of a graph that have one."""
    resolved = {name: self.of_network(graph, name) for name in graph.networks}
    return {name: x for name, x in resolved.items() if x is not None}

  def _is_guide(self, name: str, architecture: str | Model) -> bool:
    """Returns whether a network is a checkpoint that is used as it is."""
    own = isinstance(architecture, Model) or name == architecture
    return own and (name, architecture) in self._guides

  def _resolve(self, architecture: str | Model) -> Interface | None:
    model, name = model_of(architecture, self._models), architecture
    if isinstance(name, Model):
      names = [name for name, own in self._guides if own == architecture]
      name = names[0] if names else model.name
      where = f'{name}: '
    else:
      where = f'{name}.'
    guide = self._is_guide(name, architecture)
    card = card_of(model, self.data) if guide else None
    has_map = bool(model.classes) or model.unmapped != classes.RENORMALISE
    frozen = guide and (model.checkpoint or functions.is_function(model))
    if has_map and not frozen:
      raise ValueError(
        f'{where}classes and {where}unmapped are for a network with a'
        f' checkpoint that is used as it is, and {name!r} is trained here, on'
        ' the classes of the data: leave them out'
      )
    return interface(model, self.data, card, where)


def card_of(model: Model, data: Data) -> Card | None:
  """Returns the card of a model's checkpoint.

  A state dict without a card has as many classes and channels as its arrays.

  Returns:
    None if there is no checkpoint, or it does not exist yet.
  """
  path = model.checkpoint
  if functions.is_function(model):
    return functions.read(model, data.image_shape).card
  if not path or path == configs.BAYES or checkpoints.find(path) is None:
    return None
  card = checkpoints.load_card(path)
  return card or load(model, data.image_shape).card


def load(model: Model, image_shape: tuple[int, int, int]) -> SavedNetwork:
  """Reads a model's checkpoint.

  A state dict without a card is for images of the data's size and channels, or
  else of the first of `SIDES` and `CHANNELS` that fit its arrays, such as the
  positions of a transformer.

  Args:
    model: with a checkpoint.
    image_shape: of the data, [H, W, C].
  """
  height, width, channels = image_shape
  if model.image_size:
    height = width = model.image_size
  channels = model.channels or channels
  arguments: dict[str, Any] = configs.as_json(model.settings)
  variables, card = checkpoints.load(
    model.checkpoint,
    model.name,
    (height, width, channels),
    model.weights,
    width=model.width,
    **arguments,
  )
  sizes = [(height, width)]
  if not model.image_size:
    sizes += [(side, side) for side in SIDES]
  counts = dict.fromkeys((channels, *CHANNELS))
  for size, count in itertools.product(sizes, counts):
    if card.shape != (height, width, channels):
      break  # its own, which the file knows
    if _fits(variables, card, (*size, count)):
      return SavedNetwork(variables, card.replace(image_shape=(*size, count)))
  return SavedNetwork(variables, card)


def _fits(
  variables: Variables, card: Card, image_shape: tuple[int, int, int]
) -> bool:
  """Returns whether arrays are those of a network for images of a shape."""
  try:
    shapes = tree.shapes(card.module(), image_shape)
  except ValueError:  # a size that the network cannot have
    return False
  return not tree.differences(variables, shapes)
