"""Factor transfer (Kim, Park and Kwak, NeurIPS 2018).

https://arxiv.org/abs/1802.04977. A paraphraser, an autoencoder, extracts
factors of the guide's map; a translator extracts them of the learner's. In the
paper the paraphraser is trained first, and is frozen while the learner is
distilled: see the method `ft`.
"""

import flax.linen as nn
import jax
from jax import lax

from jaxkd import losses
from jaxkd.losses import sizes
from jaxkd.models.layers import BatchNorm, bias_uniform
from jaxkd.objectives import regressors, taps
from jaxkd.objectives.base import Objective, Published
from jaxkd.types import Array

PUBLISHED = Published(weight=200.0)


def _rectified(x: Array) -> Array:
  return nn.leaky_relu(x, 0.1)


class Paraphraser(nn.Module):
  """Three convolutions to the factor, and three from it back to the map.

  All are 3 x 3, followed by a leaky ReLU. In the published code those after
  the factor are transposed; with stride 1 that is the same layer but for its
  initialisation.

  Attributes:
    channels: of the factor.
  """

  channels: int

  @nn.compact
  def __call__(self, x: Array) -> tuple[Array, Array]:
    """Returns the factor [B, H, W, channels] and the reconstructed map."""
    features = x.shape[-1]
    for i, count in enumerate((features, self.channels, self.channels)):
      x = regressors.convolution(
        x, count, (3, 3), padding=1, name=f'encoder{i}'
      )
      x = _rectified(x)
    factor = x
    for i, count in enumerate((self.channels, features, features)):
      x = nn.Conv(
        count,
        (3, 3),
        padding=1,
        kernel_init=regressors.transposed_uniform,
        bias_init=bias_uniform(9 * count),
        name=f'decoder{i}',
      )(x)
      x = _rectified(x)
    return factor, x


class Translator(nn.Module):
  """Three 3 x 3 convolutions, each with BatchNorm and a leaky ReLU.

  Attributes:
    channels: of the factor.
  """

  channels: int

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Returns the factor [B, H, W, channels] of the map [B, H, W, C]."""
    for i, count in enumerate((x.shape[-1], self.channels, self.channels)):
      x = regressors.convolution(x, count, (3, 3), padding=1, name=f'conv{i}')
      x = _rectified(BatchNorm(name=f'bn{i}')(x, train=True))
    return x


def ft(
  stage: str = 'last',
  guide_stage: str = '',
  rate: float = 0.5,
  reconstruction: float = 0.005,
) -> Objective:
  """Matches where the networks' factors have their energy; and reconstruction.

  The larger factor is averaged to the size of the smaller one. The benchmark's
  weight of the transfer is 200, with which the default `reconstruction` has a
  weight of 1 in the whole loss. Deviation: the paraphraser learns together with
  the learner, unless `reconstruction` is 0.

  Args:
    stage: the tap of the learner, or 'last', its deepest stage.
    guide_stage: the tap of the guide, likewise; '' takes the same name.
    rate: channels of a factor, as a fraction of those of the guide's map.
    reconstruction: weight of the paraphraser's squared error. With 0 it is
      not trained: it stays as an earlier phase has trained it, or random.

  Raises:
    ValueError: a rate that is not positive, or a negative weight.

  References:
    See `losses.factor`; networks, tap and weight are the CIFAR-100 benchmark's,
    https://arxiv.org/abs/1910.10699.
  """
  _check(rate, reconstruction)

  def init(key, *, learner, guide, **_):
    s, t = taps.pair(learner, guide, stage, guide_stage)
    keys = jax.random.split(key)
    first = {'paraphraser': regressors.init(_paraphraser(t, rate), keys[0], t)}
    own = {'translator': regressors.init(_translator(t, rate), keys[1], s)}
    return ({**own, **first}, {}) if reconstruction else (own, first)

  def loss(params, memory, *, learner, guide, **_):
    s, t = taps.pair(learner, guide, stage, guide_stage)
    own = {**memory, **params}  # the paraphraser is in one of them
    factor, again = regressors.apply(
      _paraphraser(t, rate), own['paraphraser'], t
    )
    translated = regressors.apply(_translator(t, rate), own['translator'], s)
    # The paraphraser does not learn to be easily translated.
    factor = lax.stop_gradient(factor)
    value = losses.factor(*sizes.match(translated, factor))
    if reconstruction:
      value += reconstruction * losses.hint(again, t)
    return value, memory

  ends = dict(stage=stage, guide_stage=guide_stage, rate=rate)
  return Objective('ft', {**ends, 'reconstruction': reconstruction}, init, loss)


def paraphraser(
  stage: str = 'last', guide_stage: str = '', rate: float = 0.5
) -> Objective:
  """The paraphraser's squared error alone, to train it for `ft`.

  Its name is 'ft', too, so that its transfer has the name of that of a later
  phase, which starts from its parameters. The learner is not updated.

  Args:
    stage: see `ft`, also for the others.
    guide_stage: the tap of the guide.
    rate: of channels.

  Raises:
    ValueError: a rate that is not positive.
  """
  _check(rate)

  def init(key, *, learner, guide, **_):
    _, t = taps.pair(learner, guide, stage, guide_stage)
    own = regressors.init(_paraphraser(t, rate), key, t)
    return {'paraphraser': own}, {}

  def loss(params, memory, *, learner, guide, **_):
    _, t = taps.pair(learner, guide, stage, guide_stage)
    _, again = regressors.apply(_paraphraser(t, rate), params['paraphraser'], t)
    return losses.hint(again, t), memory

  ends = dict(stage=stage, guide_stage=guide_stage, rate=rate)
  return Objective('ft', {'learns': 'paraphraser', **ends}, init, loss)


def _check(rate: float, reconstruction: float = 0.0) -> None:
  if rate <= 0:
    raise ValueError(
      "ft: rate, the channels of a factor as a fraction of the guide's, must be"
      f' above 0, got {rate}'
    )
  if reconstruction < 0:
    raise ValueError(
      f'ft: reconstruction must be 0 or more, got {reconstruction}'
    )


def _channels(x: Array, rate: float) -> int:
  """Returns the channels of the factor of a map."""
  return max(1, int(rate * x.shape[-1]))


def _paraphraser(x: Array, rate: float) -> Paraphraser:
  return Paraphraser(_channels(x, rate))


def _translator(x: Array, rate: float) -> Translator:
  """Returns the translator to factors of the guide's map x."""
  return Translator(_channels(x, rate))
