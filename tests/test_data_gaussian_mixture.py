"""Gaussian classes: the posterior, the labels, and the way to the network."""

import functools

import jax
import numpy as np
import pytest
import scipy.stats
import tiny

from jaxkd import checkpoints, data, models
from jaxkd.data import base
from jaxkd.data.gaussian_mixture import (
  bayes_classifier,
  class_means,
  log_posterior,
)
from jaxkd.runs.run import Run
from jaxkd.training import mesh

SIZES = dict(num_classes=3, dimensions=4, separation=2.0, variance=1.5)
SMALL = dict(train_size=40, validation_size=12, test_size=24)


@functools.cache
def mixture(**settings):
  return data.load('gaussian_mixture', **settings)


def flat(split):
  """The examples [N, D] of a split, in float64."""
  return split.image.reshape(len(split), -1).astype(np.float64)


def splits(dataset):
  return {
    'train': dataset.train,
    'validation': dataset.validation,
    'test': dataset.test,
  }


def softmax(logits):
  p = np.exp(logits - logits.max(-1, keepdims=True))
  return p / p.sum(-1, keepdims=True)


def means_of(settings, seed=0):
  names = ('num_classes', 'dimensions', 'separation')
  return class_means(**{key: settings[key] for key in names}, seed=seed)


def densities(x, means, variance):
  """p(x|k) [N, K], one class and one example after another."""
  return np.stack(
    [scipy.stats.multivariate_normal(m, variance).pdf(x) for m in means], -1
  )


# The posterior


@pytest.mark.parametrize('name', ['train', 'validation', 'test'])
def test_the_posterior_is_the_share_of_a_class_in_the_density(name):
  split = splits(mixture(**SIZES, **SMALL))[name]
  density = densities(flat(split), means_of(SIZES), SIZES['variance'])
  want = density / density.sum(-1, keepdims=True)
  assert split.posterior.dtype == np.float32
  np.testing.assert_allclose(split.posterior.sum(-1), 1, rtol=1e-6)
  np.testing.assert_allclose(split.posterior, want, rtol=1e-6, atol=1e-12)


def test_the_log_posterior_is_finite_where_the_posterior_is_not():
  means = np.array([[0.0], [1.0]])
  log_p = log_posterior(np.array([[1e4], [0.5]]), means, variance=1.0)
  np.testing.assert_allclose(log_p[0], [-9999.5, 0])
  np.testing.assert_allclose(log_p[1], np.log([0.5, 0.5]))


def test_a_linear_classifier_has_the_posterior_as_its_softmax():
  dataset = mixture(**SIZES, **SMALL)
  kernel, bias = bayes_classifier(means_of(SIZES), SIZES['variance'])
  assert kernel.shape == (4, 3) and bias.shape == (3,)
  net = models.build('linear', num_classes=3)
  variables = {'params': {'head': {'kernel': kernel, 'bias': bias}}}
  image = data.eval_view(dataset.test.image, view=dataset.view)
  logits = np.asarray(net.apply(variables, image).logits)
  np.testing.assert_allclose(softmax(logits), dataset.test.posterior, rtol=1e-5)


@pytest.mark.parametrize(
  ('num_classes', 'accuracy', 'tolerance'),
  # The reference is the mean over five other seeds. The standard deviation of
  # one is 0.022 and 0.016, since some means lie nearer to each other; that of
  # the difference from ours, over twenty, is half of it: two of these.
  [(3, 0.835, 0.022), (10, 0.608, 0.016)],
)
def test_the_bayes_classifier_is_as_good_as_in_the_literature(
  num_classes, accuracy, tolerance
):
  accuracies = []
  for seed in range(20):
    test = mixture(
      num_classes=num_classes,
      train_size=num_classes,
      validation_size=0,
      test_size=20000,
      seed=seed,
    ).test
    right = np.argmax(test.posterior, -1) == test.label
    expected = test.posterior.max(-1)
    # Given x, the answer is right with the probability that p* gives it.
    error = np.sqrt(np.sum(expected * (1 - expected))) / len(test)
    assert abs(right.mean() - expected.mean()) < 4 * error
    accuracies.append(right.mean())
  assert np.mean(accuracies) == pytest.approx(accuracy, abs=tolerance)
  assert np.std(accuracies) < tolerance * 1.5


