"""EfficientNet, ConvNeXt and DeiT with two heads: formulas and properties."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_models import SMALL, fresh, images
from test_models_vit import batch_norm, convolve, dense, draw, gelu, layer_norm

from jaxkd import models, objectives
from jaxkd.losses import sizes
from jaxkd.models import convnext, efficientnet
from jaxkd.types import Outputs

SIGMOID = lambda x: 1 / (1 + np.exp(-x))


def double(variables):
  return jax.tree.map(lambda x: np.asarray(x, np.float64), variables)


def normal(*shape, seed=0):
  rng = np.random.default_rng(seed)
  return rng.normal(size=shape).astype(np.float32)


def block(**changes):
  sizes = dict(
    expansion=2,
    size=5,
    features=4,
    stride=1,
    squeezed=3,
    drop_path=0.0,
    activation='silu',
    epsilon=1e-3,
    settings={'dtype': jnp.float32, 'padding': 'symmetric'},
  )
  return efficientnet.Block(**{**sizes, **changes})


# EfficientNet


@pytest.mark.parametrize('activation', ['silu', 'relu6'])
def test_an_efficientnet_block_is_its_formula(activation):
  x = 3 * normal(2, 4, 5, 4)
  net = block(activation=activation)
  variables = draw(net, x, train=False)
  p, stats = (double(variables)[k] for k in ('params', 'batch_stats'))
  act = {
    'silu': lambda x: x * SIGMOID(x),
    'relu6': lambda x: np.clip(x, 0, 6),
  }[activation]

  def conv(name, x, groups=1):
    kernel = p[f'conv_{name}']['kernel']
    layer = {'kernel': kernel, 'bias': 0}
    y = convolve(layer, x, 1, len(kernel) // 2, groups)
    scale = np.sqrt(
      (stats[f'bn_{name}']['var'] + 1e-5) / (stats[f'bn_{name}']['var'] + 1e-3)
    )
    norm = {**p[f'bn_{name}'], 'scale': p[f'bn_{name}']['scale'] * scale}
    return batch_norm(norm, stats[f'bn_{name}'], y)

  y = act(conv('expand', x))
  y = act(conv('depthwise', y, groups=8))
  gate = y.mean(axis=(1, 2), keepdims=True)
  gate = act(convolve(p['se']['reduce'], gate, 1, 0))
  y = y * SIGMOID(convolve(p['se']['expand'], gate, 1, 0))
  want = x + conv('project', y)
  got = jax.jit(functools.partial(net.apply, train=False))(variables, x)
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_an_expansion_of_one_has_no_convolution():
  net = block(expansion=1, squeezed=0)
  params = draw(net, normal(1, 4, 4, 4), train=False)['params']
  assert set(params) == {
    'bn_depthwise',
    'bn_project',
    'conv_depthwise',
    'conv_project',
  }


def test_rates_of_stochastic_depth_rise_linearly_to_the_last_block():
  net = models.build('efficientnet_b0', 10, drop_path=0.32)
  rates = [sizes['drop_path'] for _, sizes in net.blocks()]
  np.testing.assert_allclose(rates, 0.32 * np.arange(16) / 16)


# ConvNeXt


def test_a_convnext_block_is_its_formula():
  x = normal(2, 4, 5, 3)
  net = convnext.Block(0.0)
  variables = draw(net, x, train=False)
  p = double(variables)['params']
  y = layer_norm(p['norm'], convolve(p['depthwise'], x, 1, 3, groups=3))
  y = dense(p['fc2'], gelu(dense(p['fc1'], y)))
  got = jax.jit(functools.partial(net.apply, train=False))(variables, x)
  np.testing.assert_allclose(got, x + p['gamma'] * y, rtol=1e-4, atol=1e-4)


def test_a_convnext_halves_after_a_norm():
  taps = jax.jit(SMALL['convnext'].apply)(fresh('convnext'), images()).taps
  p = double(fresh('convnext'))['params']
  stem = layer_norm(p['norm_stem'], convolve(p['conv_stem'], images(), 2, 0))
  np.testing.assert_allclose(taps['stem'], stem, atol=1e-4)
  assert taps['stage1'].shape == (4, 4, 4, 4)
  assert taps['stage2'].shape == (4, 2, 2, 8)


def test_an_image_without_pixels_for_the_last_stage_is_refused():
  net = models.build('convnext_tiny', 10)
  image = jax.ShapeDtypeStruct((1, 16, 32, 3), jnp.float32)
  with pytest.raises(ValueError, match=r'16 x 32 is too small.*32 x 32.* 2\n'):
    jax.eval_shape(net.init, jax.random.key(0), image)
  small = models.build('convnext_tiny', 10, stem=2)
  jax.eval_shape(small.init, jax.random.key(0), image)


# Stochastic depth


@pytest.mark.parametrize(
  'make', [lambda rate: block(drop_path=rate), convnext.Block]
)
def test_an_example_skips_a_block_or_has_a_larger_branch(make):
  rate, x = 0.25, normal(64, 4, 4, 4)
  variables = draw(make(rate), x, train=False)

  def branch(rate, train=True, **kwargs):
    run = functools.partial(make(rate).apply, train=train, **kwargs)
    y, _ = run(variables, x, mutable=['batch_stats'])
    return np.asarray(y) - x

  whole = branch(0.0)
  got = branch(rate, rngs={'dropout': jax.random.key(3)})
  skipped = ~np.any(got, axis=(1, 2, 3))
  assert 4 < sum(skipped) < 32
  want = np.where(skipped[:, None, None, None], 0, whole / (1 - rate))
  np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())
  assert np.all(np.any(branch(rate, train=False), axis=(1, 2, 3)))


# DeiT with a distillation token


@functools.cache
def distilled():
  """Outputs of a small network for `images`."""
  net = SMALL['deit_distilled']
  return jax.jit(net.apply)(fresh('deit_distilled'), images())


def test_logits_are_the_mean_of_both_heads():
  logits, taps = distilled()
  p = fresh('deit_distilled')['params']
  by_class = np.asarray(taps['pooled']) @ p['head']['kernel']
  by_teacher = np.asarray(taps['pooled_dist']) @ p['head_dist']['kernel']
  by_class = by_class + p['head']['bias'][None]
  by_teacher = by_teacher + p['head_dist']['bias'][None]
  np.testing.assert_allclose(taps['head_class'], by_class, atol=1e-5)
  np.testing.assert_allclose(taps['head_dist'], by_teacher, atol=1e-5)
  np.testing.assert_allclose(logits, (by_class + by_teacher) / 2, atol=1e-5)
  assert np.abs(by_class - by_teacher).max() > 0.1


def test_each_head_reads_its_own_token():
  net, variables = SMALL['deit_distilled'], fresh('deit_distilled')
  params = variables['params']

  def taps_without(name):
    zero = {**params, name: jax.tree.map(jnp.zeros_like, params[name])}
    return jax.jit(net.apply)({**variables, 'params': zero}, images()).taps

  same, other = (taps_without(name) for name in ('head_dist', 'head'))
  np.testing.assert_allclose(
    same['head_class'], distilled().taps['head_class'], atol=1e-6
  )
  assert not np.any(same['head_dist']) and not np.any(other['head_class'])


def test_a_map_of_its_tokens_has_only_the_patches():
  tokens = np.arange(2 * 6 * 3, dtype=np.float32).reshape(2, 6, 3)
  got = sizes.as_map(jnp.asarray(tokens), (8, 8))
  np.testing.assert_array_equal(got, tokens[:, 2:].reshape(2, 2, 2, 3))


def hard_loss(learner, guide, labels):
  loss, _ = objectives.make('hard_kd').loss(
    {},
    {},
    learner=learner,
    guide=guide,
    batch={'label': labels},
    key=jax.random.key(0),
    epoch=jnp.zeros(()),
    epochs=1,
  )
  return loss


def test_hard_distillation_teaches_each_head_its_own_targets():
  logits, taps = distilled()
  guide = Outputs(jnp.asarray(normal(4, 5, seed=3)), {})
  labels = jnp.asarray([1, 0, 3, 3])

  def entropy(logits, classes):
    x = np.asarray(logits, np.float64)
    x = x - np.log(np.sum(np.exp(x), axis=1, keepdims=True))
    return -x[np.arange(4), classes]

  decisions = np.argmax(guide.logits, axis=1)
  assert np.any(decisions != labels)
  want = entropy(taps['head_class'], labels) / 2
  want = want + entropy(taps['head_dist'], decisions) / 2
  got = hard_loss(distilled(), guide, labels)
  np.testing.assert_allclose(got, want, rtol=1e-5)
  # A network with one head learns both with it.
  want = (entropy(logits, labels) + entropy(logits, decisions)) / 2
  got = hard_loss(Outputs(logits, {}), guide, labels)
  np.testing.assert_allclose(got, want, rtol=1e-5)
