"""Gaussian classes of known means: data whose Bayes posterior is known.

The toy of "How to Train the Teacher Model for Effective Knowledge Distillation"
(Hamidi et al., ECCV 2024), https://arxiv.org/abs/2407.18041, with the sizes of
the released code. Deviation: the means are a function of the seed; that code
draws new ones in every process.
"""

import numpy as np

from jaxkd.data.base import Dataset, Split, View, digest_splits
from jaxkd.data.batches import entropy


def gaussian_mixture(
  num_classes: int = 10,
  dimensions: int = 30,
  separation: float = 1.0,
  variance: float = 6.0,
  train_size: int = 5000,
  validation_size: int = 5000,
  test_size: int = 90000,
  seed: int = 0,
) -> Dataset:
  """Returns x ~ N(mean of class y, variance I), y uniform, and p*(k|x).

  Images are float32 [N, 1, 1, D]. With the other settings as they are, the
  Bayes classifier is right on 0.60 of the examples of 10 classes and on 0.83 of
  those of 3, with standard deviations of 0.016 and 0.022 over seeds 0 to 19.

  Args:
    num_classes: K.
    dimensions: D.
    separation: the means' coordinates are -1, 0 or 1 times this.
    variance: of every coordinate around its class's mean.
    train_size: training examples; their labels are drawn.
    validation_size: examples of the validation split; 0 for none.
    test_size: test examples.
    seed: of means, labels and noise, independent of the run's seed. No split
      depends on the sizes of the others.

  Raises:
    ValueError: a size is too small, or the variance is not positive.
  """
  _check(num_classes, dimensions, variance, train_size, test_size)
  if validation_size < 0:
    raise ValueError(
      f'validation_size={validation_size} is negative: use 0 for no '
      'validation split'
    )
  means = class_means(num_classes, dimensions, separation, seed)

  def split(name, n):
    rng = _generator(seed, name)
    label = rng.integers(0, num_classes, n, np.int32)
    noise = rng.standard_normal((n, dimensions))
    x = (means[label] + np.sqrt(variance) * noise).astype(np.float32)
    posterior = np.exp(log_posterior(x, means, variance)).astype(np.float32)
    return Split(label, x.reshape(n, 1, 1, dimensions), posterior=posterior)

  train, test = split('train', train_size), split('test', test_size)
  held = split('validation', validation_size) if validation_size else None
  return Dataset(
    name='gaussian_mixture',
    train=train,
    test=test,
    class_names=tuple(f'class{k}' for k in range(num_classes)),
    # Real numbers reach the network as they are.
    view=View((0.0,) * dimensions, (1.0,) * dimensions, scale=1.0),
    fingerprint=digest_splits(train, test),
    validation=held,
    bayes=bayes_classifier(means, variance),
  )


def class_means(
  num_classes: int, dimensions: int, separation: float, seed: int
) -> np.ndarray:
  """Returns the means of `gaussian_mixture`, float64 [K, D].

  Coordinates are independent and uniform in -1, 0, 1 times `separation`, so
  that two classes have the same mean with probability 3^-D.
  """
  signs = _generator(seed, 'means').integers(-1, 2, (num_classes, dimensions))
  return separation * signs.astype(np.float64)


def log_posterior(
  x: np.ndarray, means: np.ndarray, variance: float
) -> np.ndarray:
  """Returns log p*(k|x) of equally likely classes N(mean_k, variance I).

  Args:
    x: [N, D].
    means: [K, D].
    variance: above 0.

  Returns:
    float64 [N, K], in nats.
  """
  kernel, bias = bayes_classifier(means, variance)
  logits = x.astype(np.float64) @ kernel + bias
  logits -= logits.max(axis=-1, keepdims=True)
  return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def bayes_classifier(
  means: np.ndarray, variance: float
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the linear classifier whose softmax is the Bayes posterior.

  In softmax_k(-|x - mean_k|^2 / (2 variance)) the classes share |x|^2, which
  leaves a linear function of x. The network 'linear' has it as 'head'.

  Args:
    means: [K, D].
    variance: above 0.

  Returns:
    kernel float64 [D, K] and bias float64 [K].
  """
  return means.T / variance, -np.sum(means**2, axis=-1) / (2 * variance)


def _generator(seed: int, purpose: str) -> np.random.Generator:
  """Returns the random numbers of one part of the data set."""
  words = entropy('gaussian_mixture', purpose, seed)
  return np.random.Generator(np.random.PCG64(words))


def _check(
  num_classes: int,
  dimensions: int,
  variance: float,
  train_size: int,
  test_size: int,
) -> None:
  """Raises ValueError for sizes and a variance that are impossible."""
  if min(num_classes, dimensions, test_size) < 1:
    raise ValueError(
      f'num_classes={num_classes}, dimensions={dimensions} and '
      f'test_size={test_size} must be at least 1'
    )
  if train_size < num_classes:
    raise ValueError(
      f'train_size={train_size} leaves some of the {num_classes} classes '
      f'without an example: set it to {num_classes} or more'
    )
  if not variance > 0:
    raise ValueError(f'variance={variance} must be above 0, for example 6')
