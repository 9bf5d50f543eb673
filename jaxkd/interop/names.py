"""The names of a network's arrays in PyTorch, and their layout there.

The names are facts about the networks that people have checkpoints of:
RepDistiller's and mdistiller's (the distillation benchmark), torchvision's,
timm's, Hugging Face's, and those of a network's authors. Some networks have
more than one set of names; each is a dialect. Our name,
'stage1_block0/conv1/kernel', becomes theirs, 'layer1.0.conv1.weight', by a
dialect's rules, see `rules`.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping

import flax.linen as nn
import numpy as np

from jaxkd.interop import names_efficient, names_transformers
from jaxkd.interop.rules import (
  BLOCK,
  Rules,
  joined,
  numbered,
  spread,
  translate,
)
from jaxkd.models.convnext import ConvNeXt
from jaxkd.models.deit import DistilledViT
from jaxkd.models.efficientnet import EfficientNet
from jaxkd.models.mlp import MLP
from jaxkd.models.mobilenet import MobileNetV1, MobileNetV2, StageRows
from jaxkd.models.resnet import ResNet
from jaxkd.models.resnet_cifar import ResNetCifar
from jaxkd.models.rvt import RVT
from jaxkd.models.shufflenet import ShuffleNetV1, ShuffleNetV2
from jaxkd.models.vgg import VGG
from jaxkd.models.vit import ViT
from jaxkd.models.wide_resnet import WideResNet


def dialects(net: nn.Module) -> dict[str, Rules]:
  """Returns a network's names in PyTorch projects, the most common first.

  A network without a PyTorch original keeps its own names.
  """
  return DIALECTS.get(type(net), lambda net: {'jaxkd': ()})(net)


def _resnet(net: nn.Module) -> dict[str, Rules]:
  def rules(head: str, shortcut: str) -> Rules:
    return (
      (r'^(conv|bn)_stem', r'\g<1>1'),
      (r'^head', head),
      (BLOCK, r'layer\1.\2.'),
      (r'conv_shortcut', f'{shortcut}.0'),
      (r'bn_shortcut', f'{shortcut}.1'),
    )

  common = rules('fc', 'downsample')
  if isinstance(net, ResNet) and net.stem == 3:
    return {'benchmark': rules('linear', 'shortcut'), 'timm': common}
  names = {'benchmark': common, 'torchvision': common, 'timm': common}
  is_large = isinstance(net, ResNet)
  return names | ({'huggingface': HUGGINGFACE_RESNET} if is_large else {})


HUGGINGFACE_RESNET: Rules = (
  (r'^conv_stem', 'resnet.embedder.embedder.convolution'),
  (r'^bn_stem', 'resnet.embedder.embedder.normalization'),
  (r'^head', 'classifier.1'),
  (r'/conv_shortcut', '/shortcut.convolution'),
  (r'/bn_shortcut', '/shortcut.normalization'),
  (r'/conv(\d)', lambda m: f'/layer.{int(m[1]) - 1}.convolution'),
  (r'/bn(\d)', lambda m: f'/layer.{int(m[1]) - 1}.normalization'),
  (BLOCK, lambda m: f'resnet.encoder.stages.{int(m[1]) - 1}.layers.{m[2]}.'),
)


def _wide_resnet(net: nn.Module) -> dict[str, Rules]:
  del net
  rules: Rules = (
    (r'^conv_stem', 'conv1'),
    (r'^bn_last', 'bn1'),
    (r'^head', 'fc'),
    (BLOCK, r'block\1.layer.\2.'),
    (r'conv_shortcut', 'convShortcut'),
  )
  return {'benchmark': rules}


def _vgg(net: nn.Module) -> dict[str, Rules]:
  del net  # its layers stand in lists: convolution, BatchNorm, ReLU, ...
  rules: Rules = (
    (r'^head', 'classifier'),
    (r'^stem/', 'block0/'),
    (r'^stage(\d)/', r'block\1/'),
    (r'/conv(\d)', lambda m: f'.{3 * int(m[1])}'),
    (r'/bn(\d)', lambda m: f'.{3 * int(m[1]) + 1}'),
  )
  return {'benchmark': rules}


def _indexed(layers: dict[int, str]) -> Rules:
  """Returns rules for a list of layers, some of which are not named: ReLUs."""
  return tuple(
    (rf'/{kind}_{name}\.', f'.{i + offset}.')
    for i, name in layers.items()
    for offset, kind in enumerate(('conv', 'bn'))
  )


def _stages(stages: tuple[StageRows, ...]) -> list[str]:
  """Returns our prefixes of all blocks, in order."""
  return [
    f'stage{i}_block{j}'
    for i, stage in enumerate(stages, start=1)
    for j in range(sum(row[-2] for row in stage))
  ]


def _mobilenet_v1(net: MobileNetV1) -> dict[str, Rules]:
  blocks = _stages(net.stages)
  theirs = [f'model.{i}' for i, _ in enumerate(blocks, start=1)]
  rules: Rules = (
    (r'^conv_stem', 'model.0.0'),
    (r'^bn_stem', 'model.0.1'),
    (r'^head', 'fc'),
    *_indexed({0: 'depthwise', 3: 'pointwise'}),
    numbered(r'^stage\d+_block\d+', theirs, blocks),
  )
  return {'benchmark': rules}


def _mobilenet_v2(net: MobileNetV2) -> dict[str, Rules]:
  counts = [row[-2] for row in itertools.chain(*net.stages)]
  theirs = [
    f'blocks.{i}.{j}.conv' for i, n in enumerate(counts) for j in range(n)
  ]
  rules: Rules = (
    (r'^conv_stem', 'conv1.0'),
    (r'^bn_stem', 'conv1.1'),
    (r'^conv_last', 'conv2.0'),
    (r'^bn_last', 'conv2.1'),
    (r'^head', 'classifier.0'),
    *_indexed({0: 'expand', 3: 'depthwise', 6: 'project'}),
    numbered(r'^stage\d+_block\d+', theirs, _stages(net.stages)),
  )
  return {'benchmark': rules}


SHUFFLE: Rules = (
  (r'^(conv|bn)_stem', r'\g<1>1'),
  (r'^(conv|bn)_last', r'\g<1>2'),
  (r'^head', 'linear'),
)


def _layers(names: Iterable[str], block: str = r'\d+') -> Rules:
  """Returns rules for the layers of a block that are numbered from 1 there."""
  return tuple(
    (rf'stage(\d+)_block({block})/(conv|bn)_{name}\.', rf'layer\1.\2.\g<3>{i}.')
    for i, name in enumerate(names, start=1)
  )


def _shufflenet_v1(net: nn.Module) -> dict[str, Rules]:
  del net
  return {'benchmark': (*SHUFFLE, *_layers(['reduce', 'depthwise', 'expand']))}


def _shufflenet_v2(net: nn.Module) -> dict[str, Rules]:
  del net
  right = ['pointwise1', 'depthwise', 'pointwise2']
  left = ['left_depthwise', 'left_pointwise']  # where the stride is 2
  return {
    'benchmark': (*SHUFFLE, *_layers([*left, *right], '0'), *_layers(right))
  }


DIALECTS: dict[type, Callable[..., dict[str, Rules]]] = {
  ConvNeXt: names_efficient.convnext,
  DistilledViT: names_transformers.distilled_vit,
  EfficientNet: names_efficient.efficientnet,
  MobileNetV1: _mobilenet_v1,
  MobileNetV2: _mobilenet_v2,
  ResNet: _resnet,
  ResNetCifar: _resnet,
  RVT: names_transformers.rvt,
  ShuffleNetV1: _shufflenet_v1,
  ShuffleNetV2: _shufflenet_v2,
  VGG: _vgg,
  ViT: names_transformers.vit,
  WideResNet: _wide_resnet,
}

HEAD = 'head/kernel'
# The first layer of a family where it is not 'conv_stem'.
FIRST = {
  DistilledViT: 'embed',
  MLP: 'hidden1',
  VGG: 'stem/conv0',
  ViT: 'embed',
}
POSITIONS = 'position_embedding'  # of a ViT, [1, tokens, D]


def first_kernel(net: nn.Module) -> str:
  """Returns our name of the kernel that reads the image."""
  if isinstance(net, MLP) and not net.features:
    return 'head/kernel'
  return f'{FIRST.get(type(net), "conv_stem")}/kernel'


def to_entries(
  name: str, array: np.ndarray, rules: Rules
) -> dict[str, np.ndarray]:
  """Returns the entries of a PyTorch state dict for one of our arrays.

  Args:
    name: of the leaf, here.
    array: its value here.
    rules: of a dialect.
  """
  return spread(translate(name, rules), to_torch(name, array))


def from_entries(
  name: str, entries: Mapping[str, np.ndarray], rules: Rules
) -> np.ndarray:
  """Returns one of our arrays, but with flat heads, from a state dict.

  Args:
    name: of the leaf, here.
    entries: arrays of the state dict by name.
    rules: of a dialect.

  Raises:
    KeyError: an entry is missing.
  """
  return from_torch(name, joined(translate(name, rules), entries))


def to_torch(name: str, array: np.ndarray) -> np.ndarray:
  """Returns one of our arrays in PyTorch's layout: [out, in, ...], flat heads.

  Args:
    name: of the leaf, here.
    array: its value here.
  """
  if name.endswith('attention/qkv/kernel'):  # [D, 3, heads, head_dim]
    return array.reshape(len(array), -1).T
  if name.endswith('attention/qkv/bias'):
    return array.reshape(-1)
  if name.endswith('attention/out/kernel'):  # [heads, head_dim, D]
    return array.reshape(-1, array.shape[-1]).T
  if name.endswith('/kernel'):  # [k, k, in, out] or [in, out]
    return np.moveaxis(array, (-1, -2), (0, 1))
  return array


def from_torch(name: str, array: np.ndarray) -> np.ndarray:
  """Returns one of PyTorch's arrays in our layout, but with flat heads.

  Args:
    name: of the leaf, here.
    array: its value there.
  """
  if name.endswith('/kernel'):
    return np.moveaxis(array, (0, 1), (-1, -2))
  return array
