"""The catalogue, and the parts of a data set that `load` can choose."""

import dataclasses

import numpy as np
import pytest

from jaxkd import data
from jaxkd.data import base, select


def classes(split):
  return np.bincount(split.label, minlength=10)


def same(a, b):
  return np.array_equal(a.train.image, b.train.image) and np.array_equal(
    a.test.image, b.test.image
  )


def test_digits_are_split_by_class():
  digits = data.load('digits')
  assert (len(digits.train), len(digits.test)) == (1437, 360)
  assert (classes(digits.test) == 36).all()
  assert digits.image_shape == (8, 8, 1) and digits.num_classes == 10
  assert digits.train.image.dtype == np.uint8
  assert digits.train.label.dtype == np.int32
  assert digits.class_names == tuple('0123456789')


def test_digits_are_complete_and_exact():
  import sklearn.datasets

  digits = data.load('digits')
  raw = sklearn.datasets.load_digits()
  image = np.concatenate([digits.train.image, digits.test.image])[..., 0]
  label = np.concatenate([digits.train.label, digits.test.label])
  values = np.rint(np.arange(17) * 255 / 16).astype(np.uint8)
  assert values[-1] == 255 and len(set(values)) == 17
  want = sorted(
    (int(y), values[x.astype(int)].tobytes())
    for x, y in zip(raw.images, raw.target, strict=True)
  )
  assert want == sorted(
    (int(y), x.tobytes()) for x, y in zip(image, label, strict=True)
  )


def test_digits_never_change():
  digits = data.load('digits')
  assert digits.fingerprint.startswith('c48eb4a7341663993995b5e54b742824')
  image = digits.train.image / 255
  np.testing.assert_allclose(digits.view.mean, image.mean(), atol=5e-5)
  np.testing.assert_allclose(digits.view.std, image.std(), atol=5e-5)
  assert digits.view.pad == 1 and not digits.view.flip


def test_few_shot_is_a_fixed_balanced_subset():
  whole, five = data.load('digits'), data.load('digits', few_shot=5)
  assert (classes(five.train) == 5).all()
  assert same(five, data.load('digits', few_shot=5))
  np.testing.assert_array_equal(five.test.image, whole.test.image)
  everything = {image.tobytes() for image in whole.train.image}
  assert {image.tobytes() for image in five.train.image} <= everything
  more = {i.tobytes() for i in data.load('digits', few_shot=9).train.image}
  assert {image.tobytes() for image in five.train.image} <= more
  assert five.fingerprint != whole.fingerprint


def test_validation_replaces_the_test_split():
  whole = data.load('digits')
  dataset = data.load('digits', validation=7)
  assert (classes(dataset.test) == 7).all()
  assert len(dataset.train) == len(whole.train) - 70
  both = np.concatenate([dataset.train.image, dataset.test.image])
  assert sorted(i.tobytes() for i in both) == sorted(
    i.tobytes() for i in whole.train.image
  )
  assert 'real test split is not used' in dataset.notes[-1]
  assert dataset.fingerprint != whole.fingerprint


def test_few_shot_does_not_change_the_validation_examples():
  held = data.load('digits', validation=7)
  both = data.load('digits', validation=7, few_shot=3)
  np.testing.assert_array_equal(both.test.image, held.test.image)
  assert (classes(both.train) == 3).all()
  remaining = {image.tobytes() for image in held.train.image}
  assert {image.tobytes() for image in both.train.image} <= remaining


@pytest.mark.parametrize(
  'setting, n, message',
  [
    ('few_shot', 139, "class '8'.*has 138 .*few_shot=139 needs 139.*to 138 or"),
    ('validation', 138, "class '8'.*138 .*=138 needs 139.*to 137 or less"),
    ('few_shot', -1, 'few_shot must be a whole number of at least 0, got -1'),
  ],
)
def test_too_many_examples_per_class(setting, n, message):
  with pytest.raises(ValueError, match=message):
    data.load('digits', **{setting: n})


def test_subsets_are_balanced_for_any_labels():
  label = np.random.default_rng(0).integers(0, 6, 500)
  counts = np.array([3, 0, 50, 1, 7, 2])
  index = select.choose(label, counts, 'a')
  np.testing.assert_array_equal(np.bincount(label[index], minlength=6), counts)
  assert (np.diff(index) > 0).all()
  assert not np.array_equal(index, select.choose(label, counts, 'b'))
  rest = select.rest(500, index)
  assert sorted([*index, *rest]) == list(range(500))


