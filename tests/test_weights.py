"""Weights that change during training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxkd.methods import weights
from jaxkd.methods.weights import (
  Product,
  Ramp,
  WarmUp,
  times,
  warm_up,
)


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
  at = jax.jit(lambda epoch: ramp(epoch, 100))
  for epoch, want in points.items():
    got = at(jnp.float32(epoch))
    assert got.shape == () and got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_a_ramp_ends_exactly():
  ramp = Ramp(0.3, 0.7, 1, 3)
  for epoch, want in ((1, ramp.start), (3, ramp.stop)):
    assert ramp(jnp.float32(epoch), 9) == np.float32(want)


@pytest.mark.parametrize(('first', 'last'), [(-1, 3), (3, 2)])
def test_a_ramp_must_not_end_before_it_begins(first, last):
  message = f'not end before it begins, got epoch {first} to epoch {last}'
  with pytest.raises(ValueError, match=message):
    Ramp(0.0, 1.0, first, last)


def test_a_warm_up_has_one_value_for_each_epoch():
  """As in the published code of DKD: min(epoch / warmup, 1), counted from 1."""
  weight = warm_up(0.9, 4)
  epochs = np.linspace(0, 6, 25)[:-1]
  want = [0.9 * min((int(epoch) + 1) / 4, 1) for epoch in epochs]
  got = [weight(jnp.float32(epoch), 6) for epoch in epochs]
  np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize(
  ('weight', 'message'),
  [
    (WarmUp(0.9, 4), 'a warm-up of a weight must be at most the 3 epochs of'),
    (Ramp(0.0, 1.0, 1, 4), 'a ramp of a weight must end within the 3 epochs'),
    (Ramp(0.0, 1.0, 0.5, 4), 'a ramp of a weight must end within the 3 epochs'),
  ],
)
def test_a_phase_must_be_long_enough_for_a_weight(weight, message):
  assert np.isfinite(weight(jnp.float32(0), 4))
  with pytest.raises(ValueError, match=message):
    weight(jnp.float32(0), 3)


def test_no_epochs_warm_up_nothing():
  assert warm_up(0.9, 0) == 0.9
  with pytest.raises(ValueError, match='warmup_epochs must be .* got -3'):
    warm_up(0.9, -3)


def test_weights_print_as_descriptions():
  assert str(Ramp(1.0, 0.0, 30, 40)) == '1 to 0, epochs 30 to 40'
  assert str(Ramp(0.0, 0.5, 30, 30)) == '0 to 0.5, epoch 30'
  assert str(Ramp(1.0, 0.0)) == '1 to 0, from 0 to the end'
  assert str(Ramp(1.0, 0.0, 20)) == '1 to 0, from 20 to the end'
  assert str(Ramp(1.0, 0.0, 2, 0.75)) == '1 to 0, from 2 to 0.75'
  assert str(Ramp(0.9, 0.1, 0.5, 0.5)) == '0.9 to 0.1, at 0.5'
  assert str(WarmUp(0.9, 20)) == '0.9 after 20 epochs'


# In a phase


@pytest.mark.parametrize(
  ('spec', 'points'),
  [
    (dict(schedule='linear', start=1.0, end=0.0), {0: 1, 4: 0.5, 8: 0, 9: 0}),
    (
      dict(schedule='cosine', start=2.0, end=1.0, first=2, last=0.75),
      {0: 2, 2: 2, 3: 1 + np.cos(np.pi / 8) ** 2, 4: 1.5, 6: 1, 8: 1},
    ),
    (
      dict(schedule='exponential', start=1.0, end=0.01),
      {0: 1, 4: 0.1, 8: 0.01},
    ),
    (
      dict(schedule='step', start=0.9, end=0.1, epoch=0.5),
      {0: 0.9, 3.99: 0.9, 4: 0.1, 8: 0.1},
    ),
    (dict(schedule='step', start=0.9, end=0.0, epoch=5), {4.99: 0.9, 5: 0}),
    (dict(schedule='step', start=0.9, end=0.0, epoch=1), {0.99: 0.9, 1: 0}),
    (
      dict(schedule='warm_up', weight=0.5, epochs=2),
      {0: 0.25, 0.9: 0.25, 1: 0.5},
    ),
  ],
  ids=lambda x: x.get('schedule', ''),
)
def test_a_schedule_in_a_phase_of_8_epochs(spec, points):
  weight = weights.make(spec)
  at = jax.jit(lambda epoch: weight(epoch, 8))
  for epoch, want in points.items():
    got = at(jnp.float32(epoch))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)


def test_a_number_is_a_constant_weight():
  assert weights.make(0.9) == 0.9
  assert weights.make({'schedule': 'constant', 'weight': 0.9}) == 0.9


@pytest.mark.parametrize(
  ('spec', 'message'),
  [
    (dict(schedule='cosin', start=1, end=0), "no schedule .*'cosin'. Did you"),
    (dict(schedule='cosine', start=1), "needs the setting 'end'"),
    (dict(schedule='cosine', start=1, stop=0), "takes no setting 'stop'"),
    (dict(start=1.0, end=0.0), "with a 'schedule', one of constant, cosine"),
    (
      dict(schedule='exponential', start=1, end=0),
      'must be above 0, got 1 to 0',
    ),
    ('0.9', "a weight .* must be a finite number, 0 or more, got '0.9'"),
    (-0.5, '0 or more, got -0.5'),
    (float('nan'), '0 or more, got nan'),
    (float('inf'), '0 or more, got inf'),
    (True, '0 or more, got True'),
    ('benchmark', "'benchmark' is for the weights of single"),
    (dict(schedule='linear', start='1', end=0), "start of .*'linear'.*got '1'"),
    (dict(schedule='step', start=1, end=-1, epoch=2), 'end of .*, got -1'),
    (dict(schedule='step', start=1, end=0, epoch=None), 'epoch of .* got None'),
    (dict(schedule='constant', weight=True), 'weight of .* got True'),
    (dict(schedule='warm_up', weight=1, epochs=1.5), 'epochs must .* 1.5'),
  ],
)
def test_wrong_weights_are_explained(spec, message):
  with pytest.raises((KeyError, ValueError), match=message):
    weights.make(spec)


@pytest.mark.parametrize('epochs', [1.5, '2', -1, True])
def test_a_warm_up_takes_whole_epochs(epochs):
  message = f'warmup_epochs must be a whole number .* got {epochs!r}'
  with pytest.raises(ValueError, match=message):
    weights.make(0.9, epochs)


def test_last_none_is_the_end_of_the_phase():
  spec = dict(schedule='linear', start=1.0, end=0.0, last=None)
  assert weights.make(spec) == Ramp(1.0, 0.0)


def test_a_phase_may_be_too_short_for_a_schedule():
  spec = dict(schedule='linear', start=1, end=0, first=20)
  message = r'got epoch 20 to epoch 10 \(1 to 0, from 20 to the end\)'
  with pytest.raises(ValueError, match=message):
    weights.make(spec)(jnp.float32(0), 10)
  with pytest.raises(ValueError, match=message):
    tiny.experiment(method=dict(name='kd', guide_weight=spec), epochs=10)


def test_weights_multiply():
  ramp, warm = Ramp(1.0, 0.0), WarmUp(0.5, 2)
  assert times(0.9, 2.0) == 0.9 * 2.0
  assert times(1.0, ramp) is ramp and times(warm, 1.0) is warm
  product = times(2.0, times(ramp, warm))
  assert isinstance(product, Product)
  got = product(jnp.float32(1), 4)
  np.testing.assert_allclose(got, 2.0 * 0.75 * 0.5, rtol=1e-6)
  assert str(product) == (
    '2 x ((1 to 0, from 0 to the end) x (0.5 after 2 epochs))'
  )


def test_a_schedule_is_described_in_fractions_of_its_phase():
  spec = dict(schedule='linear', start=1.0, end=0.0)
  made = tiny.experiment(method=dict(name='kd', guide_weight=spec), epochs=6)
  assert '1 to 0, from 0 to the end' in made.describe()
