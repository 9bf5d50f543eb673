"""Multiply-accumulates of networks that were not written for jaxkd."""

import flax.linen as nn
import foreign
import jax
import jax.numpy as jnp
import pytest
from adapted import SHAPE, network

from jaxkd import models
from jaxkd.models.cost import of_layers, of_program


def unit_macs(inputs):
  return 16 * (9 * inputs * 4)


class TestMacs:
  """Multiply-accumulates, in Linen and in nnx."""

  def test_layers_are_counted(self):
    compact = models.adapt(foreign.Compact([4, 5]))
    assert models.macs(compact, SHAPE) == 16 * 4 + 4 * 5 + 5 * 3
    want = unit_macs(1) + unit_macs(4) + 4 * 3
    assert models.macs(network()[0], SHAPE) == want
    assert models.macs(models.wrap(network()[0], 'clip'), SHAPE) == want

  def test_products_outside_of_layers_are_counted(self):
    class Own(nn.Module):
      num_classes: int = 3

      @nn.compact
      def __call__(self, x):
        kernel = self.param('kernel', nn.initializers.ones, (2, 2, 1, 4))
        mix = self.param('mix', nn.initializers.ones, (4, 4))
        numbers = ('NHWC', 'HWIO', 'NHWC')
        x = jax.lax.conv_general_dilated(
          x, kernel, (2, 2), 'SAME', dimension_numbers=numbers
        )
        tokens = x.reshape(len(x), 4, 4)
        # The next two have no parameters, or no image.
        tokens = jnp.einsum('bnd,bmd,bme->bne', tokens, tokens, tokens)
        mix = mix @ mix

        def layer(tokens, _):
          return jnp.tanh(jax.checkpoint(lambda t: t @ mix)(tokens)), None

        tokens, _ = jax.lax.scan(layer, tokens, length=3)
        return nn.Dense(3)(tokens[:, 0])

    convolution, layers, head = 4 * (2 * 2 * 4), 3 * (4 * 4 * 4), 4 * 3
    net = models.adapt(Own())
    assert models.macs(net, SHAPE) == convolution + layers + head

  @pytest.mark.parametrize(
    ('name', 'settings', 'shape'),
    [
      ('resnet8', {}, (32, 32, 3)),
      ('vit_tiny', {'patch': 4}, (8, 8, 3)),
      ('mlp', {}, SHAPE),
    ],
  )
  def test_both_counts_agree(self, name, settings, shape):
    """That of layers is compared with published numbers elsewhere."""
    net = models.build(name, 10, **settings)
    assert of_program(net, shape) == of_layers(net, shape) > 0
