"""A narrow network inside of a wide one: the same function, and refusals.

In float64, where rounding is negligible. The families of
jaxkd.models are in test_reparam_catalogue, gradients in test_reparam_scaling.
"""

import functools

import flax.linen as nn
import jax
import numpy as np
import pytest
import reparam_nets as nets
from reparam_nets import SHAPE, difference

from jaxkd import models, reparam, tree
from jaxkd.models.attention import Attention
from jaxkd.reparam import Rule

DOUBLE = np.float64
EXACT = 1e-12
# Three is the hardest: a third is not exact. The families have the others.
CASES = [('mixed', 2), ('mixed', 4), *((name, 3) for name in nets.MODULES)]


@functools.cache
def pair(name, ratio, **kwargs):
  """The narrow network, the wide one and the plan."""
  make, rules = nets.MODULES[name]
  narrow, wide = make(**kwargs), make(width=ratio, **kwargs)
  return narrow, wide, reparam.make_plan(narrow, wide, SHAPE, rules=rules)


def has_statistics(name):
  return bool(nets.shapes(nets.MODULES[name][0]())['batch_stats'])


# The function


@functools.cache
def narrow_results(name):
  """Logits in eval mode; logits and statistics in train mode."""
  net = nets.MODULES[name][0]()
  variables = nets.random_variables(net, dtype=DOUBLE)
  both = lambda v, x: (nets.forward(net)(v, x), nets.forward(net, True)(v, x))
  with jax.enable_x64(True):
    return nets.compiled(both)(variables, nets.images(dtype=DOUBLE))


@pytest.mark.parametrize(('name', 'ratio'), CASES)
def test_wide_and_narrow_networks_have_the_same_logits(name, ratio):
  narrow, wide, plan = pair(name, ratio)
  train = ratio == 3 and has_statistics(name)

  def grown(variables, image):
    variables = reparam.expand(variables, plan)
    again = reparam.extract(variables['params'], plan)
    trained = nets.forward(wide, True)(variables, image) if train else None
    return nets.forward(wide)(variables, image), trained, again, variables

  variables = nets.random_variables(narrow, dtype=DOUBLE)
  with jax.enable_x64(True):
    out, trained, again, whole = nets.compiled(grown)(
      variables, nets.images(dtype=DOUBLE)
    )
  assert out.dtype == DOUBLE
  want, (want_trained, want_stats) = narrow_results(name)
  assert difference(out, want) <= EXACT
  # Half and a quarter of a number are exact, a third is not.
  for path, leaf in tree.leaves(variables['params']).items():
    assert difference(tree.leaves(again)[path], leaf) <= (ratio == 3) * 1e-15
  if trained:
    assert difference(trained[0], want_trained) <= EXACT
    expected = reparam.expand(
      {'params': variables['params'], 'batch_stats': want_stats}, plan
    )['batch_stats']
    for path, leaf in tree.leaves(expected).items():
      got = tree.leaves(trained[1])[path]
      assert difference(got, leaf) <= 1e-6  # expanded in float32
      old = tree.leaves(whole['batch_stats'])[path]
      assert difference(old, leaf) > 1e-3, 'a statistic that has not moved'


@pytest.mark.parametrize('ratio', [1.5, 2.5])
def test_any_ratio_is_possible_without_a_norm_over_channels(ratio):
  narrow, wide, plan = pair('mixed', ratio, layer_norm=False)
  assert plan.params['middle/kernel'].axes[2].copies.max() == np.ceil(ratio)

  def both(variables, image):
    grown = reparam.expand(variables, plan)
    again = reparam.extract(grown['params'], plan)
    results = [
      nets.forward(net, True)(v, image)
      for net, v in ((narrow, variables), (wide, grown))
    ]
    plain = [nets.forward(narrow)(variables, image)]
    return *results, again, plain, nets.forward(wide)(grown, image)

  variables = nets.random_variables(narrow, dtype=DOUBLE)
  with jax.enable_x64(True):
    small, large, again, (plain,), out = nets.compiled(both)(
      variables, nets.images(dtype=DOUBLE)
    )
  assert difference(out, plain) <= EXACT
  assert difference(large[0], small[0]) <= EXACT
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-15),
    again,
    variables['params'],
  )
  for path, leaf in tree.leaves(small[1]).items():
    places = np.arange(tree.leaves(large[1])[path].size) % leaf.size
    assert difference(tree.leaves(large[1])[path], leaf[places]) <= EXACT


