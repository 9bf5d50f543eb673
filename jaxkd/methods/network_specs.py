"""Networks that a method's arguments name, beyond the config's two sections.

A further teacher, an assistant or a peer is the name of an architecture, or a
mapping of its settings.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from jaxkd import checkpoints
from jaxkd.catalog import call
from jaxkd.graph import Frozen, Learner, Model

CONFIGURED = ('student', 'teacher')  # the networks that have a section
NetworkSpec = str | Mapping[str, Any]
Kind = TypeVar('Kind', Frozen, Learner)


def network(kind: type[Kind], spec: NetworkSpec) -> Kind:
  """Returns a network of an architecture.

  Args:
    kind: `Learner` or `Frozen`.
    spec: 'student' or 'teacher', whose architecture is in the config; or the
      name of an architecture; or a mapping of its 'name' and, as in those
      sections, 'width', 'settings', 'taps', 'checkpoint', 'weights',
      'outputs', 'image_size', 'channels', 'mean', 'std', 'classes', 'unmapped'
      and 'allow_guessing'.

  Raises:
    ValueError: a mapping with another key, with suggestions, or without a name;
      neither a name nor a mapping.

  >>> network(Learner, 'teacher').like
  'teacher'
  >>> network(Frozen, {'name': 'resnet56', 'checkpoint': 'runs/56'}).model.name
  'resnet56'
  """
  if isinstance(spec, str):
    spec = {'name': spec}
  if not isinstance(spec, Mapping):
    raise ValueError(
      "a network must be a model's name, like 'resnet20', or a mapping with"
      f' one, like {dict(name="resnet20", width=2.0)}; got {spec!r}'
    )
  if spec.get('name') in CONFIGURED and len(spec) == 1:
    return kind(like=spec['name'])
  return kind(model=call('a network', _model, dict(spec)))


def _model(
  name: str,
  width: float = 1.0,
  settings: Mapping[str, Any] | None = None,
  taps: Mapping[str, str] | None = None,
  checkpoint: str = '',
  outputs: str = '',
  *,
  weights: str = '',
  image_size: int = 0,
  channels: int = 0,
  mean: Sequence[float] = (),
  std: Sequence[float] = (),
  classes: str | Mapping[Any, Any] = '',
  unmapped: str = 'renormalise',
  allow_guessing: bool = False,
) -> Model:
  return Model(
    name,
    width,
    settings or {},
    taps or {},
    checkpoint,
    outputs=outputs,
    weights=weights,
    image_size=image_size,
    channels=channels,
    mean=mean,
    std=std,
    classes=classes,
    unmapped=unmapped,
    allow_guessing=allow_guessing,
  )


def frozen(network: Learner) -> Frozen:
  """Returns a learner as a frozen network, as it is after its training."""
  names = ('like', 'width', 'branches', 'model')
  return Frozen(**{name: getattr(network, name) for name in names})


def is_pretrained(network: Learner | Frozen) -> bool:
  """Returns whether it need not be trained.

  It has a checkpoint, or is a file of outputs or a function.
  """
  model = network.model
  if model is None:
    return False
  trained = model.checkpoint or model.outputs
  return bool(trained) or checkpoints.is_function(model.name)
