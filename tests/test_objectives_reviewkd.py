"""ReviewKD: fused levels, from the deepest to the first, and their sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objective_inputs import (
  FAMILIES,
  KEY,
  NOW,
  convolved,
  draw,
  outputs_of,
  parameters,
  windowed,
)

from jaxkd import objectives
from jaxkd.types import Outputs

B = 3
LEARNER = {
  'stem': (9, 9, 1),  # never reviewed
  'stage1': (8, 8, 3),
  'stage1_pre': (8, 8, 2),
  'stage2': (4, 4, 5),
  'stage2_pre': (4, 4, 5),
  'pooled': (6,),
}
GUIDE = {  # one stage more: the last ones are reviewed
  'stage1': (9, 9, 2),
  'stage2': (6, 6, 3),
  'stage2_pre': (6, 6, 3),
  'stage3': (4, 4, 4),
  'stage3_pre': (4, 4, 4),
  'pooled': (5,),
}


def outputs_with(shapes, seed):
  taps = {
    name: jnp.asarray(draw(B, *shape, seed=seed + i))
    for i, (name, shape) in enumerate(shapes.items())
  }
  return Outputs(jnp.zeros((B, 3)), taps)


ENDS = dict(guide=outputs_with(GUIDE, 10), learner=outputs_with(LEARNER, 50))


def nearest(x, size):
  rows, columns = (
    [i * old // new for i in range(new)]
    for old, new in zip(x.shape[1:3], size, strict=True)
  )
  return x[:, rows][:, :, columns]


def layer(x, params, name):
  kernel = params[f'conv_{name}']['kernel']
  x = convolved(x, np.float64(kernel), 1, kernel.shape[0] // 2)
  norm = params[f'bn_{name}']
  x = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5)
  return x * norm['scale'] + norm['bias']


def hcl(x, y):
  errors = [np.square(x - y).mean((1, 2, 3))]
  for size in (4, 2, 1):
    if size < x.shape[1]:
      small = windowed(x, (size, size)) - windowed(y, (size, size))
      errors.append(np.square(small).mean((1, 2, 3)))
  weights = [0.5**i for i in range(len(errors))]
  pairs = zip(weights, errors, strict=True)
  return sum(w * e for w, e in pairs) / sum(weights)


def numpy_reviewkd(params, stages):
  learner, guide = (
    {k: np.float64(v) for k, v in ENDS[end].taps.items()}
    for end in ('learner', 'guide')
  )
  vector = (slice(None), None, None)
  levels = [
    ('level3', learner['pooled'][vector], guide['pooled'][vector]),
    ('level2', learner[stages[1]], guide['stage3_pre']),
    ('level1', learner[stages[0]], guide['stage2_pre']),
  ]
  total, passed = 0, None
  for name, x, y in levels:
    own = params[name]
    x = layer(x, own, 'in')
    if passed is not None:
      deeper = nearest(passed, x.shape[1:3])
      attention = own['attention']
      z = np.concatenate([x, deeper], axis=-1) @ attention['kernel'][0, 0]
      z = 1 / (1 + np.exp(-(z + attention['bias'])))
      x = x * z[..., :1] + deeper * z[..., 1:]
    passed = nearest(x, y.shape[1:3])
    total += hcl(layer(passed, own, 'out'), y)
  return total


@pytest.mark.parametrize('pre', [False, True])
def test_loss_is_the_papers_sum(pre):
  objective = objectives.reviewkd(before_activation=pre)
  params, memory = jax.jit(lambda: objective.init(KEY, examples=9, **ENDS))()
  params = {  # away from the neutral start of BatchNorm
    name: {
      part: {k: np.float64(v) * 1.25 + 0.125 for k, v in arrays.items()}
      for part, arrays in level.items()
    }
    for name, level in params.items()
  }
  got, after = jax.jit(lambda: objective.loss(params, memory, **ENDS, **NOW))()
  assert memory == after == {}
  stages = ('stage1_pre', 'stage2_pre') if pre else ('stage1', 'stage2')
  np.testing.assert_allclose(got, numpy_reviewkd(params, stages), rtol=2e-4)


def test_layers_start_as_in_the_published_code():
  objective = objectives.reviewkd()
  ends = dict(
    guide=outputs_with({**GUIDE, 'pooled': (64,)}, 0),
    learner=outputs_with({**LEARNER, 'pooled': (48,)}, 0),
  )
  params, _ = jax.jit(lambda: objective.init(KEY, examples=9, **ends))()
  level = params['level3']
  for name, fan_in, scale in (('in', 48, 3), ('out', 9 * 48, 3)):
    kernel = level[f'conv_{name}']['kernel']
    bound = np.sqrt(scale / fan_in)
    assert 0.95 * bound < np.max(np.abs(kernel)) <= bound
  assert 'bias' not in level['conv_in']
  assert 'attention' not in level and 'bias' in params['level2']['attention']


def test_adds_the_published_number_of_parameters():
  review = objectives.reviewkd()
  assert parameters(review, 'resnet8x4', 'resnet32x4') == 1_808_774


def test_pre_activations_are_defined_for_any_learner():
  objective = objectives.reviewkd(before_activation=True)

  def run(ends):
    params, memory = objective.init(KEY, examples=1, **ends)
    return objective.loss(params, memory, **ends, **NOW)

  for learner in FAMILIES:
    ends = dict(guide=outputs_of('mobilenet_v2'), learner=outputs_of(learner))
    assert jax.eval_shape(run, ends)[0].shape == (1,), learner


def test_fused_features_have_512_channels_at_most():
  wide = objectives.reviewkd()
  ends = dict(guide=outputs_of('resnet8'), learner=outputs_of('mobilenet_v2'))
  params, _ = jax.eval_shape(
    lambda ends: wide.init(KEY, examples=1, **ends), ends
  )
  assert len(params) == 4
  assert params['level4']['conv_in']['kernel'].shape == (1, 1, 1280, 512)
