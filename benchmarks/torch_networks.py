"""The networks of the six pairs in PyTorch, for `benchmarks.peer`.

They are written from the definitions in `jaxkd.models`, in the plain way of
PyTorch, with the names that `jaxkd.interop.torch.to_state_dict` gives. Maps are
[B, C, H, W]; a network maps images to logits [B, K].
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jaxkd import models
from jaxkd.models import mobilenet, resnet_cifar, shufflenet, vgg, wide_resnet
from jaxkd.models.layers import blocks_per_stage, widen


def conv(
  inputs: int,
  features: int,
  size: int = 3,
  stride: int = 1,
  groups: int = 1,
  bias: bool = False,
) -> nn.Conv2d:
  """Returns a convolution with size // 2 zeros around the map."""
  return nn.Conv2d(
    inputs, features, size, stride, size // 2, groups=groups, bias=bias
  )


def pooled(x: Tensor) -> Tensor:
  """Global average pooling, [B, C, H, W] -> [B, C]."""
  return x.mean((2, 3))


def stages(
  block: Callable[..., nn.Module], inputs: int, channels: Iterable[int], n: int
) -> list[nn.Sequential]:
  """Returns stages of n blocks; from the second on, they begin with stride 2.

  Args:
    block: (inputs, features, stride) -> module.
    inputs: channels of the first block's input.
    channels: of each stage.
    n: blocks of each stage.
  """
  built = []
  for i, features in enumerate(channels):
    strides = [1 if i == 0 else 2] + [1] * (n - 1)
    before = [inputs] + [features] * (n - 1)
    blocks = [
      block(c, features, s) for c, s in zip(before, strides, strict=True)
    ]
    built.append(nn.Sequential(*blocks))
    inputs = features
  return built


class ResNetBlock(nn.Module):
  """Two 3 x 3 convolutions and a shortcut."""

  def __init__(self, inputs: int, features: int, stride: int):
    super().__init__()
    self.conv1 = conv(inputs, features, stride=stride)
    self.bn1 = nn.BatchNorm2d(features)
    self.conv2 = conv(features, features)
    self.bn2 = nn.BatchNorm2d(features)
    self.downsample = None
    if stride != 1 or inputs != features:
      self.downsample = nn.Sequential(
        conv(inputs, features, 1, stride), nn.BatchNorm2d(features)
      )

  def forward(self, x: Tensor) -> Tensor:
    y = F.relu(self.bn1(self.conv1(x)), inplace=True)
    y = self.bn2(self.conv2(y))
    if self.downsample is not None:
      x = self.downsample(x)
    return F.relu(y + x, inplace=True)


class ResNet(nn.Module):
  """`jaxkd.models.resnet_cifar.ResNetCifar` with convolutional shortcuts."""

  def __init__(self, net: resnet_cifar.ResNetCifar):
    super().__init__()
    if net.shortcut != resnet_cifar.CONV:
      raise ValueError('a ResNet with padded shortcuts has no counterpart')
    stem, *channels = widen(net.channels, net.width)
    n = blocks_per_stage(resnet_cifar.FAMILY, net.depth, resnet_cifar.OTHERS)
    self.conv1, self.bn1 = conv(3, stem), nn.BatchNorm2d(stem)
    built = stages(ResNetBlock, stem, channels, n)
    self.layer1, self.layer2, self.layer3 = built
    self.fc = nn.Linear(channels[-1], net.num_classes)

  def forward(self, x: Tensor) -> Tensor:
    x = F.relu(self.bn1(self.conv1(x)), inplace=True)
    x = self.layer3(self.layer2(self.layer1(x)))
    return self.fc(pooled(x))


class WideBlock(nn.Module):
  """BatchNorm, ReLU, convolution, twice; a shortcut."""

  def __init__(self, inputs: int, features: int, stride: int):
    super().__init__()
    self.bn1 = nn.BatchNorm2d(inputs)
    self.conv1 = conv(inputs, features, stride=stride)
    self.bn2 = nn.BatchNorm2d(features)
    self.conv2 = conv(features, features)
    self.convShortcut = None
    if inputs != features:
      self.convShortcut = conv(inputs, features, 1, stride)

  def forward(self, x: Tensor) -> Tensor:
    active = F.relu(self.bn1(x), inplace=True)
    y = F.relu(self.bn2(self.conv1(active)), inplace=True)
    y = self.conv2(y)
    return y + (x if self.convShortcut is None else self.convShortcut(active))


