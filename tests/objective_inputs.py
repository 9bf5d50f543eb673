"""What the tests of objectives share: maps, layers in NumPy, and networks."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd import models
from jaxkd.models import norms

KEY = jax.random.key(0, impl='rbg')  # quick to compile
# Arguments of a loss that uses none of them.
NOW = dict(batch={}, key=KEY, epoch=0.0, epochs=1)
# One network of each family, with a fourth stage, without a stem, of tokens, of
# vectors.
FAMILIES = (
  'resnet8',
  'wrn_16_2',
  'vgg8',
  'resnet50',
  'mobilenet_v2',
  'imagenet_mobilenet_v1',
  'shufflenet_v2',
  'vit_tiny',
  'rvt_tiny',
  'mlp128',
)


def draw(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def windowed(x, size):
  """Adaptive average pooling, window by window."""
  (height, width), (h, w) = x.shape[1:3], size
  out = np.empty((len(x), h, w, x.shape[-1]))
  for i in range(h):
    for j in range(w):
      rows = slice(math.floor(i * height / h), math.ceil((i + 1) * height / h))
      columns = slice(math.floor(j * width / w), math.ceil((j + 1) * width / w))
      out[:, i, j] = x[:, rows, columns].mean(axis=(1, 2))
  return out


def convolved(x, kernel, stride, padding):
  """Convolution [B, H, W, C] by kernel [k, l, C, D], tap by tap."""
  k, l, _, d = kernel.shape
  x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
  h = (x.shape[1] - k) // stride + 1
  w = (x.shape[2] - l) // stride + 1
  out = np.zeros((len(x), h, w, d))
  for i in range(k):
    for j in range(l):
      part = x[:, i : i + stride * h : stride, j : j + stride * w : stride]
      out += part[:, :h, :w] @ kernel[i, j]
  return out


def transposed(x, kernel):
  """PyTorch's transposed 4 x 4 convolution, stride 2 and padding 1."""
  b, h, w, _ = x.shape
  out = np.zeros((b, 2 * h + 2, 2 * w + 2, kernel.shape[-1]))
  for i in range(4):
    for j in range(4):
      out[:, i : i + 2 * h : 2, j : j + 2 * w : 2] += x @ kernel[i, j]
  return out[:, 1:-1, 1:-1]


def outputs_of(name):
  """Returns the shapes of a network's outputs on a CIFAR image."""
  return _outputs_of(name)  # not among what a test module forgets at its end


@functools.cache
def _outputs_of(name):
  net, image = models.build(name, 100), jnp.zeros((1, 32, 32, 3))
  return jax.eval_shape(
    lambda: norms.apply(net, net.init(KEY, image), image)[0]
  )


def parameters(objective, learner, guide):
  """The number of parameters that an objective adds to a pair, from shapes."""
  ends = dict(guide=outputs_of(guide), learner=outputs_of(learner))
  shapes, _ = jax.eval_shape(
    lambda ends: objective.init(KEY, examples=1, **ends), ends
  )
  return models.count(shapes)


def pairs(table):
  """The pairs of a table, all but the first two of them slow."""
  return [
    pytest.param(*pair, marks=pytest.mark.slow if n > 1 else ())
    for n, pair in enumerate(table)
  ]
