"""Networks that reuse the classifier of another network.

SimKD (Chen et al., CVPR 2022, https://arxiv.org/abs/2203.14001) trains and
deploys the student's features, a projector and the teacher's classifier.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxkd.catalog import UnknownNameError, check_whole
from jaxkd.losses import sizes
from jaxkd.models.class_map import ClassMap
from jaxkd.models.layers import fan_in_uniform, global_average, normed
from jaxkd.models.own_input import OwnInput
from jaxkd.models.read_out import ReadOut
from jaxkd.models.taps import LAST, POOLED, PRE, as_maps, resolve
from jaxkd.models.wrapper import NetworkWrapper
from jaxkd.types import Array, Outputs, Tree

PROJECTED = 'projected'  # the tap after the projector
HEAD = 'head'  # the name of the classifier in every network


class Projector(nn.Module):
  """1 x 1, 3 x 3 and 1 x 1 convolution, each with BatchNorm and ReLU.

  Attributes:
    features: output channels.
    factor: reduction of the channels in between: features / factor; at least 1.
    dtype: compute type.
  """

  features: int
  factor: int = 2
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array, train: bool = True) -> Array:
    """Returns a map [B, H, W, features] for the map [B, H, W, C]."""
    inner = max(1, self.features // self.factor)
    for name, features, size in (
      ('reduce', inner, 1),
      ('mix', inner, 3),
      ('restore', self.features, 1),
    ):
      x = normed(
        x,
        train,
        name,
        features,
        size,
        kernel_init=fan_in_uniform,
        dtype=self.dtype,
      )
      x = nn.relu(x)
    return x


class Reusing(NetworkWrapper, nn.Module):
  """A network with a projector and the classifier of another network.

  The variables are those of the network, with the same names, and 'projector';
  'head' has the shape of the other network's. The tap 'projected' is the
  projector's output, and 'pooled' its spatial mean, the classifier's input.

  Attributes:
    body: the network. (Not called `network`, because a `ReadOut` around it
      shares its scope and has a submodule of that name.)
    stage: the tap of the network that is projected.
    features: channels of the map that the classifier was trained on.
    size: height and width of that map; a larger map is average-pooled to it.
    factor: see `Projector`.
  """

  body: Any
  stage: str
  features: int
  size: tuple[int, int]
  factor: int = 2

  def setup(self):
    """Shares the network's scope, so that the variables keep their names."""
    nn.share_scope(self, self.body)
    self.projector = Projector(self.features, self.factor, self.dtype)

  def __call__(self, image: Array, train: bool = False) -> Outputs:
    """Returns logits [B, K] and taps of the image [B, H, W, C]."""
    outputs, head = _without_head(self.body, image, train, self.features)
    x = sizes.as_map(outputs.taps[self.stage], self.size)
    (h, w), (height, width) = x.shape[1:3], self.size
    x = sizes.adaptive_average_pool(x, (min(h, height), min(w, width)))
    x = self.projector(x, train)
    pooled = global_average(x)
    taps = {**outputs.taps, PROJECTED: x, 'pooled': pooled}
    logits = pooled @ head['kernel'] + head['bias'].reshape(1, -1)
    return Outputs(logits, taps)

  @property
  def wrapped(self) -> Any:
    """The network."""
    return self.body


def _without_head(
  network: nn.Module, image: Array, train: bool, features: int
) -> tuple[Outputs, Tree]:
  """Runs a network whose classifier has another number of inputs.

  Args:
    network: the network.
    image: [B, H, W, C].
    train: the train flag.
    features: inputs of the classifier, instead of the network's own number.

  Returns:
    Outputs, whose logits are meaningless, and the classifier's parameters:
    'kernel' [features, K] and 'bias' [K].

  Raises:
    ValueError: the network has no layer 'head'.
  """
  heads = []

  def intercept(method, args, kwargs, context):
    if context.module.path != (HEAD,):
      return method(*args, **kwargs)
    heads.append(context.module)
    return method(jnp.zeros((1, features)))  # creates the parameters

  with nn.intercept_methods(intercept):
    outputs = network(image, train=train)
  if not heads:
    raise ValueError(
      f'{type(network).__name__} has no layer {HEAD!r}, so its classifier'
      " cannot be replaced by another network's: give its last Linen layer this"
      ' name'
    )
  return outputs, heads[0].variables['params']


def reusing(
  network: nn.Module, size: Sequence[int], factor: int = 2, **settings: Any
) -> Reusing:
  """Returns a network with a projector and the classifier of another network.

  Args:
    network: any network whose classifier is a layer 'head'.
    size: see `Reusing`.
    factor: see `Projector`.
    **settings: `stage` and `features` of `Reusing`.

  Raises:
    ValueError: the factor is not a whole number of at least 1.
  """
  check_whole('a reused classifier', 'factor', factor)
  height, width = size
  return Reusing(network, size=(height, width), factor=factor, **settings)


def reuses(network: nn.Module) -> dict[str, Any]:
  """Returns the arguments of `reusing`, as JSON; {} for other networks."""
  if isinstance(network, ReadOut | OwnInput | ClassMap):
    return reuses(network.wrapped)
  if not isinstance(network, Reusing):
    return {}
  return {
    'stage': network.stage,
    'features': network.features,
    'size': list(network.size),
    'factor': network.factor,
  }


def classifier_taps(network: Outputs, other: Outputs) -> tuple[str, str]:
  """Returns which tap of a network is projected, and to which of the other's.

  That is the network's deepest stage, and the map whose mean the other one's
  classifier reads: its last pre-activations, rectified. Where the pooled
  features have another width, or there are no pre-activations, as in
  MobileNetV2 and in transformers, it is the pooled vector.

  Args:
    network: outputs of the network whose features are projected.
    other: outputs of the network whose classifier is reused.

  Raises:
    KeyError: a network without stages, or without pooled features.
  """
  stage, last = _resolve(network, LAST), _resolve(other, LAST + PRE)
  pooled = _resolve(other, POOLED)
  as_wide = other.taps[last].shape[-1] == other.taps[pooled].shape[-1]
  return stage, last if as_wide and last.endswith(PRE) else pooled


def classifier_maps(network: Outputs, other: Outputs) -> tuple[Array, Array]:
  """Returns the map to project, and the map that the classifier was made for.

  Args:
    network: see `classifier_taps`.
    other: likewise.

  Returns:
    [B, H, W, C] and [B, H', W', C'].
  """
  stage, last = classifier_taps(network, other)
  source, target = as_maps(network.taps[stage], other.taps[last])
  return source, nn.relu(target) if last.endswith(PRE) else target


def reusing_settings(network: Outputs, other: Outputs) -> dict[str, Any]:
  """Returns the settings of `reusing`, from the shapes of two networks.

  Args:
    network: see `classifier_taps`; shapes are enough.
    other: likewise.
  """
  _, target = jax.eval_shape(classifier_maps, network, other)
  stage, _ = classifier_taps(network, other)
  return {
    'stage': stage,
    'features': target.shape[-1],
    'size': target.shape[1:3],
  }


def _resolve(outputs: Outputs, tap: str) -> str:
  name = resolve(outputs, tap)
  if name is None:
    raise UnknownNameError(
      f'a classifier can be reused between networks with stages and pooled'
      f' features: there is no tap {tap!r} among'
      f' {", ".join(sorted(outputs.taps))}'
    )
  return name
