"""A network that ends in another network's classifier.

What SimKD (Chen et al., CVPR 2022, https://arxiv.org/abs/2203.14001) trains and
deploys: the student's features, a projector, and the teacher's last layer.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxkd.catalog import UnknownNameError, check_whole
from jaxkd.losses import sizes
from jaxkd.models.layers import fan_in_uniform, global_average, normed
from jaxkd.models.read_out import ReadOut
from jaxkd.models.taps import LAST, POOLED, PRE, as_maps, resolve
from jaxkd.types import Array, Outputs, Tree

PROJECTED = 'projected'  # the tap behind the projector
HEAD = 'head'  # the classifier's name in every network


class Projector(nn.Module):
  """1 x 1, 3 x 3 and 1 x 1 convolution, each with BatchNorm and ReLU.

  Attributes:
    features: output channels.
    factor: those channels over the channels in between, 1 or more.
    dtype: compute type.
  """

  features: int
  factor: int = 2
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array, train: bool = True) -> Array:
    """Returns [B, H, W, features] of the map [B, H, W, C]."""
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


class Reusing(nn.Module):
  """A network, a projector, and a classifier that is another network's.

  Its variables are the network's, under the same names, and 'projector'; 'head'
  is the other network's. Its tap 'projected' is what the projector returns, and
  'pooled' the mean over that map, which the classifier reads.

  Attributes:
    body: of the catalogue. (Not `network`, as that of `ReadOut` around it is
      called: both share one scope.)
    stage: the tap of the body that is projected.
    features: channels of the map that the classifier was made for.
    size: height and width of that map; a larger one is averaged to it.
    factor: see `Projector`.
  """

  body: Any
  stage: str
  features: int
  size: tuple[int, int]
  factor: int = 2

  def setup(self):
    """Takes the network's place in the tree of variables."""
    nn.share_scope(self, self.body)
    self.projector = Projector(self.features, self.factor, self.dtype)

  def __call__(self, image: Array, train: bool = False) -> Outputs:
    """Returns logits [B, K] and taps of the image [B, H, W, C]."""
    said, head = _apart(self.body, image, train, self.features)
    x = sizes.as_map(said.taps[self.stage], self.size)
    (h, w), (height, width) = x.shape[1:3], self.size
    x = sizes.adaptive_average_pool(x, (min(h, height), min(w, width)))
    x = self.projector(x, train)
    pooled = global_average(x)
    taps = {**said.taps, PROJECTED: x, 'pooled': pooled}
    logits = pooled @ head['kernel'] + head['bias'].reshape(1, -1)
    return Outputs(logits, taps)

  @property
  def num_classes(self) -> int:
    """K of both networks."""
    return self.body.num_classes

  @property
  def width(self) -> float:
    """The network's channel multiplier."""
    return self.body.width

  @property
  def branches(self) -> int:
    """Of the network's convolutions."""
    return self.body.branches

  @property
  def dtype(self) -> Any:
    """The network's compute type."""
    return self.body.dtype


def _apart(
  network: nn.Module, image: Array, train: bool, features: int
) -> tuple[Outputs, Tree]:
  """Returns what a network says before its classifier, and the classifier.

  Args:
    network: the network.
    image: [B, H, W, C].
    train: as of a network.
    features: what the classifier reads in the place of the network's own.

  Returns:
    Outputs without logits, and the classifier's 'kernel' [features, K] and
    'bias' [K].

  Raises:
    ValueError: the network has no layer of that name.
  """
  found = []

  def starved(method, args, kwargs, context):
    if context.module.path != (HEAD,):
      return method(*args, **kwargs)
    found.append(context.module)
    return method(jnp.zeros((1, features)))  # so that it has its parameters

  with nn.intercept_methods(starved):
    said = network(image, train=train)
  if not found:
    raise ValueError(
      f'{type(network).__name__} has no layer {HEAD!r}, so its classifier'
      " cannot be another network's: give its last Linen layer this name"
    )
  return said, found[0].variables['params']


def reusing(
  network: nn.Module, size: Sequence[int], factor: int = 2, **settings: Any
) -> Reusing:
  """Returns a network with a projector and another one's classifier.

  Args:
    network: of the catalogue.
    size: see `Reusing`, as the others.
    factor: see `Projector`.
    **settings: stage and features.

  Raises:
    ValueError: a factor that is no whole number, or below 1.
  """
  check_whole('a reused classifier', 'factor', factor)
  height, width = size
  return Reusing(network, size=(height, width), factor=factor, **settings)


def reuses(network: nn.Module) -> dict[str, Any]:
  """Returns what `reusing` was told of a network, as JSON; {} if nothing."""
  if isinstance(network, ReadOut):
    return reuses(network.network)
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
