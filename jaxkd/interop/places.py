"""Where layers are in PyTorch's modules that number them: here -> there."""

import itertools

from jaxkd.models.mobilenet import MobileNetV2, StageRows
from jaxkd.models.vgg import CONVOLUTIONS, LargeVGG

Places = dict[str, str]


def blocks_of(stages: tuple[StageRows, ...]) -> list[str]:
  """Returns our prefixes of all blocks, in order."""
  return [
    f'stage{i}_block{j}'
    for i, stage in enumerate(stages, start=1)
    for j in range(sum(row[-2] for row in stage))
  ]


def large_vgg(net: LargeVGG) -> Places:
  """Returns torchvision's places of the convolutions and their norms.

  Convolution, BatchNorm and ReLU are counted, and the pooling after a stage.
  """
  places, n = {}, 0
  for i, convolutions in enumerate(CONVOLUTIONS[net.depth]):
    stage = f'stage{i}' if i else 'stem'
    for j in range(convolutions):
      places[f'{stage}/conv{j}'] = f'features.{n}'
      places[f'{stage}/bn{j}'] = f'features.{n + 1}'
      n += 3
    n += 1
  return places


def mobilenet_v2_torchvision(net: MobileNetV2) -> Places:
  """Returns torchvision's places of the layers of all blocks."""
  rows = [row for row in itertools.chain(*net.stages) for _ in range(row[-2])]
  places = {}
  for n, (block, row) in enumerate(
    zip(blocks_of(net.stages), rows, strict=True), start=1
  ):
    there = f'features.{n}.conv'
    layers = ['expand', 'depthwise'] if row[0] > 1 else ['depthwise']
    for i, layer in enumerate(layers):
      places[f'{block}/conv_{layer}'] = f'{there}.{i}.0'
      places[f'{block}/bn_{layer}'] = f'{there}.{i}.1'
    places[f'{block}/conv_project'] = f'{there}.{len(layers)}'
    places[f'{block}/bn_project'] = f'{there}.{len(layers) + 1}'
  return places


def mobilenet_v2_timm(net: MobileNetV2) -> Places:
  """Returns timm's places of the layers of all blocks."""
  inverted = {'expand': 'pw', 'depthwise': 'dw', 'project': 'pwl'}
  separable = {'depthwise': 'dw', 'project': 'pw'}
  places, blocks = {}, iter(blocks_of(net.stages))
  for i, row in enumerate(itertools.chain(*net.stages)):
    layers = inverted if row[0] > 1 else separable
    for j in range(row[-2]):
      block = next(blocks)
      for n, (layer, place) in enumerate(layers.items(), start=1):
        places[f'{block}/conv_{layer}'] = f'blocks.{i}.{j}.conv_{place}'
        places[f'{block}/bn_{layer}'] = f'blocks.{i}.{j}.bn{n}'
  return places
