"""The names of a network's arrays in PyTorch, and their layout there.

The names are facts about the networks that people have checkpoints of:
RepDistiller's and mdistiller's (the distillation benchmark), torchvision's,
timm's, those of RVT's authors, and those of akamaster's pytorch_resnet_cifar10
for CIFAR ResNets with padded shortcuts. Some networks have more than one set of
names; each is a dialect. Our name, 'stage1_block0/conv1/kernel', becomes
theirs, 'layer1.0.conv1.weight', by a dialect's rules.
"""

import itertools
import re
from collections.abc import Callable, Iterable

import flax.linen as nn
import numpy as np

from jaxkd.interop import places
from jaxkd.models.mlp import MLP
from jaxkd.models.mobilenet import MobileNetV1, MobileNetV2
from jaxkd.models.resnet import ResNet
from jaxkd.models.resnet_cifar import PAD, ResNetCifar
from jaxkd.models.rvt import RVT
from jaxkd.models.shufflenet import ShuffleNetV1, ShuffleNetV2
from jaxkd.models.vgg import VGG, LargeVGG
from jaxkd.models.vit import ViT
from jaxkd.models.wide_resnet import WideResNet

# A regular expression and what it is replaced by, applied one after another to
# a name of ours whose last part is PyTorch's already: 'conv_stem.weight'.
Rule = tuple[str, str | Callable[[re.Match], str]]
Rules = tuple[Rule, ...]

LEAVES = {
  'kernel': 'weight',
  'scale': 'weight',
  'bias': 'bias',
  'mean': 'running_mean',
  'var': 'running_var',
}
BLOCK = r'stage(\d+)_block(\d+)/'


def translate(name: str, rules: Rules) -> str:
  """Returns PyTorch's name of a leaf.

  Args:
    name: 'stage1_block0/conv1/kernel', without the collection.
    rules: of a dialect.
  """
  module, _, leaf = name.rpartition('/')
  name = f'{module}.{LEAVES[leaf]}' if leaf in LEAVES else name
  for pattern, replacement in rules:
    name = re.sub(pattern, replacement, name)
  return name.replace('/', '.')


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
  if isinstance(net, ResNetCifar) and net.shortcut == PAD:
    return {'akamaster': rules('linear', 'shortcut')}
  if isinstance(net, ResNet) and net.stem == 3:
    return {'benchmark': rules('linear', 'shortcut'), 'timm': common}
  return dict.fromkeys(('benchmark', 'torchvision', 'timm'), common)


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


def _large_vgg(net: LargeVGG) -> dict[str, Rules]:
  layers = places.large_vgg(net)
  rules: Rules = (
    _numbered(r'^(stem|stage\d+)/(conv|bn)\d+', layers.values(), layers),
    (r'^fc1', 'classifier.0'),
    (r'^fc2', 'classifier.3'),
    (r'^head', 'classifier.6'),
  )
  return {'torchvision': rules}


def _numbered(pattern: str, theirs: Iterable[str], ours: Iterable[str]) -> Rule:
  """Returns the rule for blocks that are numbered differently there.

  Args:
    pattern: of all blocks of ours.
    theirs: prefixes there, one for each block.
    ours: prefixes here, in the same order.
  """
  table = dict(zip(ours, theirs, strict=True))
  return pattern, lambda match: table[match[0]]


def _indexed(layers: dict[int, str]) -> Rules:
  """Returns rules for a list of layers, some of which are not named: ReLUs."""
  return tuple(
    (rf'/{kind}_{name}\.', f'.{i + offset}.')
    for i, name in layers.items()
    for offset, kind in enumerate(('conv', 'bn'))
  )


def _mobilenet_v1(net: MobileNetV1) -> dict[str, Rules]:
  blocks = places.blocks_of(net.stages)
  theirs = [f'model.{i}' for i, _ in enumerate(blocks, start=1)]
  rules: Rules = (
    (r'^conv_stem', 'model.0.0'),
    (r'^bn_stem', 'model.0.1'),
    (r'^head', 'fc'),
    *_indexed({0: 'depthwise', 3: 'pointwise'}),
    _numbered(r'^stage\d+_block\d+', theirs, blocks),
  )
  return {'benchmark': rules}


