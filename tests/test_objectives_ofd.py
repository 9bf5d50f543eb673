"""OFD: margins of the guide's BatchNorm, connectors, the sum over stages."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from objective_inputs import (
  FAMILIES,
  KEY,
  NOW,
  draw,
  outputs_of,
  parameters,
  windowed,
)

from jaxkd import objectives
from jaxkd.models import norms as tap_norms
from jaxkd.models.mobilenet import MobileNetV1
from jaxkd.models.resnet import BASIC, BOTTLENECK, ResNet
from jaxkd.models.resnet_cifar import ResNetCifar
from jaxkd.models.shufflenet import ShuffleNetV1
from jaxkd.models.vgg import VGG
from jaxkd.models.wide_resnet import WideResNet
from jaxkd.types import Outputs

NETWORKS = {
  'resnet_cifar': ResNetCifar(8, (2, 3, 4, 5), num_classes=3),
  'basic': ResNet(3, BASIC, (1, 2), (2, 3, 4), num_classes=3),
  'bottleneck': ResNet(3, BOTTLENECK, (1, 2), (2, 1, 2), num_classes=3),
  'wide': WideResNet(10, 1, num_classes=3, width=0.25),
  'vgg': VGG(11, num_classes=3, width=1 / 32),
  'mobilenet': MobileNetV1(
    2, (((3, 1, 1), (4, 1, 1)), ((5, 1, 2),)), num_classes=3
  ),
  'shufflenet': ShuffleNetV1(1, 4, ((8, 2), (16, 2)), num_classes=3),
}


@pytest.mark.parametrize('name', NETWORKS)
def test_a_norm_is_the_last_layer_of_its_tap(name):
  """The tap moves as its bias does, and by nothing else than that."""
  net, image = NETWORKS[name], jnp.asarray(draw(2, 8, 8, 1))

  run = jax.jit(lambda variables: tap_norms.apply(net, variables, image)[0])
  shapes = jax.eval_shape(net.init, KEY, image)
  leaves = {  # every array is another number
    path: np.full(x.shape, (1 + i / 64) / 8, np.float32)
    for i, (path, x) in enumerate(traverse_util.flatten_dict(shapes).items())
  }
  variables = traverse_util.unflatten_dict(leaves)
  outputs = run(variables)
  taps, norms = outputs.taps, outputs.norms
  assert set(norms) == {tap for tap in taps if tap.endswith('_pre')}
  for tap, norm in norms.items():
    (path,) = (n for n in leaves if leaves[n].ravel()[0] == norm['bias'][0])
    np.testing.assert_array_equal(norm['scale'], leaves[*path[:-1], 'scale'])
    higher = {**leaves, path: leaves[path] + 1}
    moved = run(traverse_util.unflatten_dict(higher)).taps[tap]
    np.testing.assert_allclose(moved - taps[tap], 1, rtol=1e-5)


def test_which_networks_have_norms():
  without = {x for x in FAMILIES if not outputs_of(x).norms}
  assert without == {
    'mobilenet_v2',
    'shufflenet_v2',
    'vit_tiny',
    'rvt_tiny',
    'mlp128',
  }


# The objective.

B = 3
SIZES = {  # tap: the learner's map, and the guide's
  'stage1_pre': ((4, 4, 2), (8, 8, 3)),
  'stage2_pre': ((3, 3, 4), (2, 2, 5)),
}
NORMS = {
  'stage1_pre': {'scale': draw(3, seed=5), 'bias': draw(3, seed=6)},
  'stage2_pre': {'scale': draw(5, seed=7), 'bias': draw(5, seed=8)},
}


def ends():
  learner, guide = (
    {
      tap: jnp.asarray(draw(B, *shapes[i], seed=i + len(tap)))
      for tap, shapes in SIZES.items()
    }
    for i in (0, 1)
  )
  # Deeper than the learner: its last stages are compared.
  guide = {'stage2_pre': guide['stage1_pre'], 'stage3_pre': guide['stage2_pre']}
  norms = {f'stage{i + 1}_pre': NORMS[f'stage{i}_pre'] for i in (1, 2)}
  blank = {f'stage{i}': jnp.zeros((B, 1, 1, 1)) for i in (1, 2, 3)}
  logits = jnp.zeros((B, 3))
  two = {k: v for k, v in blank.items() if k != 'stage3'}
  return (
    Outputs(logits, {**two, **learner}),
    Outputs(logits, {**blank, **guide}, norms),
  )


def margin_of(norm):
  """The mean of N(bias, scale²) where it is negative, for each channel."""
  margins = []
  for s, b in zip(np.abs(norm['scale']), norm['bias'], strict=True):
    negative = math.erfc(b / s / math.sqrt(2)) / 2
    density = math.exp(-((b / s) ** 2) / 2) / math.sqrt(2 * math.pi)
    margins.append(b - s * density / negative if negative > 1e-3 else -3 * s)
  return np.array(margins)


def numpy_ofd(learner, guide, params, margins):
  total = np.zeros(B)
  for i, (tap, weight) in enumerate((('stage1_pre', 0.5), ('stage2_pre', 1))):
    x = np.float64(learner.taps[tap]) @ params[f'conv_{i + 1}']['kernel'][0, 0]
    x = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5)
    norm = params[f'bn_{i + 1}']
    x = x * norm['scale'] + norm['bias']
    y = windowed(np.float64(guide.taps[f'stage{i + 2}_pre']), x.shape[1:3])
    m = margins[i]
    both = np.where((x > m) & (y <= m), np.square(x - m), 0)
    both += np.where((x > y) & (y > m) & (y <= 0), np.square(x - y), 0)
    both += np.where(y > 0, np.square(x - y), 0)
    total += weight * both.sum((1, 2, 3))
  return total


@pytest.mark.parametrize('margins', ['batch_norm', 'features'])
def test_loss_is_the_papers_sum(margins):
  learner, guide = ends()
  objective = objectives.ofd(margins=margins)
  both = dict(learner=learner, guide=guide)
  params, memory = jax.jit(lambda: objective.init(KEY, **both, examples=9))()
  params = jax.tree.map(np.array, params)
  for norm in ('bn_1', 'bn_2'):
    params[norm]['scale'] *= 1.5
    params[norm]['bias'] += 0.25
  got, after = jax.jit(lambda: objective.loss(params, memory, **both, **NOW))()
  assert memory == after == {}
  if margins == 'batch_norm':
    expected = [margin_of(norm) for norm in NORMS.values()]
  else:
    maps = [np.float64(guide.taps[f'stage{i}_pre']) for i in (2, 3)]
    expected = [
      np.array([x[..., c][x[..., c] < 0].mean() for c in range(x.shape[-1])])
      for x in maps
    ]
  want = numpy_ofd(learner, guide, params, expected)
  np.testing.assert_allclose(got, want, rtol=2e-5)


def test_margins_of_features_that_are_never_negative_are_zero():
  learner, guide = ends()
  positive = jax.tree.map(jnp.abs, guide)
  objective = objectives.ofd(margins='features')

  def loss(guide):
    both = dict(learner=learner, guide=guide)
    params, _ = objective.init(KEY, **both, examples=9)
    return objective.loss(params, {}, **both, **NOW)[0]

  assert np.all(np.isfinite(jax.jit(loss)(positive)))


# Measured in mdistiller (https://github.com/megvii-research/mdistiller).
PUBLISHED = {
  ('resnet32x4', 'resnet8x4'): 86_912,
  ('resnet56', 'resnet20'): 5_600,
  ('resnet110', 'resnet32'): 5_600,
  ('wrn_40_2', 'wrn_16_2'): 21_952,
  ('wrn_40_2', 'wrn_40_1'): 11_200,
  ('vgg13', 'vgg8'): 609_024,
  ('vgg13', 'vgg11'): 609_024,
  ('resnet32x4', 'shufflenet_v2'): 156_800,
}


@pytest.mark.parametrize(('guide', 'learner'), PUBLISHED)
def test_adds_the_published_number_of_parameters(guide, learner):
  assert (
    parameters(objectives.ofd(), learner, guide) == PUBLISHED[guide, learner]
  )


def test_is_defined_for_any_learner():
  for learner in FAMILIES:
    value, _ = _loss_of(objectives.ofd(), 'resnet50', learner)
    assert value.shape == (1,), learner


def test_a_guide_without_batch_norm_is_explained():
  with pytest.raises(ValueError, match="at 'stage2' .* has none: set margins="):
    _loss_of(objectives.ofd(), 'vit_tiny')
  with pytest.raises(
    ValueError, match="name others, of stage1_pre, .* or set margins='features'"
  ):
    _loss_of(objectives.ofd(('stem',)), 'resnet8')
  with pytest.raises(KeyError, match="no margins 'feature'.*'features'"):
    objectives.ofd(margins='feature')


def _loss_of(objective, guide, learner='resnet8'):
  ends = dict(guide=outputs_of(guide), learner=outputs_of(learner))

  def run(ends):
    params, memory = objective.init(KEY, examples=1, **ends)
    return objective.loss(params, memory, **ends, **NOW)

  return jax.eval_shape(run, ends)