# The draws


def test_labels_are_drawn_from_the_posterior():
  """E[onehot - p*] = 0, over all examples and over the confident ones."""
  test = mixture().test
  assert len(test) == 90000
  surprise = np.eye(10)[test.label] - test.posterior
  variance = test.posterior * (1.0 - test.posterior)
  top = test.posterior.max(-1)
  for low, high in [(0, 1), (0, 0.4), (0.4, 0.8), (0.8, 1)]:
    mask = (low <= top) & (top <= high)
    assert mask.sum() > 1000
    error = np.sqrt(variance[mask].sum(0))
    assert (np.abs(surprise[mask].sum(0)) < 4 * error).all()
  # Classes are equally probable: their counts are multinomial.
  counts = np.bincount(test.label, minlength=10)
  assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_noise_is_normal_with_the_variance():
  test, means = mixture().test, class_means(10, 30, 1.0, seed=0)
  noise = flat(test) - means[test.label]
  _, p = scipy.stats.kstest(noise[:2000].ravel() / np.sqrt(6), 'norm')
  assert p > 1e-3
  covariance = noise.T @ noise / len(test)
  # The standard deviation of an entry is 6 / sqrt(N), on the diagonal sqrt 2
  # times that; there are 900.
  assert np.abs(covariance - 6 * np.eye(30)).max() < 5 * 6 * np.sqrt(2 / 90000)


def test_means_are_steps_of_the_separation():
  means = class_means(100, 30, 0.5, seed=3)
  values, counts = np.unique(means, return_counts=True)
  np.testing.assert_array_equal(values, [-0.5, 0, 0.5])
  assert scipy.stats.chisquare(counts).pvalue > 1e-3
  np.testing.assert_array_equal(means, class_means(100, 30, 0.5, seed=3))
  assert np.any(means != class_means(100, 30, 0.5, seed=4))


def test_the_data_never_change():
  dataset = mixture()
  assert dataset.fingerprint.startswith('209f216f0dbec9782968860c6ae56f64')
  assert [len(x) for x in splits(dataset).values()] == [5000, 5000, 90000]
  assert dataset.image_shape == (1, 1, 30)
  assert (
    dataset.class_names[:2] == ('class0', 'class1')
    and dataset.num_classes == 10
  )
  assert dataset.train.image.dtype == np.float32
  assert dataset.train.label.dtype == np.int32


def test_data_are_a_function_of_the_seed_and_splits_of_their_own_size():
  one = mixture(**SIZES, **SMALL)
  again = data.load('gaussian_mixture', **SIZES, **SMALL)
  other = mixture(**SIZES, **SMALL, seed=1)
  large = mixture(**SIZES, **{**SMALL, 'train_size': 100})
  assert one.fingerprint == again.fingerprint != other.fingerprint
  for name, split in splits(one).items():
    np.testing.assert_array_equal(split.image, splits(again)[name].image)
    assert np.all(split.image != splits(other)[name].image), name
  np.testing.assert_array_equal(one.test.image, large.test.image)
  drawn = np.concatenate([flat(x) for x in splits(one).values()])
  assert len(np.unique(drawn)) == drawn.size  # no split has another's noise
  assert mixture(**SIZES, **{**SMALL, 'validation_size': 0}).validation is None


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    (dict(num_classes=0), 'num_classes must be at least 1, got 0'),
    (dict(dimensions=-2), 'dimensions must be at least 1, got -2'),
    (dict(test_size=0), 'test_size must be at least 1, got 0'),
    (dict(train_size=9), 'train_size=9 .*10 classes.*to 10 or more'),
    (dict(validation_size=-1), 'validation_size must be at least 0, got -1'),
    (dict(variance=0.0), 'variance must be above 0, got 0.0'),
    (dict(variance=float('nan')), 'variance must be above 0, got nan'),
    (dict(image_size=8), "takes no setting 'image_size'"),
  ],
)
def test_impossible_settings_are_explained(settings, message):
  with pytest.raises(ValueError, match=message):
    data.load('gaussian_mixture', **settings)


# The way to the network


