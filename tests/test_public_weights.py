"""Weights that others have published give the outputs that they give there.

Pieces of the files are in tests/data/public_weights. The files themselves are
looked for in the folder $JAXKD_TEST_WEIGHTS; docs/results.md says where they
come from.
"""

import hashlib
import json
import os
import pathlib

import jax
import numpy as np
import pytest

from jaxkd import models, tree
from jaxkd.interop import files, names
from jaxkd.interop.torch import from_state_dict
from jaxkd.models.efficientnet import EfficientNet
from jaxkd.models.mobilenet import V2_PUBLISHED, MobileNetV2
from jaxkd.models.resnet_cifar import PAD, Block

PIECES = pathlib.Path(__file__).parent / 'data' / 'public_weights'
WHOLE = json.loads((PIECES / 'logits.json').read_text())
FOLDER = 'JAXKD_TEST_WEIGHTS'


def piece(name):
  """The arrays of a piece by their names there, and its output, NHWC."""
  with np.load(PIECES / f'{name}.npz') as stored:
    arrays = {key: stored[key].astype(np.float32) for key in stored}
  return arrays, arrays.pop('output').transpose(0, 2, 3, 1)


def drawn(*shape):
  """Images, drawn in PyTorch's order."""
  image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
  return image.transpose(0, 2, 3, 1)


def run(function, *args):
  with jax.default_matmul_precision('highest'):
    return jax.jit(function)(*args)


def test_a_block_of_resnet20_with_a_padded_shortcut():
  arrays, want = piece('akamaster_resnet20_layer2')
  block = Block(32, stride=2, shortcut=PAD)
  x = np.abs(drawn(1, 16, 7, 7))
  shapes = jax.eval_shape(
    lambda key: block.init(key, x, train=False), jax.random.key(0)
  )
  (rules,) = names.dialects(models.build('resnet20_a', 10)).values()
  variables = {}
  for leaf in tree.leaves(shapes):
    local = 'stage2_block0/' + leaf.partition('/')[2]
    array = arrays.pop(names.translate(local, rules))
    variables[leaf] = names.from_torch(leaf, array)
  assert not arrays
  y = run(
    lambda v, x: block.apply(v, x, train=False), tree.from_leaves(variables), x
  )
  # The original ends in a ReLU.
  np.testing.assert_allclose(np.maximum(y, 0), want, rtol=0, atol=1e-5)


FRONTS = {  # piece -> network, its names there, its last tap
  'torchvision_mobilenet_v2_front': (
    MobileNetV2(32, (((1, 16, 1, 1), (6, 24, 1, 2)),), 8, 5, **V2_PUBLISHED),
    'torchvision',
    'stage1',
  ),
  'efficientnet_lite0_front': (
    EfficientNet(
      32,
      (((1, 3, 16, 1, 1),), ((6, 3, 24, 1, 2),)),
      8,
      False,
      'relu6',
      5,
      padding='same',
      epsilon=1e-3,
    ),
    'efficientnet_pytorch',
    'stage2',
  ),
}


@pytest.mark.parametrize('name', FRONTS)
def test_the_front_of_a_network(name):
  arrays, want = piece(name)
  net, dialect, tap = FRONTS[name]
  x = drawn(1, 3, 18, 18)
  rules = names.dialects(net)[dialect]
  used = set()

  def leaf_of(leaf, shape):
    there = names.translate(leaf.partition('/')[2], rules)
    if there not in arrays:  # behind the front
      return np.zeros(shape.shape, np.float32)
    used.add(there)
    return names.from_torch(leaf, arrays[there])

  shapes = tree.leaves(tree.shapes(net, x.shape[1:]))
  variables = {leaf: leaf_of(leaf, shape) for leaf, shape in shapes.items()}
  assert used == set(arrays)
  outputs = run(net.apply, tree.from_leaves(variables), x)
  np.testing.assert_allclose(
    outputs.taps[tap], want, rtol=0, atol=1e-5 * np.abs(want).max()
  )


@pytest.mark.parametrize('name', sorted(WHOLE))
def test_whole_networks(name):
  folder = os.environ.get(FOLDER)
  if not folder:
    pytest.skip(f'${FOLDER} does not name a folder with {name}')
  path = pathlib.Path(folder) / name
  if not path.is_file():
    pytest.skip(f'{name} is not in {folder}')
  case = WHOLE[name]
  assert hashlib.sha256(path.read_bytes()).hexdigest() == case['sha256']
  state_dict, _ = files.read(path)
  variables = from_state_dict(case['model'], state_dict)
  classes = variables['params']['head']['bias'].size
  net = models.build(case['model'], classes)
  logits = run(net.apply, variables, drawn(*case['shape'])).logits
  want = np.asarray(case['logits'])
  np.testing.assert_allclose(
    logits[:, : want.shape[1]], want, rtol=0, atol=2e-5 * np.abs(want).max()
  )
