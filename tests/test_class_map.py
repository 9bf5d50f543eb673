"""Maps of classes: their probabilities, and how they are written."""

import json

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd import models, tree
from jaxkd.models.class_map import ClassMap, map_logits
from jaxkd.runs.classes import RENORMALISE, groups_of, imagenet_names, map_text

NAMES = ('ant', 'bee', 'cat', 'dog')


def softmax(z) -> np.ndarray:
  z = np.asarray(z, np.float64)
  p = np.exp(z - z.max(axis=-1, keepdims=True))
  return p / p.sum(axis=-1, keepdims=True)


@st.composite
def maps(draw):
  """Logits [3, J] and groups of the J classes, some of them empty."""
  j, k = draw(st.integers(1, 9)), draw(st.integers(1, 5))
  owner = draw(st.lists(st.integers(-1, k - 1), min_size=j, max_size=j))
  hypothesis.assume(max(owner) >= 0)
  groups = tuple(
    tuple(n for n, own in enumerate(owner) if own == group)
    for group in range(k)
  )
  seed = draw(st.integers(0, 2**16))
  z = np.random.default_rng(seed).normal(size=(3, j)) * 5
  return z.astype(np.float32), groups


@hypothesis.settings(max_examples=25)
@hypothesis.given(maps())
def test_probabilities_are_sums_over_the_mapped_mass(example):
  z, groups = example
  p = softmax(z)
  sums = np.stack([p[:, list(g)].sum(axis=-1) for g in groups], axis=-1)
  want = sums / sums.sum(axis=-1, keepdims=True)
  got = map_logits(jnp.asarray(z), groups)
  np.testing.assert_allclose(softmax(got), want, rtol=1e-5, atol=1e-6)


@hypothesis.settings(max_examples=20)
@hypothesis.given(st.permutations(range(6)))
def test_a_permutation_is_exact(order):
  z = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32) * 100
  got = map_logits(jnp.asarray(z), tuple((j,) for j in order))
  np.testing.assert_array_equal(got, z[:, list(order)])


@pytest.mark.parametrize('shift', [0.0, 1e4, -1e4])
def test_logits_of_any_size_are_exact(shift):
  """One class has hardly any probability, and its logit stays as it is."""
  z = np.array([[0.0, -200.0, -200.0, 3.0]], np.float32) + np.float32(shift)
  got = np.asarray(map_logits(jnp.asarray(z), ((1, 2), (0,), (3,), ())))
  want = np.array([[-200 + np.log(2), 0.0, 3.0, -np.inf]]) + shift
  np.testing.assert_allclose(got, want, rtol=1e-6)
  np.testing.assert_array_equal(got[:, 1:3], z[:, [0, 3]])


def test_a_large_group_does_not_make_small_ones_large():
  groups = ((0,), (1, 2), tuple(range(3, 1000)), *((),) * 3)
  program = jax.make_jaxpr(lambda z: map_logits(z, groups))(
    jnp.zeros((2, 1000))
  )
  sizes = [x.aval.size for e in program.eqns for x in e.outvars]
  assert max(sizes) <= 2 * 1024


def test_the_network_has_the_same_variables_and_taps():
  network = models.build('mlp', 4, 'clip', features=(5,))
  mapped = models.with_classes(network, ((3,), (0, 1)))
  shape = (2, 2, 1)
  shapes = tree.shapes(network, shape)
  assert tree.differences(tree.shapes(mapped, shape), shapes) == []
  draw = np.random.default_rng(0).normal
  variables = jax.tree.map(lambda x: np.float32(draw(size=x.shape)), shapes)
  image = jnp.ones((2, *shape))
  raw, got = (x.apply(variables, image) for x in (network, mapped))
  np.testing.assert_array_equal(
    got.logits, map_logits(raw.logits, ((3,), (0, 1)))
  )
  np.testing.assert_array_equal(got.taps['pooled'], raw.taps['pooled'])
  assert isinstance(mapped, ClassMap) and mapped.num_classes == 2
  assert models.read_out_of(mapped) == 'clip'
  assert models.macs(mapped, shape) == models.macs(network, shape)
  assert models.with_classes(network, None) is network


def groups(classes='', data=('cat', 'ant'), unmapped=RENORMALISE, names=NAMES):
  return groups_of(classes, unmapped, names, 4, data, 'teacher.')


