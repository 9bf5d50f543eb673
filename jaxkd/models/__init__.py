"""Networks: image [B, H, W, C] -> Outputs(logits [B, K], taps), by name.

The catalogue has the networks of this package; `adapt`, `from_nnx` and import
paths as names make networks of other modules.

Every network of the catalogue takes any number of input channels and any image
size (for a transformer a multiple of its `patch`), and has the attributes
`num_classes`, `width` (channel multiplier, for a ShuffleNet a whole number),
`branches` (see `layers.Conv`) and `dtype` (compute type; parameters and logits
are float32). In train mode, apply it with `mutable=['batch_stats']`, and with
`rngs={'dropout': KEY}` if its settings `dropout` and `drop_path`, where it has
them, are not 0. The batch statistics of a sharded batch are global.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxkd.catalog import call, lookup
from jaxkd.models.adapt import Adapted, adapt
from jaxkd.models.class_map import ClassMap, map_logits, with_classes
from jaxkd.models.convnext import BASE, SMALL, TINY, ConvNeXt
from jaxkd.models.cost import of_layers, of_program
from jaxkd.models.deit import DistilledViT
from jaxkd.models.efficientnet import B0, EfficientNet
from jaxkd.models.ensemble import Ensemble, members
from jaxkd.models.from_nnx import FromNNX, from_nnx, nnx_update, nnx_variables
from jaxkd.models.imported import attribute as import_attribute
from jaxkd.models.imported import imported, is_path, source_digest
from jaxkd.models.mlp import MLP
from jaxkd.models.mobilenet import (
  V1,
  V2,
  V2_HALF,
  V2_PUBLISHED,
  MobileNetV1,
  MobileNetV2,
)
from jaxkd.models.own_input import Input, OwnInput, convert, with_input
from jaxkd.models.precomputed import Precomputed
from jaxkd.models.read_out import READ_OUTS, ReadOut, read_out_of, wrap
from jaxkd.models.registered import register
from jaxkd.models.resnet import (
  BASIC,
  BOTTLENECK,
  CHANNELS,
  RESNEXT,
  RESNEXT_CHANNELS,
  ResNet,
)
from jaxkd.models.resnet_cifar import PAD, ResNetCifar
from jaxkd.models.reusing import reuses, reusing
from jaxkd.models.rvt import RVT
from jaxkd.models.shufflenet import (
  SHUFFLE_V1,
  SHUFFLE_V2,
  ShuffleNetV1,
  ShuffleNetV2,
)
from jaxkd.models.vgg import VGG, LargeVGG
from jaxkd.models.vit import ViT
from jaxkd.models.wide_resnet import WideResNet
from jaxkd.tree import count, shapes

__all__ = [
  'CATALOG',
  'READ_OUTS',
  'Ensemble',
  'Input',
  'Precomputed',
  'adapt',
  'build',
  'check',
  'convert',
  'count',
  'from_nnx',
  'import_attribute',
  'is_path',
  'macs',
  'map_logits',
  'members',
  'nnx_update',
  'nnx_variables',
  'read_out_of',
  'register',
  'reuses',
  'reusing',
  'source_digest',
  'with_classes',
  'with_input',
  'wrap',
]

# The arguments of variants are positional: keywords cannot change them.
CATALOG = {
  'resnet8': partial(ResNetCifar, 8, (16, 16, 32, 64)),
  'resnet14': partial(ResNetCifar, 14, (16, 16, 32, 64)),
  'resnet20': partial(ResNetCifar, 20, (16, 16, 32, 64)),
  'resnet32': partial(ResNetCifar, 32, (16, 16, 32, 64)),
  'resnet44': partial(ResNetCifar, 44, (16, 16, 32, 64)),
  'resnet56': partial(ResNetCifar, 56, (16, 16, 32, 64)),
  'resnet110': partial(ResNetCifar, 110, (16, 16, 32, 64)),
  'resnet8x4': partial(ResNetCifar, 8, (32, 64, 128, 256)),
  'resnet32x4': partial(ResNetCifar, 32, (32, 64, 128, 256)),
  'resnet20_a': partial(ResNetCifar, 20, (16, 16, 32, 64), shortcut=PAD),
  'resnet32_a': partial(ResNetCifar, 32, (16, 16, 32, 64), shortcut=PAD),
  'resnet44_a': partial(ResNetCifar, 44, (16, 16, 32, 64), shortcut=PAD),
  'resnet56_a': partial(ResNetCifar, 56, (16, 16, 32, 64), shortcut=PAD),
  'resnet110_a': partial(ResNetCifar, 110, (16, 16, 32, 64), shortcut=PAD),
  'wrn_16_1': partial(WideResNet, 16, 1),
  'wrn_16_2': partial(WideResNet, 16, 2),
  'wrn_28_4': partial(WideResNet, 28, 4),
  'wrn_40_1': partial(WideResNet, 40, 1),
  'wrn_40_2': partial(WideResNet, 40, 2),
  'vgg8': partial(VGG, 8),
  'vgg11': partial(VGG, 11),
  'vgg13': partial(VGG, 13),
  'vgg16': partial(VGG, 16),
  'vgg19': partial(VGG, 19),
  'imagenet_vgg11_bn': partial(LargeVGG, 11),
  'imagenet_vgg13_bn': partial(LargeVGG, 13),
  'imagenet_vgg16_bn': partial(LargeVGG, 16),
  'imagenet_vgg19_bn': partial(LargeVGG, 19),
  'resnet18': partial(ResNet, 3, BASIC, (2, 2, 2, 2), CHANNELS),
  'resnet34': partial(ResNet, 3, BASIC, (3, 4, 6, 3), CHANNELS),
  'resnet50': partial(ResNet, 3, BOTTLENECK, (3, 4, 6, 3), CHANNELS),
  'imagenet_resnet18': partial(ResNet, 7, BASIC, (2, 2, 2, 2), CHANNELS),
  'imagenet_resnet34': partial(ResNet, 7, BASIC, (3, 4, 6, 3), CHANNELS),
  'imagenet_resnet50': partial(ResNet, 7, BOTTLENECK, (3, 4, 6, 3), CHANNELS),
  'imagenet_resnet101': partial(ResNet, 7, BOTTLENECK, (3, 4, 23, 3), CHANNELS),
  'imagenet_resnext50': partial(
    ResNet, 7, RESNEXT, (3, 4, 6, 3), RESNEXT_CHANNELS, groups=32
  ),
  'mobilenet_v2': partial(MobileNetV2, *V2_HALF),
  'imagenet_mobilenet_v2': partial(MobileNetV2, *V2, **V2_PUBLISHED),
  'imagenet_mobilenet_v1': partial(MobileNetV1, *V1),
  'efficientnet_b0': partial(EfficientNet, *B0, True, 'silu'),
  # Its published weights are TensorFlow's.
  'efficientnet_lite0': partial(
    EfficientNet, *B0, False, 'relu6', padding='same', epsilon=1e-3
  ),
  'shufflenet_v1': partial(ShuffleNetV1, *SHUFFLE_V1),
  'shufflenet_v2': partial(ShuffleNetV2, *SHUFFLE_V2),
  'convnext_tiny': partial(ConvNeXt, *TINY),
  'convnext_small': partial(ConvNeXt, *SMALL),
  'convnext_base': partial(ConvNeXt, *BASE),
  # timm's ViT and DeiT of one size are one network with one initialisation.
  'vit_tiny': partial(ViT, (3, 3, 3, 3), 3, 64),
  'vit_small': partial(ViT, (3, 3, 3, 3), 6, 64),
  'vit_base': partial(ViT, (3, 3, 3, 3), 12, 64),
  'deit_tiny': partial(ViT, (3, 3, 3, 3), 3, 64),
  'deit_small': partial(ViT, (3, 3, 3, 3), 6, 64),
  'deit_base': partial(ViT, (3, 3, 3, 3), 12, 64),
  'deit_tiny_distilled': partial(DistilledViT, (3, 3, 3, 3), 3, 64),
  'deit_small_distilled': partial(DistilledViT, (3, 3, 3, 3), 6, 64),
  'deit_base_distilled': partial(DistilledViT, (3, 3, 3, 3), 12, 64),
  'rvt_tiny': partial(RVT, (10, 2), (6, 12), 32),
  'rvt_small': partial(RVT, (12,), (6,), 64),
  'mlp': MLP,  # the hidden layers are a setting
  'mlp128': partial(MLP, features=(128, 128), uniform_init=True),
  'linear': partial(MLP, features=()),
}


# The classes of the catalogue's networks.
FAMILIES = tuple({getattr(make, 'func', make) for make in CATALOG.values()})


def build(
  name: str,
  num_classes: int,
  read_out: str = 'softmax',
  taps: Mapping[str, str] | None = None,
  reused: Mapping[str, Any] | None = None,
  **kwargs: Any,
) -> nn.Module:
  """Returns the network `name`; nothing is computed before `init`.

  Args:
    name: a key of `CATALOG`, or an import path, see `jaxkd.models.imported`.
    num_classes: K.
    read_out: a key of `READ_OUTS`: how outputs are converted to logits.
    taps: additional taps, name -> location, see `adapt`.
    reused: settings of `reusing`, for a network with the classifier of another.
    **kwargs: attributes of the family, such as `width` and `dtype`.

  Raises:
    KeyError: unknown network or read-out, with suggestions.
    ValueError: unknown attribute, or an impossible value.
  """
  settings, taps = {key: _hashable(x) for key, x in kwargs.items()}, taps or {}
  if is_path(name):
    network = imported(name, num_classes, taps, **settings)
  else:
    make = lookup('model', CATALOG, name)
    settings = {'num_classes': num_classes, **settings}
    network = call(f'model {name!r}', make, settings)
    network = adapt(network, taps=taps) if taps else network
  return wrap(reusing(network, **reused) if reused else network, read_out)


def _hashable(value: Any) -> Any:
  """Returns a setting with lists, for example from JSON, as tuples."""
  if isinstance(value, list | tuple):
    return tuple(_hashable(x) for x in value)
  return value


def check(
  net: nn.Module, input_shape: tuple[int, int, int], train: bool
) -> None:
  """Checks an adapted network before it is trained, by tracing it.

  Args:
    net: any network; those of the catalogue are not checked.
    input_shape: [H, W, C] of one image.
    train: whether to trace it in train mode, too.

  Raises:
    KeyError: a tap of a module that does not exist, with suggestions.
    ValueError: unsupported variables or outputs.
  """
  if not isinstance(_bare(net), Adapted | FromNNX):
    return
  variables = shapes(net, input_shape)
  if train:
    image = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    keys = dict.fromkeys(('dropout', 'params'), jax.random.key(0))
    run = partial(net.apply, train=True, mutable=['batch_stats'])
    jax.eval_shape(run, variables, image, rngs=keys)


def macs(net: nn.Module, input_shape: tuple[int, int, int]) -> int:
  """Returns the multiply-accumulates (MACs) for one image, from shapes only.

  Convolutions and linear layers are counted, but not biases, normalisation,
  activations, pooling, and the two products of an attention (queries with keys,
  weights with values).

  Args:
    net: any network.
    input_shape: (H, W, C) of the image.
  """
  if isinstance(net, Precomputed):
    return net.macs
  network = _bare(net)
  inner = network.inner if isinstance(network, Adapted) else network
  # The layers of the catalogue do not compute all convolutions as convolutions.
  count_macs = of_layers if isinstance(inner, FAMILIES) else of_program
  return count_macs(net, input_shape)


def _bare(net: nn.Module) -> nn.Module:
  """Returns a network without read-out, conversion of images and class map."""
  while isinstance(net, ReadOut | OwnInput | ClassMap):
    net = net.wrapped
  return net