class WideStage(nn.Module):
  """A stage whose blocks are under the name 'layer'."""

  def __init__(self, blocks: nn.Sequential):
    super().__init__()
    self.layer = blocks

  def forward(self, x: Tensor) -> Tensor:
    return self.layer(x)


class WideResNet(nn.Module):
  """`jaxkd.models.wide_resnet.WideResNet`."""

  def __init__(self, net: wide_resnet.WideResNet):
    super().__init__()
    stem, *channels = widen(wide_resnet.CHANNELS, net.width)
    channels = [net.factor * c for c in channels]
    n = blocks_per_stage(wide_resnet.FAMILY, net.depth, wide_resnet.OTHERS)
    self.conv1 = conv(3, stem)
    built = stages(WideBlock, stem, channels, n)
    self.block1, self.block2, self.block3 = map(WideStage, built)
    self.bn1 = nn.BatchNorm2d(channels[-1])
    self.fc = nn.Linear(channels[-1], net.num_classes)

  def forward(self, x: Tensor) -> Tensor:
    x = self.block3(self.block2(self.block1(self.conv1(x))))
    return self.fc(pooled(F.relu(self.bn1(x), inplace=True)))


class VGG(nn.Module):
  """`jaxkd.models.vgg.VGG` for images below 64 x 64."""

  def __init__(self, net: vgg.VGG):
    super().__init__()
    inputs, blocks = 3, []
    channels = widen(vgg.CHANNELS, net.width)
    convolutions = vgg.CONVOLUTIONS[net.depth]
    for features, n in zip(channels, convolutions, strict=True):
      layers = []
      for _ in range(n):
        layers += [
          conv(inputs, features, bias=True),
          nn.BatchNorm2d(features),
          nn.ReLU(inplace=True),
        ]
        inputs = features
      blocks.append(nn.Sequential(*layers))
    self.block0, self.block1, self.block2, self.block3, self.block4 = blocks
    self.classifier = nn.Linear(inputs, net.num_classes)

  def forward(self, x: Tensor) -> Tensor:
    x = self.block0(x)
    for block in (self.block1, self.block2, self.block3):
      # The map of an image below 8 x 8 shrinks to one pixel earlier.
      x = block(F.max_pool2d(x, 2) if min(x.shape[2:]) > 1 else x)
    return self.classifier(pooled(self.block4(x)))


class Inverted(nn.Module):
  """1 x 1, depthwise 3 x 3, and linear 1 x 1 convolution."""

  def __init__(self, inputs: int, expansion: int, features: int, stride: int):
    super().__init__()
    inner = inputs * expansion
    self.residual = stride == 1 and inputs == features
    self.conv = nn.Sequential(
      conv(inputs, inner, 1),
      nn.BatchNorm2d(inner),
      nn.ReLU(inplace=True),
      conv(inner, inner, 3, stride, groups=inner),
      nn.BatchNorm2d(inner),
      nn.ReLU(inplace=True),
      conv(inner, features, 1),
      nn.BatchNorm2d(features),
    )

  def forward(self, x: Tensor) -> Tensor:
    y = self.conv(x)
    return x + y if self.residual else y


def conv_bn_relu(
  inputs: int, features: int, size: int, stride: int
) -> nn.Sequential:
  """Returns a convolution, a BatchNorm and a ReLU."""
  return nn.Sequential(
    conv(inputs, features, size, stride),
    nn.BatchNorm2d(features),
    nn.ReLU(inplace=True),
  )


class MobileNetV2(nn.Module):
  """`jaxkd.models.mobilenet.MobileNetV2` as in the distillation benchmark."""

  def __init__(self, net: mobilenet.MobileNetV2):
    super().__init__()
    if net.activation != 'relu' or not net.always_expand or net.dropout:
      raise ValueError('the published MobileNetV2 has no counterpart')
    inputs, last = widen([net.stem, net.last], net.width)
    self.conv1 = conv_bn_relu(3, inputs, 3, 2)
    rows = []
    for row in (row for stage in net.stages for row in stage):
      blocks = []
      for t, features, stride in mobilenet.blocks((row,), net.width):
        blocks.append(Inverted(inputs, t, features, stride))
        inputs = features
      rows.append(nn.Sequential(*blocks))
    self.blocks = nn.Sequential(*rows)
    self.conv2 = conv_bn_relu(inputs, last, 1, 1)
    self.classifier = nn.Sequential(nn.Linear(last, net.num_classes))

  def forward(self, x: Tensor) -> Tensor:
    return self.classifier(pooled(self.conv2(self.blocks(self.conv1(x)))))