class TestGroups:
  """How maps are written."""

  @pytest.mark.parametrize(
    'classes',
    [
      '',  # by name
      {'cat': 'cat', 'ant': 'ant'},
      {2: 0, 0: 1},
      {'2': '0', '0': '1'},
      {'cat': 0, 0: 'ant'},
      "{'cat': 'cat', 0: 1}",
    ],
  )
  def test_of_a_part_of_the_classes(self, classes):
    assert groups(classes) == ((2,), (0,))

  def test_of_files(self, tmp_path):
    pairs = {'cat': 'cat', 'dog': 'cat', '0': 'ant'}
    (tmp_path / 'x.json').write_text(json.dumps(pairs))
    (tmp_path / 'x.csv').write_text('cat,cat\ndog, cat\n\n0,ant\n')
    for name in ('x.json', 'x.csv'):
      assert groups(str(tmp_path / name)) == ((2, 3), (0,))

  def test_of_the_same_classes(self):
    assert groups(data=NAMES) is None
    assert groups(data=NAMES, names=()) is None
    assert groups('same', data=('a', 'b', 'c', 'd')) is None
    assert groups({j: j for j in range(4)}, data=NAMES) is None

  def test_of_another_order(self):
    assert groups(data=('dog', 'cat', 'bee', 'ant')) == ((3,), (2,), (1,), (0,))

  def test_the_rest_goes_to_a_class(self):
    got = groups(data=('cat', 'rest', 'ant'), unmapped='rest')
    assert got == ((2,), (1, 3), (0,))
    assert groups({'cat': 'cat'}, unmapped='ant') == ((2,), (0, 1, 3))

  def test_a_class_that_the_network_does_not_have(self):
    got = groups({'cat': 'cat'})
    assert got == ((2,), ())
    text = map_text(got, 4, ('cat', 'ant'))
    assert 'the other 3 are left out; it has no class for ant' in text

  def test_of_wordnet_ids(self):
    names = imagenet_names()
    assert len(names) == 1000 and names == tuple(sorted(names))
    data = ('n01440764', 'n03888257')
    got = groups_of('', RENORMALISE, (), 1000, data, '')
    assert got == ((0,), (names.index('n03888257'),))
    fish = {'n01440764': 'tench', 1: 'goldfish'}
    got = groups_of(fish, RENORMALISE, (), 1000, ('goldfish', 'tench'), '')
    assert got == ((1,), (0,))
    # Nothing says that these thousand classes are ImageNet's.
    plain = tuple(f'class{k}' for k in range(1000))
    assert groups_of('', RENORMALISE, (), 1000, plain, '') is None

  @pytest.mark.parametrize(
    ('changes', 'message'),
    [
      (dict(data=('cat', 'cow')), 'ant, bee, .*2 .cat, cow.: set it to a map'),
      (dict(data=tuple('abcd')), "or to 'same' if they are the same, in this"),
      (dict(classes='same'), 'has 4 classes .*, the data have 2'),
      (dict(classes={'cow': 'cat'}), "no class 'cow': there are ant, bee, cat"),
      (dict(classes={'kat': 'cat'}), "no class 'kat': did you mean 'cat'"),
      (dict(classes={'cat': 'cow'}), r"classes \(the data\): no class 'cow'"),
      (dict(classes={'cat': 7}), r'no class 7: an index must be in 0\.\.1'),
      (dict(classes={True: 'cat'}), 'no class True'),
      (dict(classes={'cat': 0, 2: 1}), 'has 2 twice'),
      (dict(classes='{}'), 'must have at least one class'),
      (dict(classes='{1'), 'must be a map of classes like'),
      (dict(classes='map.txt'), 'neither a mapping nor a .json or .csv file'),
      (dict(classes='map.json'), 'teacher.classes: no such file: map.json'),
      (dict(unmapped='cow'), "teacher.unmapped: no class 'cow'"),
      (dict(data=NAMES, unmapped='cat'), 'every class has its own'),
      (
        dict(names=('cat', 'cat', 'ant', 'b')),
        "two classes are called 'cat': use indices",
      ),
      (
        dict(names=('cat', 'cat', 'a', 'b'), classes={'cat': 0}),
        "two classes are called 'cat': use indices",
      ),
    ],
  )
  def test_mistakes_are_explained(self, changes, message):
    with pytest.raises((KeyError, OSError, ValueError), match=message):
      groups(**changes)