def test_replicas_are_consecutive_and_divided_once():
  narrow, _, plan = pair('mixed', 3)
  variables = nets.random_variables(narrow)
  grown = reparam.expand(variables, plan)
  old, new = (tree.leaves(v['params']) for v in (variables, grown))
  reads = {'middle/kernel': 2, 'shortcut/kernel': 2, 'hidden/kernel': 0}
  tiles = {  # by hand, axis by axis
    'first/kernel': (1, 1, 1, 3),
    'depthwise/kernel': (1, 1, 1, 3),
    'middle/kernel': (1, 1, 3, 3),
    'shortcut/kernel': (1, 1, 3, 3),
    'hidden/kernel': (3, 3),
    'head/kernel': (3, 1),
    'head/bias': (1,),
  }
  for path, array in old.items():
    want = np.tile(array, tiles.get(path, (3,)))
    want = want / 3 if path in {*reads, 'head/kernel'} else want
    np.testing.assert_allclose(new[path], want, rtol=1e-6, err_msg=path)
  stats = tree.leaves(grown['batch_stats'])
  for path, array in tree.leaves(variables['batch_stats']).items():
    np.testing.assert_array_equal(stats[path], np.tile(array, 3))


# Attention


class Head(nn.Module):
  """Self-attention over the pixels of an embedded image, ours or flax's."""

  width: float = 1
  fused: bool = True

  @nn.compact
  def __call__(self, x, train=False):
    d, heads = round(4 * self.width), round(2 * self.width)
    x = nn.Conv(d, (4, 4), strides=4, name='embed')(x).reshape(len(x), -1, d)
    if self.fused:
      x = Attention(heads, 3, dtype=None, name='attention')(x)
    else:
      x = nn.MultiHeadDotProductAttention(
        heads, qkv_features=3 * heads, name='attention'
      )(x)
    return nn.Dense(nets.CLASSES, name='head')(x.mean(1))


def split(params):
  """The parameters of the fused attention as those of the separate one."""
  fused = params['attention']
  kernel, bias = fused['qkv']['kernel'], fused['qkv']['bias']
  separate = {
    part: {'kernel': kernel[:, i], 'bias': bias[i]}
    for i, part in enumerate(('query', 'key', 'value'))
  }
  return {**params, 'attention': {**separate, 'out': fused['out']}}


@functools.cache
def attentions():
  """Logits and queries, keys and values, narrow and at r = 2; both kinds."""
  results = {}
  variables = nets.random_variables(Head(), dtype=DOUBLE)
  keep = dict(capture_intermediates=lambda m, _: m.name == 'qkv')
  for fused in (True, False):
    narrow, wide = Head(1, fused), Head(2, fused)
    plan = reparam.make_plan(narrow, wide, SHAPE)
    params = variables['params'] if fused else split(variables['params'])
    start = {'params': params, 'batch_stats': {}}
    with jax.enable_x64(True):
      for net, arrays in (
        (narrow, start),
        (wide, reparam.expand(start, plan)),
      ):
        apply = functools.partial(net.apply, mutable=['intermediates'], **keep)
        results[fused, net.width] = nets.compiled(apply)(
          {'params': arrays['params']}, nets.images(dtype=DOUBLE)
        )
  return results


def maps(intermediates):
  """The weights of attention [B, heads, N, N], from queries and keys."""
  ((qkv,),) = (
    x['qkv']['__call__'] for x in intermediates['intermediates'].values()
  )
  q, k, _ = np.moveaxis(np.asarray(qkv), 2, 0)
  scores = np.einsum('bqhd,bkhd->bhqk', q, k) / np.sqrt(q.shape[-1])
  weights = np.exp(scores - scores.max(-1, keepdims=True))
  return weights / weights.sum(-1, keepdims=True)


