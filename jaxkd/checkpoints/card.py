"""The model card of a saved network: its architecture, data and results."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn

from jaxkd import models, tree
from jaxkd.disk import json_text
from jaxkd.types import DTYPES, Variables

# Keys of cards of version 0.1, and their names now.
RENAMED = {'stage': 'phase'}
# Written even if they have their default value; all others only if not.
ALWAYS = (
  'model',
  'width',
  'branches',
  'read_out',
  'num_classes',
  'image_shape',
  'params',
  'macs',
  'params_sha256',
)
USUAL = 'classification'  # the problem of data, where a card names none
PLAIN = ('settings', 'taps', 'reused', 'data_settings')  # mappings, as in JSON
TUPLES = ('image_shape', 'class_names', 'mean', 'std', 'notes')


@dataclasses.dataclass(frozen=True)
class Card:
  """The description of a network besides its arrays.

  The defaults are those of a card that lacks the entry. On disk a card is one
  flat JSON object, see `to_json` and `from_json`.

  model: name of the architecture, see `models.build`.
  num_classes: K.
  image_shape: [H, W, C] of one image.
  network: the network's name in its run.
  phase: the phase of the run that trained it.
  width: channel multiplier.
  branches: of each convolution.
  settings: further arguments of the architecture.
  taps: further intermediate features, name -> place.
  read_out: a key of `models.READ_OUTS`.
  reused: settings of `models.reusing`, of a network with the classifier of
    another one.
  compute_dtype: a key of `DTYPES`; '' is float32.
  class_names: of the data, in the order of the logits; () if unknown, as for
    the other entries on data.
  problem: that its labels pose, see `problems.CATALOG`; '' if unknown, or if it
    is the usual one, `USUAL`.
  data: name of the data set.
  data_fingerprint: digest of its content.
  mean, std, scale: of the normalisation of images, see `data.base.View`.
  params: number of parameters.
  macs: multiply-accumulates of one image.
  params_sha256: `tree.digest` of the variables.
  results: metrics on the test split by name.
  data_settings: of an exported network, the config's section on data.
  exported_from: of an exported network, the digest of the trained one.
  layout: of an exported network's images: 'NHWC'.
  jaxkd: the version that exported it.
  converted_from: name of the file of a PyTorch state dict.
  notes: sentences on what was taken from that file.
  other: entries that this version does not know; they are kept.
  """

  model: str
  num_classes: int = 0
  image_shape: tuple[int, ...] = ()
  network: str = ''
  phase: str = ''
  width: float = 1.0
  branches: int = 1
  settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  taps: Mapping[str, str] = dataclasses.field(default_factory=dict)
  read_out: str = 'softmax'
  reused: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  compute_dtype: str = ''
  class_names: tuple[str, ...] = ()
  problem: str = ''
  data: str = ''
  data_fingerprint: str = ''
  mean: tuple[float, ...] = ()
  std: tuple[float, ...] = ()
  scale: float | None = None
  params: int = 0
  macs: int = 0
  params_sha256: str = ''
  results: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
  data_settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  exported_from: str = ''
  layout: str = ''
  jaxkd: str = ''
  converted_from: str = ''
  notes: tuple[str, ...] = ()
  other: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    for key in TUPLES:
      object.__setattr__(self, key, tuple(getattr(self, key)))
    for key in PLAIN:  # so that a card equals the one that is read back
      entries = json.loads(json_text(dict(getattr(self, key) or {})))
      object.__setattr__(self, key, entries)

  @classmethod
  def from_json(cls, entries: Mapping[str, Any]) -> 'Card':
    """Returns the card that `to_json` made, by this version or another one.

    Entries that are not fields are results if they are numbers, since a card
    does not know the names of metrics; otherwise they are kept in `other`.

    Raises:
      ValueError: there is no entry 'model'.
    """
    entries = {RENAMED.get(key, key): x for key, x in entries.items()}
    if not entries.get('model'):
      raise ValueError("the card has no entry 'model'")
    names = {field.name for field in dataclasses.fields(cls)}
    names -= {'results', 'other'}
    own = {k: x for k, x in entries.items() if k in names}
    rest = {k: x for k, x in entries.items() if k not in names}
    results = {k: x for k, x in rest.items() if _is_result(x)}
    other = {k: x for k, x in rest.items() if k not in results}
    return cls(**own, results=results, other=other)

  def to_json(self) -> dict[str, Any]:
    """Returns the card as one flat JSON object."""
    entries = {
      field.name: getattr(self, field.name)
      for field in dataclasses.fields(self)
      if field.name not in ('results', 'other')
    }
    kept = {
      key: x
      for key, x in entries.items()
      if key in ALWAYS or x not in ('', (), {}, None)
    }
    return json.loads(json_text({**kept, **self.results, **self.other}))

  def replace(self, **changes: Any) -> 'Card':
    """Returns a card with some fields changed."""
    return dataclasses.replace(self, **changes)

  def with_results(self, results: Mapping[str, float | None]) -> 'Card':
    """Returns a card with results added, or replaced by newer ones."""
    return self.replace(results={**self.results, **results})

  @property
  def known_problem(self) -> str:
    """The problem that the network was trained for; '' if unknown."""
    return self.problem or (USUAL if self.data else '')

  @property
  def shape(self) -> tuple[int, int, int]:
    """The image shape [H, W, C]."""
    height, width, channels = self.image_shape
    return height, width, channels

  @property
  def name(self) -> str:
    """The network's name in its run; 'network' outside of runs."""
    return self.network or 'network'

  @property
  def model_name(self) -> str:
    """The display name of the model, see `model_name`."""
    return model_name(
      self.model, self.width, self.branches, self.read_out, bool(self.reused)
    )

  @property
  def arguments(self) -> dict[str, Any]:
    """Arguments of `models.build` that names in PyTorch depend on."""
    return {'width': self.width, **self.settings}

  def module(self, **changes: Any) -> nn.Module:
    """Returns the module that the card describes.

    Args:
      **changes: arguments of `models.build` that differ, such as `dtype`.

    Raises:
      KeyError: no such model, read-out or compute type.
      ValueError: settings that the model does not have.
    """
    arguments = {
      'width': self.width,
      'branches': self.branches,
      'dtype': DTYPES[self.compute_dtype or 'float32'],
      'read_out': self.read_out,
      'taps': self.taps,
      'reused': self.reused,
      **self.settings,
      **changes,
    }
    return models.build(self.model, self.num_classes, **arguments)


