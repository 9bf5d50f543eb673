"""Contrastive representation distillation (Tian et al., ICLR 2020).

https://arxiv.org/abs/1910.10699. An example's embeddings by both networks are a
pair, to be distinguished from pairs with the other network's embeddings of
other examples, which are kept in memory.

Deviations from the published code: negatives are sampled on the device, within
the step, with replacement (16,384 draws out of 49,500 examples are about
13,900 different ones); without it, they would have to be sorted on each visit.
And labels are collected from the batches: in the first epoch, an example that
has not been visited yet can be a negative of the same class, as one in a
hundred is in CIFAR-100.
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxkd import losses
from jaxkd.catalog import check_whole, is_number
from jaxkd.losses.numerics import einsum, unit
from jaxkd.losses.temperature import check_temperature
from jaxkd.objectives import regressors, taps
from jaxkd.objectives.base import Objective, Published
from jaxkd.types import Array, Batch

PUBLISHED = Published(weight=0.8)

UNVISITED = -1  # the label of an example that has not been visited


class Embeddings(nn.Module):
  """A linear layer for each network's features, normalised to unit length.

  Attributes:
    dim: D of the embeddings.
  """

  dim: int

  @nn.compact
  def __call__(self, learner: Array, guide: Array) -> Array:
    """Returns the embeddings of features [B, ...] of both, [2, B, D]."""
    embed = functools.partial(regressors.Embedding, self.dim)
    both = embed(name='learner')(learner), embed(name='guide')(guide)
    return unit(jnp.stack(both))


def others(key: Array, index: Array, examples: int, count: int) -> Array:
  """Draws examples, each from all but one, uniformly and with replacement.

  Args:
    key: for the draws.
    index: int32 [B], the examples that are left out.
    examples: N > 1.
    count: K, of draws for each.

  Returns:
    int32 [B, K], in 0..N-1.
  """
  draw = _below(key, jnp.full(index.shape, examples - 1), count)
  return draw + (draw >= index[:, None])


def of_other_classes(
  key: Array, labels: Array, own: Array, count: int
) -> Array:
  """Draws examples of other classes, uniformly and with replacement.

  Args:
    key: for the draws.
    labels: int32 [N], of all examples.
    own: int32 [B], the classes that are left out; there must be others.
    count: K, of draws for each.

  Returns:
    int32 [B, K], in 0..N-1.
  """
  # In the order of the labels, the examples of a class are an interval.
  order = jnp.argsort(labels)
  start, stop = (
    jnp.searchsorted(labels, own, side, sorter=order)
    for side in ('left', 'right')
  )
  draw = _below(key, len(labels) - (stop - start), count)
  place = draw + jnp.where(draw < start[:, None], 0, (stop - start)[:, None])
  return jnp.take(order, place, mode='clip')


def _below(key: Array, limits: Array, count: int) -> Array:
  """Returns int32 [B, count], uniform below the limits [B].

  No number is more than limit / 2^32 more probable than another.
  """
  bits = jax.random.bits(key, (len(limits), count), jnp.uint32)
  limits = jnp.maximum(limits, 1).astype(jnp.uint32)
  return (bits % limits[:, None]).astype(jnp.int32)


def crd(
  dim: int = 128,
  negatives: int = 16384,
  temperature: float = 0.07,
  momentum: float = 0.5,
  same_class: bool = False,
  stage: str = 'pooled',
  guide_stage: str = '',
) -> Objective:
  """Noise contrastive estimation of which embeddings are of one example.

  The benchmark's weight of the transfer is 0.8. Memory takes 8 N D bytes.

  Args:
    dim: D of the embeddings.
    negatives: K, at most N - 1.
    temperature: T > 0 of the cosines.
    momentum: weight of a memory row's old value in the new one, 0 to below 1.
    same_class: negatives are drawn from all other examples, whatever their
      class, for data whose labels are not to be used.
    stage: the tap of the learner.
    guide_stage: the tap of the guide; '' takes the same name.

  Raises:
    ValueError: a setting out of its range, or a training set of one example.

  References:
    https://arxiv.org/abs/1910.10699, section 3; the memory and the defaults are
    the published code's (https://github.com/HobbitLong/RepDistiller), in its
    mode 'exact', where the positive is the example itself.
  """
  check_whole('crd', 'dim', dim)
  check_whole('crd', 'negatives', negatives)
  check_temperature('crd', temperature)
  if not (is_number(momentum) and 0 <= momentum < 1):
    raise ValueError(
      f'crd: momentum must be a number from 0 to below 1, got {momentum!r}'
    )

  def init(key, *, learner, guide, examples):
    ends = taps.pair(learner, guide, stage, guide_stage)
    layers, rows = jax.random.split(key)
    memory = _memory(rows, dim, examples)
    if not same_class:
      memory['label'] = jnp.full(examples, UNVISITED)
    return regressors.init(Embeddings(dim), layers, *ends), memory

  def loss(params, memory, *, learner, guide, batch, key, **_):
    ends = taps.pair(learner, guide, stage, guide_stage)
    vectors = regressors.apply(Embeddings(dim), params, *ends)
    pairs, memory = _pairs(memory, batch, key, negatives)
    value, memory = _scored(vectors, memory, pairs, temperature)
    return value, _updated(memory, batch['index'], vectors, momentum)

  settings: dict[str, object] = dict(
    dim=dim, negatives=negatives, temperature=temperature, momentum=momentum
  )
  settings |= dict(same_class=same_class, stage=stage, guide_stage=guide_stage)
  return Objective('crd', settings, init, loss)


def _memory(key: Array, dim: int, examples: int) -> dict[str, Array]:
  """Returns rows 'bank' [2, N, D], of the learner and the guide, and 'z' [2].

  The rows are not of unit length before their first visit. Z is 0 before the
  first batch.
  """
  if examples < 2:
    raise ValueError(
      f'crd needs two training examples at least, got {examples}'
    )
  bank = jax.random.uniform(key, (2, examples, dim), minval=-1)
  return {'bank': bank * math.sqrt(3 / dim), 'z': jnp.zeros(2)}


def _pairs(
  memory: dict[str, Array], batch: Batch, key: Array, negatives: int
) -> tuple[Array, dict[str, Array]]:
  """Returns each example and its negatives, [B, 1 + K], and memory."""
  index, own, examples = batch['index'], batch['label'], memory['bank'].shape[1]
  count = min(negatives, examples - 1)
  if 'label' in memory:
    label = memory['label'].at[index].set(own)
    memory = {**memory, 'label': label}
    sampled = of_other_classes(key, label, own, count)
  else:
    sampled = others(key, index, examples, count)
  return jnp.concatenate([index[:, None], sampled], axis=1), memory


def _scored(
  vectors: Array, memory: dict[str, Array], pairs: Array, temperature: float
) -> tuple[Array, dict[str, Array]]:
  """Returns the loss of both directions, [B], and memory.

  Z makes the mean of a direction's scores on the first batch 1 / N, and stays.

  Args:
    vectors: embeddings by the learner and by the guide, [2, B, D].
    memory: each is scored with the other one's rows.
    pairs: [B, 1 + K], the example itself first.
    temperature: T.
  """
  examples = memory['bank'].shape[1]
  # With all rows: quicker than to gather K of them for each example. And it is
  # the vectors that change places, not the rows.
  cosines = einsum('abd,and->abn', vectors[::-1], memory['bank'])
  scored = jnp.take_along_axis(
    cosines, pairs[None], axis=2, mode='promise_in_bounds'
  )
  scores = jnp.exp(scored / temperature)
  mean = lax.stop_gradient(jnp.mean(scores, axis=(1, 2)))
  z = jnp.where(memory['z'] > 0, memory['z'], mean[::-1] * examples)
  theirs, ours = scores / z[::-1].reshape(2, 1, 1)
  value = losses.crd_nce(ours, examples) + losses.crd_nce(theirs, examples)
  return value, {**memory, 'z': z}


def _updated(
  memory: dict[str, Array], index: Array, vectors: Array, momentum: float
) -> dict[str, Array]:
  """Returns memory with the unit vector of old and new in visited rows."""
  bank = memory['bank']
  # Memory has no gradient, and that of writing to it is a pass over all rows.
  vectors = lax.stop_gradient(vectors)
  rows = momentum * bank[:, index] + (1 - momentum) * vectors
  return {**memory, 'bank': bank.at[:, index].set(unit(rows))}
