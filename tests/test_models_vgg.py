"""The large VGG: its last pooling, and dropout in training."""

import functools

import jax
import numpy as np
import pytest
from test_models import SMALL, fresh, images

from jaxkd import models
from jaxkd.models.vgg import LargeVGG, adaptive_average_pool


@pytest.mark.parametrize('shape', [(14, 14), (9, 5), (1, 3), (7, 7)])
def test_adaptive_windows_are_those_of_pytorch(shape):
  """Window i is from floor(i n / 7) to ceil((i + 1) n / 7)."""
  x = np.random.default_rng(0).normal(size=(2, *shape, 3)).astype(np.float32)
  want = np.empty((2, 7, 7, 3))
  for i, j in np.ndindex(7, 7):
    h, w = (
      slice(k * n // 7, int(np.ceil((k + 1) * n / 7)))
      for k, n in zip((i, j), shape, strict=True)
    )
    want[:, i, j] = x[:, h, w].mean(axis=(1, 2))
  np.testing.assert_allclose(adaptive_average_pool(x, 7), want, atol=1e-6)


@pytest.mark.parametrize('family', ['large_vgg', 'mobilenet_v2'])
def test_dropout_is_in_training_only(family):
  """Keys change the logits in training, where half the inputs are missing."""
  net = SMALL[family].clone(dropout=0.5)

  @jax.jit
  def run(variables, image, key):
    apply = functools.partial(net.apply, variables, image)
    outputs, _ = apply(
      train=True, mutable=['batch_stats'], rngs={'dropout': key}
    )
    return outputs.logits, apply().logits

  keys = jax.random.split(jax.random.key(0))
  (first, still), (second, also) = (
    run(fresh(family), images(), key) for key in keys
  )
  assert np.any(np.asarray(first) != np.asarray(second))
  np.testing.assert_array_equal(still, also)


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'dropout': 1}, 'below 1, got 1'),
    ({'dropout': -0.1}, 'at least 0 and below 1, got -0.1'),
    ({'hidden': 0}, 'hidden must be at least 1, got 0'),
  ],
)
def test_impossible_settings_are_refused(settings, message):
  with pytest.raises(ValueError, match=message):
    models.build('imagenet_vgg11_bn', 10, **settings)


def test_activations_get_suggestions():
  with pytest.raises(KeyError, match="'relu7'. Did you mean 'relu"):
    models.build('imagenet_mobilenet_v2', 10, activation='relu7')


@pytest.mark.parametrize('image', [(8, 8, 1), (96, 64, 3)])
def test_any_image_size_gives_the_linear_layers_their_map(image):
  net = LargeVGG(8, num_classes=5, width=1 / 32, hidden=64)
  x = jax.ShapeDtypeStruct((2, *image), np.float32)
  outputs, variables = jax.eval_shape(
    net.init_with_output, jax.random.key(0), x
  )
  assert outputs.logits.shape == (2, 5)
  assert variables['params']['fc1']['kernel'].shape == (16 * 49, 2)
