"""Conversion of images to a network's own input, and networks that have one."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxkd import models, tree
from jaxkd.models.own_input import LUMA, Input, OwnInput, convert

GREY = Input((8, 8, 1), (0.3,), (0.4,))
RGB = Input((8, 8, 3), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
number = st.floats(-1, 1, width=32)
positive = st.floats(0.125, 2, width=32)


def images(of: Input, n: int = 2) -> np.ndarray:
  """Pixels between 0 and 255."""
  draw = np.random.default_rng(0).uniform
  return draw(0, 255, (n, *of.shape))


def normalised(pixels: np.ndarray, of: Input) -> np.ndarray:
  """The images that a network with this input sees, in float64."""
  return (pixels / of.scale - np.array(of.mean)) / np.array(of.std)


def converted(pixels, source: Input, target: Input) -> np.ndarray:
  image = normalised(pixels, source).astype(np.float32)
  return np.asarray(convert(jnp.asarray(image), source, target))


@hypothesis.given(
  mean=st.tuples(number, number, number),
  std=st.tuples(positive, positive, positive),
  scale=st.sampled_from([255.0, 1.0, 127.5]),
)
def test_a_normalisation_is_that_of_the_pixels(mean, std, scale):
  target = Input(RGB.shape, mean, std, scale)
  pixels = images(RGB)
  want = normalised(pixels, target)
  got = converted(pixels, RGB, target)
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * 255 / scale)


def test_grey_is_repeated():
  pixels = images(GREY)
  want = normalised(np.repeat(pixels, 3, axis=-1), RGB)
  np.testing.assert_allclose(converted(pixels, GREY, RGB), want, atol=1e-5)


def test_colours_become_grey_as_in_pillow():
  pixels = images(RGB).round()
  want = [
    np.asarray(Image.fromarray(x.astype(np.uint8)).convert('L')) for x in pixels
  ]
  got = converted(pixels, RGB, GREY)[..., 0] * GREY.std[0] + GREY.mean[0]
  # Pillow rounds the result to a whole number.
  np.testing.assert_allclose(got * 255, np.stack(want), atol=0.51)
  assert sum(LUMA) == pytest.approx(1)


@pytest.mark.parametrize('size', [(8, 8), (16, 16), (40, 24), (61, 47)])
def test_a_size_is_changed_as_in_pillow(size):
  source = Input((24, 40, 1), GREY.mean, GREY.std)
  target = Input((*size, 1), GREY.mean, GREY.std)
  pixels = images(source)
  want = normalised(
    np.stack(
      [
        np.asarray(
          Image.fromarray(x[..., 0].astype(np.float32)).resize(
            size[::-1], Image.Resampling.BILINEAR
          )
        )
        for x in pixels
      ]
    )[..., None],
    target,
  )
  np.testing.assert_allclose(converted(pixels, source, target), want, atol=2e-5)


def test_all_at_once_is_one_after_another():
  pixels, large = images(GREY), Input((12, 12, 3), RGB.mean, RGB.std, 1.0)
  steps = (GREY, RGB, Input((12, 12, 3), RGB.mean, RGB.std), large)
  image = normalised(pixels, GREY).astype(np.float32)
  want = jnp.asarray(image)
  for pair in zip(steps, steps[1:], strict=False):
    want = convert(want, *pair)
  got = convert(jnp.asarray(image), GREY, large)
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-3)


def test_what_is_equal_is_not_touched():
  image = jnp.asarray(normalised(images(RGB), RGB), jnp.float32)
  assert convert(image, RGB, Input(RGB.shape, RGB.mean, RGB.std)) is image
  network = models.build('linear', 3)
  assert models.with_input(network, RGB, RGB) is network


NETWORKS = {
  'read': dict(name='mlp', read_out='clip', features=(4,)),
  'adapted': dict(name='mlp', taps={'first': 'head:input'}, features=(4,)),
  'reusing': dict(
    name='resnet8',
    width=1 / 8,
    reused=dict(stage='stage3', features=5, size=(2, 2)),
  ),
}


@pytest.mark.parametrize('kind', NETWORKS)
def test_the_network_is_that_of_the_converted_images(kind):
  network = models.build(num_classes=3, **NETWORKS[kind])
  target = Input((12, 12, 3), RGB.mean, RGB.std)
  own = models.with_input(network, GREY, target)
  assert isinstance(own, OwnInput)
  shapes = tree.shapes(network, target.shape)
  assert tree.differences(tree.shapes(own, GREY.shape), shapes) == []
  draw = np.random.default_rng(0).uniform
  variables = jax.tree.map(
    lambda x: np.float32(draw(0.1, 0.5, x.shape)), shapes
  )
  image = jnp.asarray(normalised(images(GREY), GREY), jnp.float32)
  want = network.apply(variables, convert(image, GREY, target))
  got = own.apply(variables, image)
  jax.tree.map(np.testing.assert_array_equal, got, want)
  assert models.macs(own, GREY.shape) == models.macs(network, target.shape)
  assert models.read_out_of(own) == models.read_out_of(network)
  assert models.reuses(own) == models.reuses(network)
  for key in ('width', 'branches', 'dtype', 'num_classes'):
    assert getattr(own, key) == getattr(network, key)