def _mobilenet_v2(net: MobileNetV2) -> dict[str, Rules]:
  if not net.always_expand:
    return _published_mobilenet_v2(net)
  counts = [row[-2] for row in itertools.chain(*net.stages)]
  theirs = [
    f'blocks.{i}.{j}.conv' for i, n in enumerate(counts) for j in range(n)
  ]
  ours = places.blocks_of(net.stages)
  rules: Rules = (
    (r'^conv_stem', 'conv1.0'),
    (r'^bn_stem', 'conv1.1'),
    (r'^conv_last', 'conv2.0'),
    (r'^bn_last', 'conv2.1'),
    (r'^head', 'classifier.0'),
    *_indexed({0: 'expand', 3: 'depthwise', 6: 'project'}),
    _numbered(r'^stage\d+_block\d+', theirs, ours),
  )
  return {'benchmark': rules}


def _published_mobilenet_v2(net: MobileNetV2) -> dict[str, Rules]:
  def in_blocks(layers):
    return _numbered(r'^stage\d+_block\d+/[a-z_]+', layers.values(), layers)

  last = f'features.{len(places.blocks_of(net.stages)) + 1}'
  torchvision: Rules = (
    (r'^conv_stem', 'features.0.0'),
    (r'^bn_stem', 'features.0.1'),
    (r'^conv_last', f'{last}.0'),
    (r'^bn_last', f'{last}.1'),
    (r'^head', 'classifier.1'),
    in_blocks(places.mobilenet_v2_torchvision(net)),
  )
  timm: Rules = (
    (r'^bn_stem', 'bn1'),
    (r'^conv_last', 'conv_head'),
    (r'^bn_last', 'bn2'),
    (r'^head', 'classifier'),
    in_blocks(places.mobilenet_v2_timm(net)),
  )
  return {'torchvision': torchvision, 'timm': timm}


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


def _vit(net: ViT) -> dict[str, Rules]:
  blocks = [
    f'stage{i}_block{j}/'
    for i, n in enumerate(net.blocks, start=1)
    for j in range(n)
  ]

  def numbered(template):
    theirs = [template.format(i) for i, _ in enumerate(blocks)]
    return _numbered(r'^stage\d+_block\d+/', theirs, blocks)

  timm: Rules = (
    (r'^embed', 'patch_embed.proj'),
    (r'^class_token', 'cls_token'),
    (r'^position_embedding', 'pos_embed'),
    (r'^norm_last', 'norm'),
    (r'attention/out', 'attn.proj'),
    (r'attention/', 'attn.'),
    (r'/fc', '/mlp.fc'),
    numbered('blocks.{}.'),
  )
  torchvision: Rules = (
    (r'^embed', 'conv_proj'),
    (r'^position_embedding', 'encoder.pos_embedding'),
    (r'^norm_last', 'encoder.ln'),
    (r'^head', 'heads.head'),
    (r'attention/qkv\.', 'self_attention.in_proj_'),
    (r'attention/out', 'self_attention.out_proj'),
    (r'/norm', '/ln_'),
    (r'/fc1', '/mlp.0'),
    (r'/fc2', '/mlp.3'),
    numbered('encoder.layers.encoder_layer_{}.'),
  )
  return {'timm': timm, 'torchvision': torchvision}


def _rvt(net: nn.Module) -> dict[str, Rules]:
  del net
  rules: Rules = (
    (r'^conv_stem', 'patch_embed.proj.0'),
    (r'^bn_stem', 'patch_embed.proj.1'),
    (r'^embed', 'patch_embed.proj.3'),
    (r'^norm_last', 'norm'),
    (r'^stage(\d+)_pool', lambda m: f'pools.{int(m[1]) - 2}.conv'),
    (BLOCK, lambda m: f'transformers.{int(m[1]) - 1}.blocks.{m[2]}.'),
    (r'attention/out', 'attn.proj'),
    (r'attention/', 'attn.'),
    (r'depthwise', 'dwconv'),
  )
  return {'authors': rules}


DIALECTS: dict[type, Callable[..., dict[str, Rules]]] = {
  LargeVGG: _large_vgg,
  MobileNetV1: _mobilenet_v1,
  MobileNetV2: _mobilenet_v2,
  ResNet: _resnet,
  ResNetCifar: _resnet,
  RVT: _rvt,
  ShuffleNetV1: _shufflenet_v1,
  ShuffleNetV2: _shufflenet_v2,
  VGG: _vgg,
  ViT: _vit,
  WideResNet: _wide_resnet,
}

# The first layer of a family where it is not 'conv_stem'.
FIRST = {
  LargeVGG: 'stem/conv0',
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
