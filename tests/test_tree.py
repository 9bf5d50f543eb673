"""Trees of arrays by name."""

import collections

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd import tree

names = st.text('abcdef', min_size=1, max_size=3)
trees = st.dictionaries(
  names,
  st.recursive(
    st.integers(0, 9).map(np.float32),
    lambda inner: st.dictionaries(names, inner, min_size=1, max_size=3),
    max_leaves=6,
  ),
  max_size=3,
)


def network() -> dict:
  return {
    'stem': {'kernel': np.ones((3, 3, 3, 16)), 'scale': np.zeros(16)},
    'head': {'kernel': np.ones((16, 10)), 'bias': np.zeros(10)},
  }


def test_leaves_have_names_in_the_order_of_the_tree():
  named = tree.leaves(network())
  assert list(named) == [
    'head/bias',
    'head/kernel',
    'stem/kernel',
    'stem/scale',
  ]
  for leaf, want in zip(
    named.values(), jax.tree.leaves(network()), strict=True
  ):
    np.testing.assert_array_equal(leaf, want)


@hypothesis.given(trees)
def test_from_leaves_undoes_leaves(arrays):
  assert tree.from_leaves(tree.leaves(arrays)) == arrays


@pytest.mark.parametrize(
  ('pattern', 'want'),
  [
    ('kernel$', {'stem/kernel', 'head/kernel'}),
    ('^head/', {'head/kernel', 'head/bias'}),
    ('em/s', {'stem/scale'}),
    ('nothing', set()),
  ],
)
def test_select_searches_the_whole_name(pattern, want):
  mask = tree.select(network(), pattern)
  assert {
    name for name, selected in tree.leaves(mask).items() if selected
  } == want
  assert jax.tree.structure(mask) == jax.tree.structure(network())


def test_count_accepts_scalars_and_shapes():
  shapes = {'a': jax.ShapeDtypeStruct((3, 4), jnp.float32), 'b': jnp.zeros(())}
  assert tree.count(shapes) == 13
  assert tree.count({}) == 0


def test_fit_returns_the_order_of_the_model():
  checkpoint = jax.tree.map(np.negative, network())
  shapes = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, network()))
  # JAX keeps the order of an OrderedDict, and sorts the names of a dict.
  model = collections.OrderedDict(reversed(shapes.items()))
  assert list(model) == ['stem', 'head']
  fitted = tree.fit(checkpoint, model, 'the checkpoint')
  assert jax.tree.structure(fitted) == jax.tree.structure(model)
  jax.tree.map(np.testing.assert_array_equal, dict(fitted), checkpoint)


def test_fit_names_every_difference_at_once():
  checkpoint = network()
  del checkpoint['head']['bias']
  checkpoint['fc'] = {'bias': np.zeros(100)}
  checkpoint['stem']['kernel'] = np.ones((16, 3, 3, 3))
  with pytest.raises(ValueError) as error:
    tree.fit(checkpoint, network(), 'the checkpoint')
  assert str(error.value).splitlines() == [
    'the checkpoint does not fit the model:',
    '  - head/bias (10,): missing',
    '  + fc/bias (100,): not in the model',
    '  ! stem/kernel: checkpoint (16, 3, 3, 3), model (3, 3, 3, 16)',
  ]


def test_equal_trees_do_not_differ():
  assert tree.differences(network(), network()) == []


def test_digest_is_of_the_content():
  arrays = network()
  reordered = collections.OrderedDict(reversed(sorted(arrays.items())))
  on_device = jax.tree.map(jnp.asarray, jax.tree.map(np.float32, arrays))
  assert tree.digest(reordered) == tree.digest(arrays)
  assert tree.digest(on_device) == tree.digest(jax.tree.map(np.float32, arrays))
  strided = {'a': np.arange(6.0).reshape(2, 3).T}
  assert tree.digest(strided) == tree.digest({'a': strided['a'].copy()})


@pytest.mark.parametrize(
  'change',
  [
    lambda x: {'a': np.nextafter(x, np.float32(2))},
    lambda x: {'b': x},
    lambda x: {'a': x.view(np.int32)},
    lambda x: {'a': x.reshape(2, 1)},
    lambda x: {'a': x, 'b': x},
    lambda x: {'a': -x * 0},  # minus zero equals zero, but not bit for bit
  ],
  ids=['bit', 'name', 'type', 'shape', 'extra', 'sign of zero'],
)
def test_any_change_changes_the_digest(change):
  x = np.zeros(2, np.float32)
  assert tree.digest(change(x)) != tree.digest({'a': x})
