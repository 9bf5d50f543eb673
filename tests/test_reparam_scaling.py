"""A narrow network inside of a wide one: gradients, scalings, noise.

The factors are those of the published code, leaf by leaf.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reparam_nets as nets
from reparam_nets import SHAPE, difference

from jaxkd import reparam, tree

DOUBLE = np.float64
EXACT = 1e-12
RATIO = 3  # a third is not exact, and there are replicas beside the first two


def first(array):
  """Where the narrow array is in the wide one."""
  return tuple(slice(n) for n in array.shape)


@functools.cache
def mixed(ratio, scaling='copy'):
  """The narrow network, the wide one and the plan."""
  narrow, wide = nets.Mixed(), nets.Mixed(ratio)
  plan = reparam.make_plan(narrow, wide, SHAPE, scaling=scaling)
  return narrow, wide, plan


# Gradients


@functools.cache
def gradients():
  """Gradients of one loss: of the narrow network with respect to its own
  parameters, and to the wide ones through `extract`; of the wide network."""
  narrow, wide, plan = mixed(RATIO)
  label = jnp.array([0, 3, 1])

  def loss(net, params, stats, image):
    variables = {'params': params, 'batch_stats': stats}
    out, _ = nets.forward(net, train=True)(variables, image)
    return optax.softmax_cross_entropy_with_integer_labels(out, label).mean()

  def all_of_them(variables, image):
    grown = reparam.expand(variables, plan)
    own = functools.partial(loss, narrow)
    return (
      jax.grad(own)(variables['params'], variables['batch_stats'], image),
      jax.grad(
        lambda p: own(reparam.extract(p, plan), variables['batch_stats'], image)
      )(grown['params']),
      jax.grad(functools.partial(loss, wide))(
        grown['params'], grown['batch_stats'], image
      ),
    )

  variables = nets.random_variables(narrow, dtype=DOUBLE)
  with jax.enable_x64(True):
    results = nets.compiled(all_of_them)(variables, nets.images(dtype=DOUBLE))
  return [
    {path: np.asarray(leaf) for path, leaf in tree.leaves(grads).items()}
    for grads in results
  ]


def factor(path, r):
  """The factor of the narrow network's gradient on its block."""
  reading = {'middle', 'shortcut', 'hidden', 'head'}
  layer, kind = path.split('/')
  return r if kind == 'kernel' and layer in reading else 1


def test_the_narrow_gradient_is_scaled_on_its_block_and_zero_elsewhere():
  own, through, _ = gradients()
  for path, small in own.items():
    inside = first(small)
    # The gradient of a bias before BatchNorm is rounding alone.
    scale = max(np.max(np.abs(small)), 1e-3)
    want = factor(path, RATIO) * small
    rest = np.array(through[path])
    assert np.max(np.abs(rest[inside] - want)) <= EXACT * scale, path
    rest[inside] = 0
    assert not np.any(rest), path


def test_all_blocks_of_the_wide_network_have_the_same_gradient():
  own, _, wide = gradients()
  for path in ('middle/kernel', 'shortcut/kernel', 'hidden/kernel'):
    want = own[path] / RATIO
    i, o = own[path].shape[-2:]
    for a, b in np.ndindex(RATIO, RATIO):
      block = wide[path][..., a * i : (a + 1) * i, b * o : (b + 1) * o]
      assert difference(block, want) <= 1e-10, (path, a, b)
  for path, share in {'first/kernel': 1 / RATIO, 'head/bias': 1.0}.items():
    block = wide[path][first(own[path])]
    assert difference(block, share * own[path]) <= 1e-10
  head = wide['head/kernel'][first(own['head/kernel'])]
  assert difference(head, own['head/kernel']) <= 1e-10


# The scaling of the published code


def published(path, array, r):
  """The array that the published code stores for r, tiled, and its factor."""
  layer, kind = path.split('/')
  in_axis = {'middle', 'shortcut', 'hidden', 'head'}
  tiles = [1] * array.ndim
  if layer != 'head':
    tiles[-1] = r
  if kind == 'kernel' and layer in in_axis:
    tiles[-2] = r
  linear = layer in {'first', 'middle', 'shortcut', 'hidden'}
  return np.tile(array, tiles), 1 / r if linear else 1.0


@functools.cache
def scaled(make, ratio, scaling):
  """The variables, those of the wide network, these unscaled and extracted;
  ones, pulled back through both maps."""
  narrow, wide = make(1), make(ratio)
  plan = reparam.make_plan(narrow, wide, SHAPE, scaling=scaling)

  def maps(variables):
    grown = reparam.expand(variables, plan)
    results = [variables['params'], grown['params']]
    pulled = []
    for function in (reparam.unscale, reparam.extract):
      function = functools.partial(function, plan=plan)
      result, pull = jax.vjp(function, grown['params'])
      results.append(result)
      pulled.append(pull(jax.tree.map(jnp.ones_like, result))[0])
    return [*results, *pulled, grown['batch_stats']]

  results = nets.compiled(maps)(nets.random_variables(narrow))
  return [tree.leaves(jax.tree.map(np.asarray, x)) for x in results]


def test_official_scaling_stores_the_arrays_of_the_published_code():
  variables, grown, computed, again, _, pulled, _ = scaled(
    nets.Mixed, RATIO, 'official'
  )
  _, copies, *_ = scaled(nets.Mixed, RATIO, 'copy')
  for path, array in variables.items():
    tiled, scale = published(path, array, RATIO)
    assert difference(grown[path], scale * tiled) <= 2e-7, path
    assert difference(computed[path], copies[path]) <= 2e-7, path
    assert difference(again[path], array) <= 2e-7, path
    # `extract` multiplies what `expand` has divided, and so the gradient,
    # which is zero elsewhere.
    block = np.zeros_like(grown[path])
    block[first(array)] = 1 / scale
    assert difference(pulled[path], block) <= 2e-7, path