@pytest.mark.parametrize(
  'augment, pad, flip',
  [
    ('default', 4, True),
    ('none', 0, False),
    ('flip', 0, True),
    ('crop', 4, False),
    ('crop_flip', 4, True),
  ],
)
def test_augmentations(augment, pad, flip):
  view = data.load('synthetic', augment=augment, train_size=10).view
  assert (view.pad, view.flip) == (pad, flip)


def test_a_lazy_split_is_not_cropped_by_default(monkeypatch):
  def load(index, seeds):
    return np.full((len(index), 2, 2, 3), 0 if seeds is None else 1, np.uint8)

  lazy = data.Split(np.zeros(4, np.int32), load=load)
  view = data.View((0.5,) * 3, (0.5,) * 3, flip=True)
  dataset = data.Dataset('made', lazy, lazy, ('a',), view, 'f')
  monkeypatch.setitem(data.CATALOG, 'made', lambda: dataset)
  index, seeds = np.arange(2), np.arange(2)
  for augment, cropped in [('default', 1), ('crop', 1), ('flip', 0)]:
    train = data.load('made', augment=augment).train
    assert (train.load(index, seeds) == cropped).all()
    assert (train.load(index, None) == 0).all()
  assert dataset.image_shape == (2, 2, 3)


def test_a_part_of_a_lazy_split_loads_its_own_examples():
  def load(index, seeds):
    return np.full((len(index), 1, 1, 1), 0, np.uint8) + index[
      :, None, None, None
    ].astype(np.uint8)

  part = data.Split(np.arange(9), load=load).take(np.array([8, 2, 5]))
  assert part.label.tolist() == [8, 2, 5]
  assert part.load(np.array([2, 0]), None).ravel().tolist() == [5, 8]


def test_synthetic_classes_are_separable():
  dataset = data.load('synthetic', num_classes=7, train_size=210, test_size=70)
  means = [
    dataset.train.image[dataset.train.label == k].mean(0) for k in range(7)
  ]
  image = dataset.test.image.astype(float)
  distance = ((image[:, None] - np.stack(means)) ** 2).sum((2, 3, 4))
  assert (distance.argmin(1) == dataset.test.label).all()
  pixels = dataset.train.image / 255
  np.testing.assert_allclose(pixels.mean(), dataset.view.mean, atol=0.02)
  np.testing.assert_allclose(pixels.std(), dataset.view.std, atol=0.02)


def test_synthetic_takes_its_sizes_and_a_seed():
  sizes = dict(image_size=10, channels=1, train_size=20, test_size=4)
  dataset = data.load('synthetic', **sizes)
  assert dataset.train.image.shape == (20, 10, 10, 1)
  assert dataset.test.image.shape == (4, 10, 10, 1)
  assert same(dataset, data.load('synthetic', **sizes))
  assert not same(dataset, data.load('synthetic', **sizes, seed=1))


@pytest.mark.parametrize(
  'arguments, error, message',
  [
    (dict(name='digts'), KeyError, "data set 'digts'. Did you mean 'digits'"),
    (dict(name='folder'), ValueError, "'folder' should be written folder:PATH"),
    (dict(name='tfds:'), ValueError, "'tfds:' should be written tfds:NAME"),
    (dict(name='digits:8'), ValueError, "'digits:8' should be written digits"),
    (dict(name='digits', dir='x'), ValueError, "'digits' takes no setting 'd"),
    (dict(name='digits', augment='crops'), KeyError, "mean 'crop' or"),
    (dict(name='synthetic', seeds=1), ValueError, "Did you mean 'seed'"),
    (
      dict(name='synthetic', train_size=9),
      ValueError,
      'train_size=9.*to 10 or',
    ),
    (
      dict(name='synthetic', channels=-1),
      ValueError,
      'channels must be at least 1, got -1',
    ),
  ],
)
def test_mistakes_are_explained(arguments, error, message):
  with pytest.raises(error, match=message):
    data.load(**arguments)


def test_digests_depend_on_shapes_and_boundaries():
  a = np.arange(6, dtype=np.uint8)
  digests = [
    base.digest(a),
    base.digest(a.reshape(2, 3)),
    base.digest(a.astype(np.int32)),
    base.digest(a[:3], a[3:]),
    base.digest('ab', 'c'),
    base.digest('a', 'bc'),
  ]
  assert len(set(digests)) == len(digests)
  assert base.digest(a[::-1][::-1]) == base.digest(a)


def test_views_are_hashable_and_data_sets_print_shortly():
  view = data.View((0.5,), (0.5,), 1)
  assert hash(view) == hash(dataclasses.replace(view))
  assert len(repr(data.load('digits'))) < 500
