"""The networks agree with the original PyTorch ones on the same weights."""

import json
import pathlib
import re

import jax
import numpy as np
import pytest

from jaxkd import models

PARITY = pathlib.Path(__file__).parent / 'parity'
MODELS = {  # file -> network, where the names differ
  'ResNet50': 'resnet50',
  'MobileNetV2': 'mobilenet_v2',
  'imagenet_ResNet18': 'imagenet_resnet18',
  'imagenet_MobileNetV1': 'imagenet_mobilenet_v1',
  'ShuffleV1': 'shufflenet_v1',
  'ShuffleV2': 'shufflenet_v2',
}


def numbered(template, counts, start=1):
  """The template with i and j < counts[i - start], for all i and j."""
  pairs = [(i, j) for i, n in enumerate(counts, start) for j in range(n)]
  return [template.format(*pair) for pair in pairs]


def in_turn(there, here, layers):
  """Rules for blocks that are numbered otherwise there, in the same order."""
  return [
    (rf'{a}\.{i}', f'{b}/{layer}')
    for a, b in zip(there, here, strict=True)
    for i, layer in layers.items()
  ]


def named(layers, block=r'\d'):
  """Rules for numbered layers that have names here."""
  return [
    (
      rf'layer(\d)\.({block})\.(conv|bn){i}',
      rf'stage\1_block\2/\3_{layer}',
    )
    for i, layer in layers.items()
  ]


TAPS = ['stem', *(f'stage{i}' for i in range(1, 5))]

# Module names there -> here; the first full match wins.
RESNET = [
  (r'conv1', 'conv_stem'),
  (r'bn1', 'bn_stem'),
  (r'fc|linear', 'head'),
  (r'layer(\d)\.(\d)\.(conv\d|bn\d)', r'stage\1_block\2/\3'),
  (r'layer(\d)\.(\d)\.\w+\.0', r'stage\1_block\2/conv_shortcut'),
  (r'layer(\d)\.(\d)\.\w+\.1', r'stage\1_block\2/bn_shortcut'),
]
RULES = {
  'resnet8x4': RESNET,
  'ResNet50': RESNET,
  'imagenet_ResNet18': RESNET,
  'wrn_16_2': [
    (r'conv1', 'conv_stem'),
    (r'bn1', 'bn_last'),
    (r'fc', 'head'),
    (r'block(\d)\.layer\.(\d)\.(conv\d|bn\d)', r'stage\1_block\2/\3'),
    (r'block(\d)\.layer\.(\d).convShortcut', r'stage\1_block\2/conv_shortcut'),
  ],
  'vgg8': [
    (r'block0\.0', 'stem/conv0'),
    (r'block0\.1', 'stem/bn0'),
    (r'classifier', 'head'),
    (r'block(\d)\.0', r'stage\1/conv0'),
    (r'block(\d)\.1', r'stage\1/bn0'),
  ],
  'MobileNetV2': [
    (r'conv1\.0', 'conv_stem'),
    (r'conv1\.1', 'bn_stem'),
    (r'conv2\.0', 'conv_last'),
    (r'conv2\.1', 'bn_last'),
    (r'classifier\.0', 'head'),
    *in_turn(
      numbered(r'blocks\.{}\.{}\.conv', (1, 2, 3, 4, 3, 3, 1), start=0),
      numbered('stage{}_block{}', (3, 3, 7, 4)),
      {
        0: 'conv_expand',
        1: 'bn_expand',
        3: 'conv_depthwise',
        4: 'bn_depthwise',
        6: 'conv_project',
        7: 'bn_project',
      },
    ),
  ],
  'imagenet_MobileNetV1': [
    (r'model\.0\.0', 'conv_stem'),
    (r'model\.0\.1', 'bn_stem'),
    (r'fc', 'head'),
    *in_turn(
      [rf'model\.{i}' for i in range(1, 14)],
      numbered('stage{}_block{}', (3, 2, 6, 2)),
      {
        0: 'conv_depthwise',
        1: 'bn_depthwise',
        3: 'conv_pointwise',
        4: 'bn_pointwise',
      },
    ),
  ],
  'ShuffleV1': [
    (r'conv1', 'conv_stem'),
    (r'bn1', 'bn_stem'),
    (r'linear', 'head'),
    *named({1: 'reduce', 2: 'depthwise', 3: 'expand'}),
  ],
  'ShuffleV2': [
    (r'conv1', 'conv_stem'),
    (r'bn1', 'bn_stem'),
    (r'conv2', 'conv_last'),
    (r'bn2', 'bn_last'),
    (r'linear', 'head'),
    *named(  # the unit with stride 2
      {
        1: 'left_depthwise',
        2: 'left_pointwise',
        3: 'pointwise1',
        4: 'depthwise',
        5: 'pointwise2',
      },
      block='0',
    ),
    *named({1: 'pointwise1', 2: 'depthwise', 3: 'pointwise2'}),
  ],
}