def test_scalings_differ_in_the_gradients_of_first_and_last_layer():
  """First layer and biases get r times the copies' gradient, the last 1 / r."""
  *_, pulled, _, _ = scaled(nets.Mixed, RATIO, 'official')
  layers = {'first', 'middle', 'hidden'}
  want = dict.fromkeys([f'{layer}/bias' for layer in layers], RATIO)
  want |= {'first/kernel': RATIO, 'head/kernel': 1 / RATIO}
  for path, got in pulled.items():
    np.testing.assert_allclose(got, want.get(path, 1), rtol=1e-6, err_msg=path)


def test_official_activations_are_copies_divided_by_the_ratio():
  """An MLP of ReLU needs none of the published code's rescaled layers, so its
  wide network can be run there on the stored arrays."""
  narrow, wide = (nets.family('mlp', width) for width in (1, 3))
  plan = reparam.make_plan(narrow, wide, SHAPE, scaling='official')
  variables = nets.random_variables(narrow)
  stored = reparam.expand(variables, plan)
  computed = {'params': reparam.unscale(stored['params'], plan)}
  small = nets.compiled(narrow.apply)(variables, nets.images())
  run = nets.compiled(wide.apply)
  published, ours = (
    run({'params': v['params']}, nets.images()) for v in (stored, computed)
  )
  for large, share in ((published, 3), (ours, 1)):
    assert difference(large.logits, small.logits) <= 1e-6
    for tap, array in small.taps.items():
      assert difference(large.taps[tap], np.tile(array, 3) / share) <= 1e-6


@pytest.mark.parametrize('scaling', ['copy', 'official'])
def test_branches_have_the_published_factors(scaling):
  make = functools.partial(nets.Branched, branches=6)
  _, grown, _, _, _, pulled, constants = scaled(make, 2, scaling)
  dense = ['kernel', 'branch_pool', 'branch_frequency', 'branch_mixed']
  dense = dict.fromkeys([*dense, 'branch_square', 'branch_point'], 2)
  factors = {  # of the block; 1 for the others
    'copy': {'middle': {**dense, 'branch_mix': 2}, 'head': {'kernel': 2}},
    'official': {
      'first': {**dense, 'bias': 2},
      'middle': {**dense, 'branch_mix': 2, 'bias': 2},
    },
  }
  for path, got in pulled.items():
    layer, kind = path.split('/')
    rho = factors[scaling].get(layer, {}).get(kind, 1)
    assert set(np.unique(got)) <= {0, rho}, path
    assert np.any(got), path
  assert len(grown) == 3 * 10 + 3 * 2 + 2
  # Constants are not trained; in the wide network they are copies, too.
  identity = np.tile(np.eye(4), (2, 2)) / 2
  np.testing.assert_array_equal(constants['middle/identity'], identity)
  np.testing.assert_array_equal(constants['first/identity'], np.eye(1))
  np.testing.assert_array_equal(
    constants['depthwise/identity'], np.ones((1, 12))
  )
  waves = np.tile(nets.frequency(3, 6), 2)
  np.testing.assert_allclose(constants['middle/frequency'], waves, atol=1e-6)


# Noise


@functools.cache
def noise_of(relative, noise=1e-2):
  """The arrays that grow without noise, and the noise."""
  narrow, _, plan = mixed(2)

  def both(variables, key):
    plain = reparam.expand(variables, plan)
    noisy = reparam.expand(variables, plan, key, noise, relative)
    return plain, noisy

  results = nets.compiled(both)(
    nets.random_variables(narrow), jax.random.key(0, impl='rbg')
  )
  plain, noisy = (tree.leaves(x) for x in results)
  return plain, {path: np.asarray(noisy[path] - plain[path]) for path in plain}


@pytest.mark.parametrize('relative', [False, True])
def test_noise_of_every_expanded_array_has_the_requested_size(relative):
  plain, noise = noise_of(relative)
  samples = []
  for path, array in noise.items():
    if path.startswith('batch_stats') or path == 'params/head/bias':
      # The statistics are those of copied activations, the bias is not copied.
      assert not np.any(array), path
      continue
    assert np.all(array), path  # each copy has its own
    size = 1e-2 * (np.std(plain[path]) if relative else 1)
    tolerance = 3 / np.sqrt(2 * array.size)  # three standard errors
    np.testing.assert_allclose(
      np.std(array), size, rtol=tolerance, err_msg=path
    )
    samples.append(np.ravel(array)[:8] / size)
  assert len(np.unique(np.round(samples, 3), axis=0)) == len(samples)


@pytest.mark.parametrize('make', [nets.Mixed, nets.Attentive])
def test_noise_as_published_hardly_changes_the_logits(make):
  narrow, wide = make(1), make(2)
  plan = reparam.make_plan(narrow, wide, SHAPE)

  def both(variables, image, key):
    grown = reparam.expand(variables, plan, key, 1e-6)
    results = nets.forward(wide)(grown, image)
    return nets.forward(narrow)(variables, image), results

  want, got = nets.compiled(both)(
    nets.random_variables(narrow),
    nets.images(64),
    jax.random.key(0, impl='rbg'),
  )
  change = np.mean(np.abs(got - want)) / np.mean(np.abs(want))
  assert 0 < change <= 2e-3
  agree = np.argmax(got, -1) == np.argmax(want, -1)
  assert np.mean(agree) >= 0.99


def test_noise_needs_a_key():
  narrow, _, plan = mixed(2)
  with pytest.raises(ValueError, match='noise=1e-06 needs a key'):
    reparam.expand(nets.random_variables(narrow), plan, noise=1e-6)