def test_a_subset_keeps_its_posteriors():
  whole = mixture(**SIZES, **SMALL)
  keep = np.array([7, 2])
  part = whole.train.take(keep)
  np.testing.assert_array_equal(part.posterior, whole.train.posterior[keep])
  lazy = data.Split(
    whole.train.label,
    load=lambda index, _: whole.train.image[index],
    posterior=whole.train.posterior,
  )
  np.testing.assert_array_equal(lazy.take(keep).posterior, part.posterior)
  with pytest.raises(AssertionError):
    data.Split(part.label, part.image, posterior=whole.train.posterior)


def test_few_shot_and_validation_take_examples_with_their_posteriors():
  dataset = data.load(
    'gaussian_mixture', few_shot=3, validation=2, **SIZES, **SMALL
  )
  assert np.bincount(dataset.train.label).tolist() == [3, 3, 3]
  assert np.bincount(dataset.test.label).tolist() == [2, 2, 2]
  assert len(dataset.validation) == 12
  for split in splits(dataset).values():
    density = densities(flat(split), means_of(SIZES), SIZES['variance'])
    want = density / density.sum(-1, keepdims=True)
    np.testing.assert_allclose(split.posterior, want, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize('augment', ['default', *data.AUGMENTATIONS])
def test_real_numbers_are_not_transformed(augment):
  dataset = data.load('gaussian_mixture', augment=augment, **SIZES, **SMALL)
  stored = mesh.put_split(dataset.train, mesh.make_mesh())
  index = np.array([3, 0, 39, 3], np.int32)

  @jax.jit
  def views(stored, index):
    raw = data.gather(stored, index)
    train = data.train_view(raw['image'], index, 0, seed=0, view=dataset.view)
    return raw, train, data.eval_view(raw['image'], view=dataset.view)

  raw, train, test = views(stored, index)
  for image in (raw['image'], train, test):
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image, dataset.train.image[index])
  np.testing.assert_array_equal(
    raw['posterior'], dataset.train.posterior[index]
  )
  np.testing.assert_array_equal(raw['index'], index)


def test_a_view_divides_by_its_scale():
  view = data.View(mean=(1.0,), std=(2.0,), scale=4.0)
  image = np.array([[[[8.0]]], [[[-2.0]]]], np.float32)
  got = data.eval_view(image, view=view)
  np.testing.assert_array_equal(np.ravel(got), [0.5, -0.75])
  assert base.View((0.0,), (1.0,)).scale == 255


def test_only_splits_with_a_posterior_have_it_on_the_devices():
  dataset = mixture(**SIZES, **SMALL)
  unknown = data.Split(dataset.test.label, dataset.test.image)
  devices = mesh.make_mesh()
  assert set(mesh.put_split(unknown, devices).rows) == {'image', 'label'}
  assert 'posterior' in mesh.put_split(dataset.test, devices).rows


def test_networks_are_trained_and_evaluated_on_real_numbers(tmp_path):
  run = Run(
    tiny.experiment(
      data__name='gaussian_mixture',
      data__image_size=0,
      data__settings={**SIZES, **SMALL},
      student__name='linear',
      epochs=2,
    ),
    tmp_path,
  )
  summary = run.finish()
  dataset = mixture(**SIZES, **SMALL)
  variables, card = checkpoints.load(tmp_path / 'networks/student')
  assert card.model == 'linear' and card.image_shape == (1, 1, 4)
  head = {k: np.float64(v) for k, v in variables['params']['head'].items()}
  q = softmax(flat(dataset.test) @ head['kernel'] + head['bias'])
  own = np.arange(len(dataset.test)), dataset.test.label
  got = summary['networks']['student']
  assert got['top1'] == pytest.approx(np.mean(q.argmax(-1) == own[1]))
  assert got['nll'] == pytest.approx(-np.log(q[own]).mean(), rel=1e-5)
  assert summary['provenance']['data_fingerprint'] == dataset.fingerprint


@pytest.mark.parametrize('settings', [{}, dict(num_classes=3, dimensions=4)])
def test_its_sizes_are_available_before_it_is_made(settings):
  spec = data.spec('gaussian_mixture', settings)
  shape, classes = spec.image_shape, spec.num_classes
  sizes = dict(train_size=10, validation_size=0, test_size=1)
  drawn = data.load('gaussian_mixture', **settings, **sizes)
  assert (drawn.image_shape, drawn.num_classes) == (shape, classes)
  assert data.spec('folder:x', {}) is None
