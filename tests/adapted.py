"""Calls of adapted networks, compiled."""

import functools

import foreign
import jax
import numpy as np

from jaxkd import models, tree

SHAPE = (4, 4, 1)
KEY = jax.random.key(0)
IMAGE = jax.random.normal(jax.random.key(1), (5, *SHAPE))

close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)


def init(net, **mode):
  return jax.jit(functools.partial(net.init, **mode))(KEY, IMAGE)


def evaluate(net, variables):
  return jax.jit(net.apply)(variables, IMAGE)


def train(net, variables, key=KEY):
  return net.apply(
    variables,
    IMAGE,
    train=True,
    mutable=['batch_stats'],
    rngs={'dropout': key},
  )


def assert_same(got, wanted):
  assert tree.digest(got) == tree.digest(wanted)


@functools.cache
def network(rate=0.0):
  """An nnx network with taps, and its variables."""
  taps = {'unit': 'units/0', 'conv': 'units/1/conv:input', 'last': 'head:input'}
  net = models.from_nnx(foreign.Nnx, 3, taps, channels=1, rate=rate)
  return net, init(net)
