"""The networks agree with the original PyTorch ones on the same weights."""

import json
import pathlib

import jax
import numpy as np
import pytest

from jaxkd import models
from jaxkd.interop.torch import from_state_dict

PARITY = pathlib.Path(__file__).parent / 'parity'
MODELS = {  # file -> network, where the names differ
  'ResNet50': 'resnet50',
  'MobileNetV2': 'mobilenet_v2',
  'imagenet_ResNet18': 'imagenet_resnet18',
  'imagenet_MobileNetV1': 'imagenet_mobilenet_v1',
  'ShuffleV1': 'shufflenet_v1',
  'ShuffleV2': 'shufflenet_v2',
  'timm_vit_tiny_patch16_224': 'vit_tiny',
}
TAPS = ['stem', *(f'stage{i}' for i in range(1, 5))]


def is_slow(path):
  """Whether the images are of 224 x 224, or the network is deep."""
  case = json.loads(path.read_text())
  return case.get('slow', case['input_shape'][-1] > 32)


CASES = [
  pytest.param(path.stem, marks=pytest.mark.slow if is_slow(path) else ())
  for path in sorted(PARITY.glob('*.json'))
]


def draw(case):
  """The state dict of a case: one generator, in the order of the names."""
  scales = case.get('scales', [0.2, 0.6])
  rng = np.random.Generator(np.random.PCG64(case['seed']))
  state = {}
  for name, shape in case['names']:
    if name.endswith('running_var'):
      array = rng.uniform(0.5, 1.5, shape)
    elif name.endswith(('running_mean', 'bias')):
      array = 0.1 * rng.standard_normal(shape)
    elif len(shape) == 1:
      array = rng.uniform(*scales, shape)
    else:
      fan_in = np.prod(shape[1:])
      array = rng.standard_normal(shape) * np.sqrt(2 / fan_in)
    state[name] = array.astype(np.float32)
  return state


@pytest.mark.parametrize('name', CASES)
def test_agrees_with_the_original(name):
  case = json.loads((PARITY / f'{name}.json').read_text())
  rng = np.random.Generator(np.random.PCG64(case['input_seed']))
  image = rng.standard_normal(case['input_shape']).astype(np.float32)
  image = image.transpose(0, 2, 3, 1)
  # Older cases have the name there, and no settings.
  settings = case.get('settings')
  model = MODELS.get(name, name) if settings is None else case['model']
  settings = settings or {}
  variables = from_state_dict(model, draw(case), **settings)
  net = models.build(model, len(case['logits'][0]), **settings)
  with jax.default_matmul_precision('highest'):
    logits, taps = jax.jit(net.apply)(variables, image)

  want = np.asarray(case['logits'])
  atol = 2e-5 * max(1, np.abs(want).max())
  np.testing.assert_allclose(logits, want, rtol=0, atol=atol)
  if not case['tap_shapes']:  # the original has no taps of transformers
    return
  after = [tap for tap in TAPS if tap in taps]
  before = [tap if tap == 'stem' else f'{tap}_pre' for tap in after]
  if 'stage1_pre' not in taps:  # then the original has none either
    before = []
  for names, field in [(after, 'tap'), (before, 'preact')]:
    powers = case[f'{field}_mean_square']
    for tap, power in zip(names, powers, strict=True):
      got = np.mean(np.square(taps[tap], dtype=np.float64))
      np.testing.assert_allclose(got, power, rtol=1e-4, err_msg=tap)
  shapes = [(b, h, w, c) for b, c, h, w in case['tap_shapes']]
  assert [taps[tap].shape for tap in after] == shapes
