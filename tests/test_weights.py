"""Weights that change while training goes on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.methods.weights import Ramp, WarmUp, warm_up


@pytest.mark.parametrize(
  ('ramp', 'points'),
  [
    (Ramp(1.0, 0.0, 2, 4), {0: 1, 2: 1, 2.5: 0.75, 3: 0.5, 4: 0, 9: 0}),
    (Ramp(0.0, 3.0, 0, 10), {0: 0, 1: 0.3, 10: 3, 99: 3}),
    (Ramp(0.1, 0.7, 5, 5), {0: 0.1, 4.99: 0.1, 5: 0.7, 6: 0.7}),
  ],
  ids=str,
)
def test_a_ramp_at_some_epochs(ramp, points):
  at = jax.jit(lambda epoch: ramp(epoch))
  for epoch, want in points.items():
    got = at(jnp.float32(epoch))
    assert got.shape == () and got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_a_ramp_ends_exactly():
  ramp = Ramp(0.3, 0.7, 1, 3)
  for epoch, want in ((1, ramp.start), (3, ramp.stop)):
    assert ramp(jnp.float32(epoch)) == np.float32(want)


@pytest.mark.parametrize(('first', 'last'), [(-1, 3), (3, 2)])
def test_a_ramp_has_an_order(first, last):
  message = f'from epoch {first} to epoch {last}: expected 0 <= first'
  with pytest.raises(ValueError, match=message):
    Ramp(0.0, 1.0, first, last)


def test_a_warm_up_has_one_value_for_each_epoch():
  """As in the published code of DKD: min(epoch / warmup, 1), counted from 1."""
  weight = warm_up(0.9, 4)
  epochs = np.linspace(0, 6, 25)[:-1]
  want = [0.9 * min((int(epoch) + 1) / 4, 1) for epoch in epochs]
  got = [weight(jnp.float32(epoch)) for epoch in epochs]
  np.testing.assert_allclose(got, want, rtol=1e-6)


def test_no_epochs_warm_up_nothing():
  assert warm_up(0.9, 0) == 0.9
  with pytest.raises(ValueError, match='1 epoch or more, got -3'):
    warm_up(0.9, -3)


def test_they_print_what_they_do():
  assert str(Ramp(1.0, 0.0, 30, 40)) == '1 to 0, epochs 30 to 40'
  assert str(Ramp(0.0, 0.5, 30, 30)) == '0 to 0.5, epoch 30'
  assert str(WarmUp(0.9, 20)) == '0.9 after 20 epochs'