def test_heads_of_every_replica_have_the_narrow_attention_weights():
  small, large = (maps(attentions()[True, width][1]) for width in (1, 2))
  assert small.shape[1] == 2 and difference(small[:, 0], small[:, 1]) > 1e-2
  for head in range(4):
    assert difference(large[:, head], small[:, head % 2]) <= EXACT


def test_fused_and_separate_attention_expand_to_the_same_function():
  results = [logits for logits, _ in attentions().values()]
  for other in results[1:]:
    assert difference(other, results[0]) <= 1e-6  # our logits are float32


@pytest.mark.parametrize('fused', [True, False])
def test_attention_without_a_norm_expands_by_one_and_a_half(fused):
  """One of the heads has two copies, and the layer after it is divided."""
  narrow, wide = Head(1, fused), Head(1.5, fused)
  plan = reparam.make_plan(narrow, wide, SHAPE)

  def both(variables, image):
    grown = reparam.expand(variables, plan)
    again = reparam.extract(grown['params'], plan)
    return narrow.apply(variables, image), wide.apply(grown, image), again

  variables = nets.random_variables(narrow)
  want, got, again = nets.compiled(both)(variables, nets.images())
  assert difference(got, want) <= 1e-5
  for path, array in tree.leaves(variables['params']).items():
    assert difference(tree.leaves(again)[path], array) <= 1e-6, path


# What is refused


class Gain(nn.Module):
  """A linear layer, and leaves that no rule matches."""

  width: int = 1
  scalar: bool = False

  @nn.compact
  def __call__(self, x, train=False):
    x = nn.Dense(4 * self.width, name='hidden')(x.mean((1, 2)))
    if self.scalar:
      return nn.Dense(3, name='head')(nn.PReLU(name='prelu')(x))
    gain = self.param('gain', nn.initializers.ones, (4 * self.width,))
    return nn.Dense(3, name='head')(x * gain[None])


def test_a_rule_may_name_a_leaf_of_any_name_and_shape():
  narrow, wide = Gain(), Gain(2)
  rules = (Rule('gain', 'out'), *reparam.RULES)
  plan = reparam.make_plan(narrow, wide, SHAPE, rules=rules)
  assert plan.params['gain'].axes[0].wide == (8,)
  narrow, wide = Gain(scalar=True), Gain(2, scalar=True)
  plan = reparam.make_plan(narrow, wide, SHAPE)  # a scalar cannot grow
  grown = reparam.expand(nets.random_variables(narrow), plan)
  assert grown['params']['prelu']['negative_slope'].shape == ()


class Layers(nn.Module):
  """One layer between a convolution and a head."""

  width: float
  layer: object

  @nn.compact
  def __call__(self, x, train=False):
    x = nn.Conv(round(8 * self.width), (3, 3), name='first')(x)
    x = self.layer(x)
    return nn.Dense(3, name='head')(x.mean((1, 2)))


def grouped(width, groups):
  conv = nn.Conv(round(8 * width), (3, 3), feature_group_count=groups)
  return Layers(width, conv)


def normed(width, layer=nn.LayerNorm):
  return Layers(width, layer())


class Fused(nn.Module):
  """Query, key and value next to each other on one axis."""

  width: int = 1

  @nn.compact
  def __call__(self, x, train=False):
    x = nn.Dense(24 * self.width, name='qkv')(x.mean((1, 2)))
    return nn.Dense(3, name='head')(x)


