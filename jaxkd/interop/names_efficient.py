"""Names of the arrays of EfficientNet and ConvNeXt in PyTorch projects.

'efficientnet_pytorch' is the package of this name, and what was converted from
TensorFlow with it; 'authors' of a ConvNeXt is Facebook's code.
"""

import re
from collections.abc import Callable

from jaxkd.interop.rules import BLOCK, Rules, numbered
from jaxkd.models.convnext import ConvNeXt
from jaxkd.models.efficientnet import EfficientNet

ANY_BLOCK = r'^stage\d+_block\d+'

TIMM_EFFICIENTNET: Rules = (
  (r'^conv_last', 'conv_head'),
  (r'^bn_stem', 'bn1'),
  (r'^bn_last', 'bn2'),
  (r'^head', 'classifier'),
  (r'/se/(reduce|expand)', r'/se.conv_\1'),
  (r'/conv_expand', '/conv_pw'),
  (r'/conv_depthwise', '/conv_dw'),
  (r'/conv_project', '/conv_pwl'),
  (r'/bn_expand', '/bn1'),
  (r'/bn_depthwise', '/bn2'),
  (r'/bn_project', '/bn3'),
)
HUGGINGFACE_EFFICIENTNET: Rules = (
  (r'^conv_stem', 'efficientnet.embeddings.convolution'),
  (r'^bn_stem', 'efficientnet.embeddings.batchnorm'),
  (r'^(conv|bn)_last', r'efficientnet.encoder.top_\1'),
  (r'^head', 'classifier'),
  (r'/se/', '/squeeze_excite.'),
  (r'/(conv|bn)_expand', r'/expansion.expand_\1'),
  (r'/conv_depthwise', '/depthwise_conv.depthwise_conv'),
  (r'/bn_depthwise', '/depthwise_conv.depthwise_norm'),
  (r'/(conv|bn)_project', r'/projection.project_\1'),
)
EFFICIENTNET_PYTORCH: Rules = (
  (r'^conv_stem', '_conv_stem'),
  (r'^bn_stem', '_bn0'),
  (r'^conv_last', '_conv_head'),
  (r'^bn_last', '_bn1'),
  (r'^head', '_fc'),
  (r'/se/(reduce|expand)', r'/_se_\1'),
  (r'/conv_(expand|depthwise|project)', r'/_\1_conv'),
  (r'/bn_expand', '/_bn0'),
  (r'/bn_depthwise', '/_bn1'),
  (r'/bn_project', '/_bn2'),
)


def efficientnet(net: EfficientNet) -> dict[str, Rules]:
  """Returns the names of an EfficientNet, Lite or not."""
  ours = [name for name, _ in net.blocks()]
  plain = [name for name, sizes in net.blocks() if sizes['expansion'] == 1]
  rows = [row for stage in net.stages for row in stage]
  places = [(i, j) for i, row in enumerate(rows) for j in range(row[3])]

  def by_number(template: str) -> Rules:
    theirs = [
      template.format(number, row=row, place=place)
      for number, (row, place) in enumerate(places)
    ]
    return (numbered(ANY_BLOCK, theirs, ours),)

  return {
    'torchvision': (
      (r'^(conv|bn)_last', rf'features/{len(rows) + 1}/\1'),
      (r'^(conv|bn)_stem', r'features/0/\1'),
      (r'^head', 'classifier.1'),
      *_in_order(plain, net.squeeze),
      *by_number('features/{row}/{place}/block'),
      (r'^features/(\d+)/(\d)', lambda m: f'features.{int(m[1]) + 1}.{m[2]}'),
      (r'^features/(\d+)/conv', r'features.\1.0'),
      (r'^features/(\d+)/bn', r'features.\1.1'),
    ),
    'timm': (
      *_without_expansion(plain),
      *TIMM_EFFICIENTNET,
      *by_number('blocks.{row}.{place}'),
    ),
    'huggingface': (
      *HUGGINGFACE_EFFICIENTNET,
      *by_number('efficientnet.encoder.blocks.{}'),
    ),
    'efficientnet_pytorch': (*EFFICIENTNET_PYTORCH, *by_number('_blocks.{}')),
  }


def _without_expansion(plain: list[str]) -> Rules:
  """Returns timm's names in blocks without an expanding convolution.

  Args:
    plain: prefixes of these blocks.
  """
  theirs = {
    'conv_project': 'conv_pw',
    'bn_depthwise': 'bn1',
    'bn_project': 'bn2',
  }
  return tuple(
    (rf'^{prefix}/{layer}', f'{prefix}/{name}')
    for prefix in plain
    for layer, name in theirs.items()
  )


