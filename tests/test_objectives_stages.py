"""Objectives of features: what each compares, by what layers, in what sum."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_maps import (
  S1,
  S2,
  S_VECTORS,
  SOURCE,
  T1,
  T2,
  T_EMBEDDINGS,
  T_VECTORS,
  TARGET,
  U1,
  U4,
  rectified,
)
from objective_inputs import (
  NOW,
  convolved,
  draw,
  windowed,
)

from jaxkd import losses, objectives, tree
from jaxkd.objectives.ft import paraphraser
from jaxkd.types import Outputs

KEY = jax.random.key(0, impl='rbg')


def outputs_with(**taps) -> Outputs:
  logits = jnp.zeros((len(next(iter(taps.values()))), 3))
  return Outputs(logits, {n: jnp.asarray(x, 'f4') for n, x in taps.items()})


def init(objective, learner, guide):
  start = functools.partial(objective.init, examples=9)
  return jax.jit(start)(KEY, learner=learner, guide=guide)


def value(objective, learner, guide, params=None, memory=None):
  """The loss, averaged over the batch, with its own parameters or others."""

  @jax.jit
  def run(params, memory, **ends):
    own, bank = objective.init(KEY, examples=9, **ends)
    loss, _ = objective.loss(params or own, memory or bank, **ends, **NOW)
    return jnp.mean(loss)

  return run(params, memory, learner=learner, guide=guide)


# Published values, by the benchmark's code (RepDistiller and mdistiller).

MAPS = (
  outputs_with(stage1=S1, stage2=S2, pooled=S_VECTORS),
  outputs_with(stage1=T1, stage2=T2, pooled=T_VECTORS),
)
SMALLER = outputs_with(
  stage1=rectified((4, 6, 8, 8), 0.17, 0.4, 1.5),
  stage2=rectified((4, 12, 4, 4), 0.19, 0.6, 1.2),
)
BEFORE = (
  outputs_with(
    stage1_pre=SOURCE, stage1=TARGET, stage2_pre=SOURCE, stage2=TARGET
  ),
  outputs_with(
    stage1_pre=TARGET, stage1=SOURCE, stage2_pre=TARGET, stage2=SOURCE
  ),
)
FLOWS = outputs_with(stem=S1, stage1=S2), outputs_with(stem=U1, stage1=U4)
GOLDEN = {
  'at': ({}, MAPS, 0.000890505566124 + 0.000172136915649),
  'nst': ({}, MAPS, 0.154787315904 + 0.224089937532),
  'sp': ({}, MAPS, 8.40397996053e-05),
  'pkt': ({}, MAPS, 0.121826200954),
  'rkd': ({}, MAPS, 10.9653291725),
  'rkd by distance': ({'angle': 0.0}, MAPS, 25 * 0.108705551413),
  'kdsvd': ({}, (MAPS[0], SMALLER), 0.0228328571638),
  'fsp': ({}, FLOWS, 0.0207339419064),
  'ab': ({}, BEFORE, 0.0821957305557 + 0.164391461111),
}


@pytest.mark.parametrize('case', GOLDEN)
def test_it_has_the_published_value(case):
  settings, (learner, guide), want = GOLDEN[case]
  objective = objectives.make({'name': case.split()[0], **settings})
  np.testing.assert_allclose(value(objective, learner, guide), want, rtol=1e-4)


def test_cc_has_the_published_value_of_its_embeddings():
  same = {'linear': {'kernel': jnp.eye(12), 'bias': jnp.zeros(12)}}
  ends = outputs_with(pooled=S_VECTORS), outputs_with(pooled=T_EMBEDDINGS)
  got = value(objectives.cc(12), *ends, {'learner': same, 'guide': same})
  np.testing.assert_allclose(got, 19.8367500822, rtol=1e-5)


# Taps.

NAMED = (
  outputs_with(stem=S2, stage1=S1, stage2=S2, stage7=T2),
  outputs_with(stage1=T1, deep=T2),
)


@pytest.mark.parametrize('name', ['at', 'nst'])
def test_stages_of_each_network_can_be_named(name):
  settings = {'stages': ('stem', 'last'), 'guide_stages': ('deep', 'stage1')}
  objective = objectives.make({'name': name, **settings})
  loss = jax.jit(getattr(losses, {'at': 'attention'}.get(name, name)))
  pairs = [(S2, windowed(T2, (4, 4))), (T2, T1)]
  want = sum(np.mean(loss(np.float32(s), np.float32(t))) for s, t in pairs)
  np.testing.assert_allclose(value(objective, *NAMED), want, rtol=1e-5)


@pytest.mark.parametrize('name', ['sp', 'pkt', 'rkd'])
def test_a_tap_of_each_network_can_be_named(name):
  named = {'name': name, 'stage': 'last', 'guide_stage': 'deep'}
  plain = {'name': name, 'stage': 'stage1', 'guide_stage': ''}
  got = value(objectives.make(named), *NAMED)
  same = outputs_with(stage1=T2)
  np.testing.assert_allclose(got, 0, atol=1e-6)
  np.testing.assert_array_equal(got, value(objectives.make(plain), same, same))


def test_rows_meet_in_the_smaller_size():
  learner, guide = (
    outputs_with(stage1=S1, stage2=S2),
    outputs_with(stage1=T1, stage2=T2),
  )
  got = value(objectives.kdsvd('rows'), learner, guide)
  small = np.float32(windowed(T2, (4, 4)))
  want = jax.jit(losses.svd_rows)(*map(_arrays, ((S1, S2), (T1, small))))
  np.testing.assert_allclose(got, np.mean(want), rtol=1e-3)


def _arrays(maps):
  return [jnp.asarray(x, jnp.float32) for x in maps]


# Layers of their own.


def linear(x, kernel):
  return x @ np.float64(kernel[0, 0])


def test_vid_is_its_formula():
  learner, guide = draw(2, 4, 6, 3), draw(2, 2, 6, 5, seed=1)
  ends = outputs_with(stage1=learner), outputs_with(stage1=guide)
  objective = objectives.vid()
  params, _ = init(objective, *ends)
  own = params['normal0']
  np.testing.assert_allclose(own['log_scale'], 4.99322918271, rtol=1e-6)
  own['log_scale'] += jnp.arange(5.0) / 10
  x = windowed(np.float64(learner), (2, 6))
  x = linear(x, own['conv0']['kernel'])
  x = linear(np.maximum(x, 0), own['conv1']['kernel'])
  x = linear(np.maximum(x, 0), own['conv2']['kernel'])
  variance = np.log1p(np.exp(np.float64(own['log_scale']))) + 1e-5
  want = np.mean((x - guide) ** 2 / variance + np.log(variance)) / 2
  np.testing.assert_allclose(value(objective, *ends, params), want, rtol=1e-5)


def test_vid_starts_with_the_variance_of_its_setting():
  ends = (
    outputs_with(stage1=draw(2, 4, 4, 3)),
    outputs_with(stage1=draw(2, 4, 4, 5)),
  )
  params, _ = init(objectives.vid(variance=0.5), *ends)
  variance = jax.nn.softplus(params['normal0']['log_scale']) + 1e-5
  np.testing.assert_allclose(variance, 0.5, rtol=1e-5)


def test_ab_has_connectors_where_shapes_differ():
  ends = (
    outputs_with(stage1=SOURCE, stage2=S2),
    outputs_with(stage1=TARGET, stage2=T1),
  )
  params, _ = init(objectives.ab(), *ends)
  (connector,) = params.values()
  assert connector['conv']['kernel'].shape == (4, 4, 12, 8)  # doubled
  names = {'stages': ['stage2'], 'guide_stages': ['stage1']}
  alone = objectives.ab(**names)
  small = (
    outputs_with(stage2=S2[..., :3]),
    outputs_with(stage1=TARGET[:, :1, :1]),
  )
  params, _ = init(alone, *small)
  own = params['connector0']
  assert own['conv']['kernel'].shape == (4, 4, 3, 2)  # shrunk
  x, t = (np.float64(*end.taps.values()) for end in small)
  x = convolved(x, np.float64(own['conv']['kernel']), 1, 0)
  x = (x - x.mean(axis=(0, 1, 2))) / np.sqrt(x.var(axis=(0, 1, 2)) + 1e-5)
  hinge = np.where(t > 0, 1 - x, 1 + x)
  want = 3e-3 * np.sum(np.maximum(hinge, 0) ** 2) / len(x)
  np.testing.assert_allclose(value(alone, *small), want, rtol=1e-4)


def test_the_margin_and_the_scale_of_ab_are_settings():
  learner, guide = BEFORE
  got = value(objectives.ab(margin=0.2, scale=2.0), learner, guide)
  each = losses.activation_boundary(*_arrays((SOURCE, TARGET)), margin=0.2)
  np.testing.assert_allclose(got, 2 * 1.5 * np.mean(each), rtol=1e-5)


@pytest.mark.parametrize('name', ['fsp', 'kdsvd'])
def test_connectors_change_channels_and_keep_sizes(name):
  objective = objectives.make({'name': name, 'connect': True})
  params, _ = init(objective, *MAPS)
  kernels = {n: x['conv']['kernel'].shape for n, x in params.items()}
  assert kernels == {'connector0': (1, 1, 6, 8), 'connector1': (1, 1, 12, 16)}
  assert init(objective, MAPS[0], SMALLER) == ({}, {})


def leaky(x):
  return np.where(x > 0, x, 0.1 * x)


def passed(x, layers, norms=()):
  """Three 3 x 3 convolutions with leaky ReLUs, with or without BatchNorm."""
  for layer in layers:
    kernel, bias = np.float64(layer['kernel']), np.float64(layer['bias'])
    x = convolved(x, kernel, 1, 1) + bias
    if norms:
      x = (x - x.mean(axis=(0, 1, 2))) / np.sqrt(x.var(axis=(0, 1, 2)) + 1e-5)
    x = leaky(x)
  return x


def energy(x):
  x = np.mean(x**2, axis=-1).reshape(len(x), -1)
  return x / np.linalg.norm(x, axis=1, keepdims=True)


FACTORS = (
  outputs_with(stage1=draw(3, 4, 4, 3)),
  outputs_with(stage1=draw(3, 2, 4, 5, seed=1)),
)


def test_ft_is_its_formula():
  learner, guide = (np.float64(x.taps['stage1']) for x in FACTORS)
  objective = objectives.ft(reconstruction=0.25)
  params, memory = init(objective, *FACTORS)
  assert memory == {}
  first, second = params['paraphraser'], params['translator']
  factor = passed(guide, [first[f'encoder{i}'] for i in range(3)])
  again = passed(factor, [first[f'decoder{i}'] for i in range(3)])
  assert factor.shape[-1] == 2
  layers = [second[f'conv{i}'] for i in range(3)]
  translated = windowed(passed(learner, layers, norms='yes'), (2, 4))
  want = np.mean(np.abs(energy(translated) - energy(factor)))
  want += 0.25 * np.mean((again - guide) ** 2)
  np.testing.assert_allclose(value(objective, *FACTORS), want, rtol=1e-4)


def gradients(objective):
  params, memory = init(objective, *FACTORS)
  learner, guide = FACTORS

  @jax.jit
  @jax.grad
  def run(params):
    ends = dict(learner=learner, guide=guide, **NOW)
    return jnp.mean(objective.loss(params, memory, **ends)[0])

  return run(params)


def test_the_paraphraser_learns_to_reconstruct_alone():
  """Otherwise its factors would become easy to translate, and empty."""
  double, single = (
    gradients(objectives.ft(reconstruction=x)) for x in (0.2, 0.1)
  )
  for name, factor in (('paraphraser', 2), ('translator', 1)):
    for twice, once in zip(
      jax.tree.leaves(double[name]), jax.tree.leaves(single[name]), strict=True
    ):
      np.testing.assert_allclose(twice, factor * once, rtol=1e-4, atol=1e-9)
      assert np.any(once)
  alone = gradients(paraphraser())
  assert set(alone) == {'paraphraser'}
  assert all(np.any(x) for x in jax.tree.leaves(alone))


def test_a_trained_paraphraser_is_memory():
  objective = objectives.ft(reconstruction=0.0)
  params, memory = init(objective, *FACTORS)
  assert (set(params), set(memory)) == ({'translator'}, {'paraphraser'})
  other = jax.tree.map(lambda x: np.asarray(x) + np.float32(0.1), memory)
  run = jax.jit(lambda *args, **ends: objective.loss(*args, **ends, **NOW)[1])
  after = run(params, other, learner=FACTORS[0], guide=FACTORS[1])
  jax.tree.map(np.testing.assert_array_equal, after, other)
  assert value(objective, *FACTORS) != value(objective, *FACTORS, memory=other)
  before, _ = init(paraphraser(), *FACTORS)
  shapes = [tree.leaves(jax.tree.map(jnp.shape, x)) for x in (before, memory)]
  assert shapes[0] == shapes[1]


# What is refused.


@pytest.mark.parametrize('name', ['fsp', 'kdsvd'])
def test_other_channels_are_explained(name):
  message = (
    rf'{name} compares channels .* learner.s maps have \[6, 12\], the'
    r" guide's \[8, 16\]. Either set connect to True"
  )
  with pytest.raises(ValueError, match=message):
    init(objectives.make(name), *MAPS)


@pytest.mark.parametrize('name', ['fsp', 'kdsvd'])
def test_a_single_stage_is_refused(name):
  objective = objectives.make({'name': name, 'stages': ['last']})
  with pytest.raises(
    ValueError, match=f'{name} compares consecutive stages.* 1 tap'
  ):
    init(objective, *MAPS)


def test_maps_of_a_single_column_are_explained():
  vectors = outputs_with(stage1=S_VECTORS, stage2=S_VECTORS)
  with pytest.raises(ValueError, match="single one: set reading to 'channels'"):
    value(objectives.kdsvd('rows'), vectors, vectors)


def test_impossible_settings_are_explained():
  with pytest.raises(KeyError, match="no reading 'row'. Did you mean 'rows'"):
    objectives.kdsvd('row')
  with pytest.raises(
    ValueError, match='vid: variance must be above 1e-5, got 0'
  ):
    objectives.vid(variance=0)
  for ft in (objectives.ft, paraphraser):
    with pytest.raises(ValueError, match='ft: rate, .* must be above 0, got 0'):
      ft(rate=0)
  with pytest.raises(ValueError, match='cc: width must be a whole .* got 0'):
    objectives.cc(width=0)
  with pytest.raises(
    ValueError, match='ft: reconstruction must be 0 or more, got -1'
  ):
    objectives.ft(reconstruction=-1)