def shuffle(x: Tensor, groups: int) -> Tensor:
  """Channel shuffle: channel j of group i moves to j groups + i."""
  b, c, h, w = x.shape
  x = x.view(b, groups, c // groups, h, w).transpose(1, 2)
  return x.reshape(b, c, h, w)


class ShuffleUnit(nn.Module):
  """Convolutions of one half; at the start of a stage, of the whole input."""

  def __init__(self, inputs: int, features: int, stride: int):
    super().__init__()
    half = features // shufflenet.HALVES
    self.stride = stride
    right = inputs if stride == 2 else half
    sizes = [(right, half, 1), (half, half, 3), (half, half, 1)]
    if stride == 2:
      sizes = [(inputs, inputs, 3), (inputs, half, 1), *sizes]
    for i, (c_in, c_out, size) in enumerate(sizes, start=1):
      steps, groups = (stride, c_in) if size == 3 else (1, 1)  # depthwise
      setattr(self, f'conv{i}', conv(c_in, c_out, size, steps, groups))
      setattr(self, f'bn{i}', nn.BatchNorm2d(c_out))

  def layer(self, i: int, x: Tensor) -> Tensor:
    """Applies the convolution and the BatchNorm of a number."""
    return getattr(self, f'bn{i}')(getattr(self, f'conv{i}')(x))

  def forward(self, x: Tensor) -> Tensor:
    if self.stride == 2:
      left, right, i = self.layer(2, self.layer(1, x)), x, 3
    else:
      (left, right), i = x.chunk(2, dim=1), 1
    right = F.relu(self.layer(i, right), inplace=True)
    right = self.layer(i + 2, self.layer(i + 1, right))
    y = F.relu(torch.cat([left, right], 1), inplace=True)
    return shuffle(y, shufflenet.HALVES)


class ShuffleNetV2(nn.Module):
  """`jaxkd.models.shufflenet.ShuffleNetV2` of width 1."""

  def __init__(self, net: shufflenet.ShuffleNetV2):
    super().__init__()
    if net.width != 1:
      raise ValueError(f'the width must be 1, got {net.width}')
    inputs = net.stem
    self.conv1, self.bn1 = conv(3, inputs, 1), nn.BatchNorm2d(inputs)
    for i, (features, n) in enumerate(net.stages, start=1):
      units = [ShuffleUnit(inputs, features, 2)]
      units += [ShuffleUnit(features, features, 1) for _ in range(n - 1)]
      setattr(self, f'layer{i}', nn.Sequential(*units))
      inputs = features
    self.num_stages = len(net.stages)
    self.conv2, self.bn2 = conv(inputs, net.last, 1), nn.BatchNorm2d(net.last)
    self.linear = nn.Linear(net.last, net.num_classes)

  def forward(self, x: Tensor) -> Tensor:
    x = F.relu(self.bn1(self.conv1(x)), inplace=True)
    for i in range(1, self.num_stages + 1):
      x = getattr(self, f'layer{i}')(x)
    x = F.relu(self.bn2(self.conv2(x)), inplace=True)
    return self.linear(pooled(x))


FAMILIES: dict[type, Callable[..., nn.Module]] = {
  mobilenet.MobileNetV2: MobileNetV2,
  resnet_cifar.ResNetCifar: ResNet,
  shufflenet.ShuffleNetV2: ShuffleNetV2,
  vgg.VGG: VGG,
  wide_resnet.WideResNet: WideResNet,
}


def build(name: str, num_classes: int) -> nn.Module:
  """Returns a network in PyTorch, with any weights.

  Args:
    name: a key of `models.CATALOG`.
    num_classes: K.

  Raises:
    KeyError: no such network, with suggestions.
    ValueError: it has no counterpart here.
  """
  net = models.build(name, num_classes)
  if type(net) not in FAMILIES:
    families = ', '.join(sorted(kind.__name__ for kind in FAMILIES))
    raise ValueError(
      f'{name!r} has no counterpart in benchmarks/torch_networks.py, which has'
      f' the families {families}'
    )
  return FAMILIES[type(net)](net)
