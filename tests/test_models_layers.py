"""The convolution against a formula that shares no code with it."""

import jax
import numpy as np
import pytest

from jaxkd.models import layers


def convolve(x, kernel, stride, groups):
  """One output pixel at a time, zeros on both sides, float64."""
  k, _, depth, features = kernel.shape
  pad = k // 2
  x = np.pad(x, [(0, 0), (pad, pad), (pad, pad), (0, 0)])
  rows = range(0, x.shape[1] - k + 1, stride)
  columns = range(0, x.shape[2] - k + 1, stride)
  y = np.zeros((len(x), len(rows), len(columns), features))
  for f in range(features):
    first = f // (features // groups) * depth
    for i, row in enumerate(rows):
      for j, column in enumerate(columns):
        patch = x[:, row : row + k, column : column + k, first : first + depth]
        y[:, i, j, f] = np.sum(patch * kernel[..., f], axis=(1, 2, 3))
  return y


@pytest.mark.parametrize('side', [4, 5])
@pytest.mark.parametrize(
  'size, stride, groups',
  [(1, 1, 1), (1, 2, 1), (3, 1, 1), (3, 2, 1), (3, 1, 2), (3, 2, 4), (7, 2, 1)],
)
def test_pads_both_sides(side, size, stride, groups):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, side, side, 4)).astype(np.float32)
  kernel = rng.normal(size=(size, size, 4 // groups, 8)).astype(np.float32)
  bias = rng.normal(size=8).astype(np.float32)
  conv = layers.Conv(8, size, stride, groups, use_bias=True)
  params = {'kernel': kernel, 'bias': bias}
  got = jax.jit(conv.apply)({'params': params}, x)
  want = convolve(x, kernel.astype(np.float64), stride, groups) + bias
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
