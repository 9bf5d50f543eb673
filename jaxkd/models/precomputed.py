"""The place of a network whose logits come from outside of the train step."""

import flax.linen as nn
import jax.numpy as jnp

from jaxkd.types import Array, Outputs


class Precomputed(nn.Module):
  """Stands for a network that is not run: its logits come with the batch.

  They are read from a file, or another program computes them. It has no
  variables and no taps.

  Attributes:
    num_classes: K.
    params: parameters of the network, 0 if unknown.
    macs: of one image, likewise.
  """

  num_classes: int
  params: int = 0
  macs: int = 0

  @nn.compact
  def __call__(self, image: Array, train: bool = False) -> Outputs:
    """Returns zeros of the logits' shape, while shapes are found out.

    Raises:
      ValueError: the network is to be run.
    """
    del train
    if not self.is_initializing():
      raise ValueError(
        'the logits of this network come from a file or from another program:'
        ' there is no network here that could be run'
      )
    return Outputs(jnp.zeros((len(image), self.num_classes)), {})