Grouped = functools.partial(nn.GroupNorm, 4)
Unscaled = functools.partial(nn.LayerNorm, use_scale=False)
REFUSED = {
  'a leaf no rule covers': (
    (Gain(), Gain(2)),
    r"no rule matches gain \(4,\), .* to \(8,\).*Rule\('gain', 'out'\)",
  ),
  'another depth': (
    (models.build('resnet8', 3), models.build('resnet14', 3)),
    'must have the same architecture.*stage1_block1/bn1/bias',
  ),
  'branches in one only': (
    (nets.family('resnet'), nets.family('resnet', 2, 2)),
    'only one of them has.*branch_pool',
  ),
  'a narrower teacher': (
    (nets.family('resnet', 2), nets.family('resnet')),
    r'cannot grow from \d+ to \d+',
  ),
  'another number of classes': (
    (models.build('resnet8', 3), models.build('resnet8', 2)),
    'head/.* cannot grow from 3 to 2',
  ),
  'LayerNorm': (
    (normed(1), normed(1.5)),
    'layer/bias grows from 8 to 12.*LayerNorm.*use a whole ratio',
  ),
  'RMSNorm': (
    (normed(1, nn.RMSNorm), normed(1.5, nn.RMSNorm)),
    'scale grows from 8 to 12.*use a whole ratio',
  ),
  'LayerNorm without a scale': (
    (normed(1, Unscaled), normed(1.5, Unscaled)),
    'layer/bias grows from 8 to 12.*use a whole ratio',
  ),
  'GroupNorm with as many groups': (
    (normed(1, Grouped), normed(2, Grouped)),
    'layer has 4 groups for 8 channels and 4 groups .* needs 8 groups',
  ),
  'fused attention without a rule': (
    (Fused(), Fused(2)),
    'no rule matches qkv/kernel .1, 24., which grows to .1, 48.',
  ),
  'larger groups': (
    (grouped(1, 2), grouped(2, 2)),
    'the groups of .* grow from 4 to 8 channels.*more groups',
  ),
  'heads of another size': (
    (
      Layers(1, nn.MultiHeadDotProductAttention(2, qkv_features=6)),
      Layers(2, nn.MultiHeadDotProductAttention(2, qkv_features=12)),
    ),
    r'axis \d of layer/(query|key|value)/.* cannot grow from 3 to 6',
  ),
}


@pytest.mark.parametrize('case', REFUSED)
def test_leaves_that_cannot_be_expanded_are_refused_by_name(case):
  (narrow, wide), message = REFUSED[case]
  with pytest.raises(ValueError, match=message):
    reparam.make_plan(narrow, wide, SHAPE)


def test_pieces_must_add_up_to_the_axis():
  narrow, wide = nets.Joined(1, False), nets.Joined(2, False)
  rule = Rule('reader/kernel', '- - in out', pieces=((2, (3, 1)),))
  with pytest.raises(ValueError, match=r'\(3, 1\).* are 4 channels.* has 5'):
    reparam.make_plan(narrow, wide, SHAPE, rules=(rule, *reparam.RULES))


def test_an_unknown_scaling_is_refused():
  with pytest.raises(ValueError, match="'copy', 'official'.*got 'officail'"):
    reparam.make_plan(Gain(), Gain(2), SHAPE, scaling='officail')


def test_variables_that_do_not_fit_the_plan_are_listed():
  narrow, wide, plan = pair('mixed', 2)
  with pytest.raises(
    ValueError, match=r'narrow network.*(\n.*)+depthwise/kernel'
  ):
    reparam.expand(nets.random_variables(wide), plan)
  with pytest.raises(
    ValueError, match=r'wide network.*(\n.*)+depthwise/kernel'
  ):
    reparam.extract(nets.random_variables(narrow)['params'], plan)


def test_batch_stats_may_be_missing():
  narrow, wide = nets.Attentive(1), nets.Attentive(2)
  image = nets.images()
  variables = narrow.init(jax.random.key(0), image)
  assert 'batch_stats' not in variables
  plan = reparam.make_plan(narrow, wide, SHAPE)
  grown = reparam.expand(variables, plan)
  want, got = narrow.apply(variables, image), wide.apply(grown, image)
  assert difference(got, want) <= 1e-5
  merged = reparam.merge(variables)
  tree.fit(reparam.fold_biases(merged, narrow, SHAPE), merged, 'the network')