def _in_order(plain: list[str], squeeze: bool) -> Rules:
  """Returns torchvision's numbers of a block's layers.

  Args:
    plain: prefixes of the blocks without an expanding convolution.
    squeeze: whether blocks have squeeze-and-excitation.
  """

  def rules(prefix: str, layers: list[str]) -> Rules:
    return tuple(
      rule
      for i, layer in enumerate(layers)
      for rule in (
        (rf'^({prefix})/conv_{layer}', rf'\g<1>/{i}.0'),
        (rf'^({prefix})/bn_{layer}', rf'\g<1>/{i}.1'),
        (rf'^({prefix})/{layer}/reduce', rf'\g<1>/{i}.fc1'),
        (rf'^({prefix})/{layer}/expand', rf'\g<1>/{i}.fc2'),
      )
    )

  layers = ['depthwise', *(['se'] if squeeze else []), 'project']
  without = [rule for prefix in plain for rule in rules(prefix, layers)]
  return (*without, *rules(ANY_BLOCK[1:], ['expand', *layers]))


def _stage(template: str) -> Callable[[re.Match], str]:
  """Returns a replacement by the number of a stage, counted from 0.

  Args:
    template: of the stage's number, {0}, and of the block's, {1}.
  """
  return lambda match: template.format(int(match[1]) - 1, *match.groups()[1:])


TORCHVISION_CONVNEXT: Rules = (
  (r'^conv_stem', 'features.0.0'),
  (r'^norm_stem', 'features.0.1'),
  (r'^norm_last', 'classifier.0'),
  (r'^head', 'classifier.2'),
  (r'^stage(\d)_norm', lambda m: f'features.{2 * int(m[1]) - 2}.0'),
  (r'^stage(\d)_halve', lambda m: f'features.{2 * int(m[1]) - 2}.1'),
  (r'/gamma', '/layer_scale[..., 1, 1]'),
  (r'/depthwise', '/block.0'),
  (r'/norm', '/block.2'),
  (r'/fc1', '/block.3'),
  (r'/fc2', '/block.5'),
  (BLOCK, lambda m: f'features.{2 * int(m[1]) - 1}.{m[2]}.'),
)
TIMM_CONVNEXT: Rules = (
  (r'^conv_stem', 'stem.0'),
  (r'^norm_stem', 'stem.1'),
  (r'^norm_last', 'head/norm'),
  (r'^head\.', 'head/fc.'),
  (r'^stage(\d)_norm', _stage('stages.{0}.downsample.0')),
  (r'^stage(\d)_halve', _stage('stages.{0}.downsample.1')),
  (r'/depthwise', '/conv_dw'),
  (r'(block\d+)/fc', r'\1/mlp.fc'),
  (BLOCK, _stage('stages.{0}.blocks.{1}.')),
)
HUGGINGFACE_CONVNEXT: Rules = (
  (r'^conv_stem', 'convnext.embeddings.patch_embeddings'),
  (r'^norm_stem', 'convnext.embeddings.layernorm'),
  (r'^norm_last', 'convnext.layernorm'),
  (r'^head', 'classifier'),
  (r'^stage(\d)_norm', _stage('convnext.encoder.stages.{0}/halve.0')),
  (r'^stage(\d)_halve', _stage('convnext.encoder.stages.{0}/halve.1')),
  (r'/halve', '.downsampling_layer'),
  (r'/gamma', '/layer_scale_parameter'),
  (r'/depthwise', '/dwconv'),
  (r'/norm', '/layernorm'),
  (r'/fc', '/pwconv'),
  (BLOCK, _stage('convnext.encoder.stages.{0}.layers.{1}.')),
)
AUTHORS_CONVNEXT: Rules = (
  (r'^conv_stem', 'downsample_layers.0.0'),
  (r'^norm_stem', 'downsample_layers.0.1'),
  (r'^norm_last', 'norm'),
  (r'^stage(\d)_norm', _stage('downsample_layers.{0}.0')),
  (r'^stage(\d)_halve', _stage('downsample_layers.{0}.1')),
  (r'/depthwise', '/dwconv'),
  (r'/fc', '/pwconv'),
  (BLOCK, _stage('stages.{0}.{1}.')),
)


def convnext(net: ConvNeXt) -> dict[str, Rules]:
  """Returns the names of a ConvNeXt."""
  del net
  return {
    'torchvision': TORCHVISION_CONVNEXT,
    'timm': TIMM_CONVNEXT,
    'huggingface': HUGGINGFACE_CONVNEXT,
    'authors': AUTHORS_CONVNEXT,
  }