class SavedNetwork(NamedTuple):
  """A network as it is saved: variables and model card."""

  variables: Variables
  card: Card

  def module_variables(self, name: str = 'the network') -> Variables:
    """Returns the variables in the structure of the card's module.

    Args:
      name: of the network, for the message.

    Raises:
      ValueError: with every array that does not fit.
    """
    shapes = tree.shapes(self.card.module(), self.card.shape)
    return tree.fit(self.variables, shapes, name)


def _is_result(value: Any) -> bool:
  is_number = isinstance(value, int | float) and not isinstance(value, bool)
  return value is None or is_number


def card_of(
  model: str,
  variables: Variables,
  num_classes: int,
  image_shape: tuple[int, int, int],
  **settings: Any,
) -> Card:
  """Returns the card of a network whose data and training are unknown.

  Args:
    model: name of the architecture, see `models.build`.
    variables: its arrays.
    num_classes: K.
    image_shape: [H, W, C].
    **settings: arguments of the architecture, such as `width`.
  """
  module = models.build(model, num_classes, **settings)
  return Card(
    model=model,
    width=float(settings.get('width', 1)),
    settings={k: x for k, x in settings.items() if k != 'width'},
    num_classes=num_classes,
    image_shape=image_shape,
    params=tree.count(variables['params']),
    macs=models.macs(module, image_shape),
    params_sha256=tree.digest(variables),
  )


def model_name(
  model: str,
  width: float | None = None,
  branches: int | None = None,
  read_out: str | None = None,
  reused: Any = None,
) -> str:
  """Returns a model's display name, with what differs from the defaults.

  Args:
    model: name of the architecture.
    width: channel multiplier; None is 1.
    branches: of each convolution; None is 1.
    read_out: None is softmax.
    reused: true of a network with the classifier of another one.
  """
  width, branches = width or 1, branches or 1
  wide = f' x{width:g}' if width != 1 else ''
  many = f' ({branches} branches)' if branches > 1 else ''
  head = ' (reused classifier)' if reused else ''
  read = (
    f' (read by {read_out})' if (read_out or 'softmax') != 'softmax' else ''
  )
  return f'{model}{wide}{many}{head}{read}'
