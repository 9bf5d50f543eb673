"""Networks that are refused, and the messages."""

import flax.linen as nn
import foreign
import jax.numpy as jnp
import pytest
from adapted import SHAPE
from flax import nnx
from foreign import Fixed, Returning

from jaxkd import models


class Cached(nn.Module):
  """Has a collection that is no network's."""

  num_classes: int = 1

  @nn.compact
  def __call__(self, x):
    self.variable('cache', 'last', jnp.zeros, ())
    return x[:, 0, 0]


class Normed(nn.Module):
  """Has no argument for the train flag."""

  num_classes: int = 1

  @nn.compact
  def __call__(self, x):
    return nn.BatchNorm(use_running_average=True)(x)[:, 0, 0]


class Scanned(nn.Module):
  """Has its layers in a scan."""

  num_classes: int = 1

  @nn.compact
  def __call__(self, x):
    class Layer(nn.Module):
      @nn.compact
      def __call__(self, x, _):
        return nn.Dense(1)(x), None

    scan = nn.scan(
      Layer, variable_axes={'params': 0}, split_rngs={'params': True}, length=2
    )
    return scan(name='layers')(x[:, 0, 0], None)[0]


class Holder(nn.Module):
  """Has a part that returns a pair."""

  num_classes: int = 2

  @nn.compact
  def __call__(self, x):
    return Returning('first', name='pair')(x)


class Buffered(nnx.Module):
  """Has a variable that is no network's."""

  def __init__(self, rngs):
    del rngs
    self.mean = nnx.Variable(jnp.zeros(()))

  def __call__(self, x):
    return x[:, 0, 0]


class TestMistakes:
  """What is refused, and with which words."""

  @pytest.mark.parametrize(
    ('make', 'message'),
    [
      (lambda: models.adapt(foreign.Nnx), 'takes a Linen module, .* from_nnx'),
      (lambda: models.adapt(Fixed()), 'no attribute num_classes: pass'),
      (
        lambda: models.adapt(Fixed(), 1),
        "needs 'switch' in addition to the image: pass mode='switch'",
      ),
      (
        lambda: models.adapt(Fixed(), 1, mode='swich'),
        "Fixed.__call__ takes no 'swich'. Did you mean 'switch'",
      ),
      (
        lambda: models.adapt(foreign.Compact([4]), taps={'a': 'head:out'}),
        "tap 'a' must be the path of a module",
      ),
      (lambda: models.from_nnx(foreign.made(3), 3), 'nnx_variables returns'),
    ],
  )
  def test_mistakes_are_refused_when_it_is_made(self, make, message):
    with pytest.raises(ValueError, match=message):
      make()

  @pytest.mark.parametrize(
    ('net', 'message'),
    [
      (
        lambda: models.adapt(foreign.Compact([4]), taps={'a': 'Block_1'}),
        "tap 'a': Compact has no module 'Block_1'. Did you mean 'Block_0'",
      ),
      (
        lambda: models.from_nnx(
          foreign.Nnx, 3, {'a': 'units/2/conv'}, channels=1
        ),
        "Nnx has no module 'units/2/conv'. Did you mean 'units/1/conv'",
      ),
      (
        lambda: models.adapt(Scanned(), taps={'a': 'layers/Dense_0'}),
        "the values in 'layers/Dense_0' stay inside a transformation",
      ),
      (
        lambda: models.adapt(Holder(), taps={'a': 'pair'}),
        "tap 'a': pair:output must be an array, got a tuple",
      ),
      (
        lambda: models.adapt(Returning('outputs'), taps={'own': 'head'}),
        "Returning already has a tap 'own'",
      ),
      (
        lambda: models.adapt(foreign.Compact([4]), num_classes=5),
        r'must return logits \[B, 5\], .* got an array \(1, 3\)',
      ),
      (lambda: models.adapt(Cached()), "in the collection 'cache'"),
      (lambda: models.adapt(Normed()), 'but its __call__ takes none of train'),
      (
        lambda: models.from_nnx(Buffered, 1),
        "Buffered has the nnx.Variable 'mean'",
      ),
      (
        lambda: models.from_nnx(lambda rngs: None, 1),
        'must return an nnx.M',
      ),
    ],
  )
  def test_mistakes_are_refused_by_check(self, net, message):
    with pytest.raises((KeyError, ValueError), match=message):
      models.check(net(), SHAPE, train=False)

  def test_statistics_can_be_left_alone(self):
    models.check(models.adapt(Normed(), mode=''), SHAPE, train=True)
