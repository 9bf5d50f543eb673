"""Stratified hold-out, and weights of examples in splits and losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxkd import data
from jaxkd.data import select
from jaxkd.data.base import Split
from jaxkd.data.stratify import several_labels
from jaxkd.graph.transfers import masked_mean
from jaxkd.problems import CLASSIFICATION

classes = st.lists(st.integers(2, 40), min_size=1, max_size=6)


@given(classes, st.floats(0.01, 0.99), st.integers(0, 2**31))
def test_a_fraction_keeps_proportions_within_one_example(sizes, part, seed):
  label = np.repeat(np.arange(len(sizes)), sizes)
  label = np.random.default_rng(seed).permutation(label)
  names = [str(k) for k in range(len(sizes))]
  held = select.held_out(label, names, part, seed)
  counts = np.bincount(label[held], minlength=len(sizes))
  assert np.all(np.abs(counts - part * np.array(sizes)) <= 1 + 1e-9)
  assert np.all(counts >= 1) and np.all(counts < sizes)
  np.testing.assert_array_equal(held, np.unique(held))
  np.testing.assert_array_equal(held, select.held_out(label, names, part, seed))


def test_a_number_is_that_of_every_class():
  label = np.repeat([0, 1, 2], [5, 9, 30])
  held = select.held_out(label, 'abc', 4, 0)
  assert np.bincount(label[held]).tolist() == [4, 4, 4]


@pytest.mark.parametrize('part', [0.01, 0.9, 0.999])
def test_an_extreme_fraction_takes_one_and_leaves_one(part):
  label = np.repeat(np.arange(3), [2, 3, 4])
  held = select.held_out(label, 'abc', part, seed=0)
  taken = np.bincount(label[held], minlength=3).tolist()
  assert taken == ([1, 1, 1] if part < 0.5 else [1, 2, 3])


def test_the_choice_depends_on_its_seed_alone():
  one, same, other = (
    data.load('digits', hold_out=0.1, hold_out_seed=seed) for seed in (1, 1, 2)
  )
  assert one.fingerprint == same.fingerprint != other.fingerprint
  whole = data.load('digits')
  both = np.concatenate([one.train.image, one.test.image])
  assert sorted(x.tobytes() for x in both) == sorted(
    x.tobytes() for x in whole.train.image
  )
  assert 'the real test split is not used' in one.notes[-1]


@pytest.mark.parametrize(
  ('part', 'message'),
  [
    (5, "class 'b' has 5 training .* data.hold_out=5 takes 5"),
    (1.5, 'a whole number of its examples, got 1.5'),
    (-0.1, 'above 0 and below 1'),
  ],
)
def test_an_impossible_part_is_refused(part, message):
  with pytest.raises(ValueError, match=message):
    select.held_out(np.repeat([0, 1], [9, 5]), 'ab', part, 0)


def test_a_class_of_one_example_cannot_be_divided():
  with pytest.raises(
    ValueError, match="class 'b' has 1 .*none is left to train"
  ):
    select.held_out(np.repeat([0, 1], [9, 1]), 'ab', 0.2, 0)


def test_two_ways_to_replace_the_test_split_are_refused():
  with pytest.raises(ValueError, match='hold_out=0.1 and data.validation=3'):
    data.load('digits', hold_out=0.1, validation=3)


def test_a_folder_holds_out_what_is_asked_for(tmp_path):
  from data_files import write_folder

  write_folder(tmp_path, {'train': {'a': 10, 'b': 20}, 'test': {'a': 1}})
  got = data.load(f'folder:{tmp_path}', hold_out=0.3, hold_out_seed=1)
  assert np.bincount(got.test.label).tolist() == [3, 6]
  assert np.bincount(got.train.label).tolist() == [7, 14]
  assert '9 of the 30 training images' in got.notes[0]


@given(
  st.integers(2, 200),
  st.integers(1, 8),
  st.floats(0.1, 0.5),
  st.integers(0, 2**31),
)
def test_examples_of_several_labels_are_divided_by_label(n, k, part, seed):
  rng = np.random.default_rng(seed)
  label = rng.random((n, k)) < rng.uniform(0.05, 0.6, k)
  held = several_labels(label, part, seed)
  assert 0 < len(held) < n
  np.testing.assert_array_equal(held, np.unique(held))
  np.testing.assert_array_equal(held, several_labels(label, part, seed))
  gap = np.abs(label[held].sum(0) - part * label.sum(0))
  assert np.all(gap <= 1 + k)


# Weights.


def weighted_split():
  weight = np.array([1, 0, 3, 2], np.float32) / 1.5
  image = np.zeros((4, 2, 2, 1), np.uint8)
  return Split(np.arange(4, dtype=np.int32), image, weight=weight)


def test_weights_are_rows_of_a_split():
  split = weighted_split()
  assert list(split.arrays) == ['image', 'label', 'weight']
  part = split.take(np.array([2, 3]))
  np.testing.assert_allclose(part.weight, [1.2, 0.8])
  assert split.take(np.array([1])).weight == 0


def test_weights_are_the_mask_of_training_and_not_of_evaluation():
  split = weighted_split()
  view = data.View((0.5,), (0.5,))
  raw = {**split.arrays, 'index': np.arange(4)}
  batch = CLASSIFICATION.train_view(raw, jnp.int32(0), 0, view)
  np.testing.assert_array_equal(batch['mask'], split.weight)
  mask = np.ones(4, np.float32)
  batch = CLASSIFICATION.eval_view(raw, mask, view)
  np.testing.assert_array_equal(batch['mask'], mask)


@settings(max_examples=20)
@given(st.lists(st.integers(0, 3), min_size=6, max_size=6).filter(any))
def test_whole_weights_are_duplicates(weights):
  weight = np.array(weights)
  loss = np.random.default_rng(len(weights)).normal(size=len(weight))
  got = masked_mean('loss', jnp.float32(loss), jnp.float32(weight / 7))
  np.testing.assert_allclose(
    got, np.repeat(loss, weight).mean(), rtol=1e-4, atol=1e-5
  )
  metrics = CLASSIFICATION.metrics(
    jnp.float32(np.stack([loss, -loss], 1)),
    dict(label=jnp.zeros(len(weight), int), mask=jnp.float32(weight / 7)),
  )
  want = np.repeat(loss >= 0, weight).mean()
  np.testing.assert_allclose(metrics['top1'], want, rtol=1e-5)


def test_a_batch_of_weights_that_are_all_zero_has_loss_zero():
  grad = jax.grad(lambda x: masked_mean('loss', x, jnp.zeros(3)))(jnp.ones(3))
  np.testing.assert_array_equal(grad, jnp.zeros(3))