def draw(case):
  """The state dict of a case: one generator, in the order of the names."""
  rng = np.random.Generator(np.random.PCG64(case['seed']))
  state = {}
  for name, shape in case['names']:
    if name.endswith('running_var'):
      array = rng.uniform(0.5, 1.5, shape)
    elif name.endswith(('running_mean', 'bias')):
      array = 0.1 * rng.standard_normal(shape)
    elif len(shape) == 1:
      array = rng.uniform(0.2, 0.6, shape)
    else:
      fan_in = np.prod(shape[1:])
      array = rng.standard_normal(shape) * np.sqrt(2 / fan_in)
    state[name] = array.astype(np.float32)
  return state


def convert(state, rules):
  """State dict -> {'params': ..., 'batch_stats': ...}."""
  variables = {}
  for name, array in state.items():
    module, leaf = name.rsplit('.', 1)
    there, here = next(r for r in rules if re.fullmatch(r[0], module))
    path = re.sub(there, here, module).split('/')
    collection = 'batch_stats' if leaf.startswith('running_') else 'params'
    if leaf == 'weight':
      leaf = 'scale' if array.ndim == 1 else 'kernel'
      axes = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}[array.ndim]
      array = array.transpose(axes)
    node = variables
    for key in (collection, *path):
      node = node.setdefault(key, {})
    node[leaf.removeprefix('running_')] = array
  return variables


@pytest.mark.parametrize('name', RULES)
def test_agrees_with_the_original(name):
  case = json.loads((PARITY / f'{name}.json').read_text())
  rng = np.random.Generator(np.random.PCG64(case['input_seed']))
  image = rng.standard_normal(case['input_shape']).astype(np.float32)
  image = image.transpose(0, 2, 3, 1)
  variables = convert(draw(case), RULES[name])

  num_classes = len(case['logits'][0])
  net = models.build(MODELS.get(name) or name, num_classes)
  expected = jax.eval_shape(net.init, jax.random.key(0), image)
  assert jax.tree.structure(variables) == jax.tree.structure(expected)
  with jax.default_matmul_precision('highest'):
    logits, taps = jax.jit(net.apply)(variables, image)

  want = np.asarray(case['logits'])
  atol = 2e-5 * max(1, np.abs(want).max())
  np.testing.assert_allclose(logits, want, rtol=0, atol=atol)
  after = [tap for tap in TAPS if tap in taps]
  before = [tap if tap == 'stem' else f'{tap}_pre' for tap in after]
  if 'stage1_pre' not in taps:  # the original, too, then names none
    before = []
  for names, field in [(after, 'tap'), (before, 'preact')]:
    powers = case[f'{field}_mean_square']
    for tap, power in zip(names, powers, strict=True):
      got = np.mean(np.square(taps[tap], dtype=np.float64))
      np.testing.assert_allclose(got, power, rtol=1e-4, err_msg=tap)
  shapes = [(b, h, w, c) for b, c, h, w in case['tap_shapes']]
  assert [taps[tap].shape for tap in after] == shapes
