"""Networks whose classes are combined to those of a data set.

A teacher of 1000 classes can teach a student of ten: the probability of each
class of the student is the sum of those of some classes of the teacher.
"""

from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxkd.models.wrapper import NetworkWrapper
from jaxkd.types import Array, Outputs

# For each class of the data, the classes of the network that it consists of.
Groups = tuple[tuple[int, ...], ...]


def map_logits(logits: Array, groups: Groups) -> Array:
  """Returns the logits of groups of classes.

  The softmax of the result has the sums of the probabilities of each group,
  divided by their total: classes in no group are left out. A group of one class
  has exactly its logit, an empty group has logit -inf.

  Args:
    logits: [..., J].
    groups: of each of the K new classes, indices below J.

  Returns:
    [..., K].
  """
  order, parts = [], []
  for members, index in _by_size(groups):
    order += members
    if not index.shape[1]:
      shape = (*logits.shape[:-1], len(members))
      parts.append(jnp.full(shape, -jnp.inf, logits.dtype))
      continue
    values = logits[..., np.maximum(index, 0)]
    if index.shape[1] == 1:
      parts.append(values[..., 0])
    else:
      missing = np.broadcast_to(index < 0, values.shape)
      values = jnp.where(missing, -jnp.inf, values)
      parts.append(jax.nn.logsumexp(values, axis=-1))
  return jnp.concatenate(parts, axis=-1)[..., np.argsort(order)]


def _by_size(groups: Groups) -> Iterator[tuple[list[int], np.ndarray]]:
  """Yields groups of similar sizes together.

  A large group among many small ones does not make the small ones large: sizes
  are rounded up to powers of two.

  Yields:
    Positions of M groups, and their classes [M, size], with -1 after the last.
  """
  sizes = [1 << (len(g) - 1).bit_length() if g else 0 for g in groups]
  for size in sorted(set(sizes)):
    members = [k for k, own in enumerate(sizes) if own == size]
    index = np.full((len(members), size), -1)
    for row, k in enumerate(members):
      index[row, : len(groups[k])] = groups[k]
    yield members, index


class ClassMap(NetworkWrapper, nn.Module):
  """A network with the logits of groups of its classes, see `map_logits`.

  The variables are those of the network, with the same names.

  Attributes:
    classifier: any network, whose outputs are logits.
    groups: see `Groups`.
  """

  classifier: Any
  groups: Groups

  def setup(self):
    """Shares the network's scope, so that the variables keep their names."""
    nn.share_scope(self, self.classifier)

  def __call__(self, image: Array, train: bool = False) -> Outputs:
    """Returns logits [B, K] of the groups, and the network's taps."""
    outputs = self.classifier(image, train=train)
    return outputs.replace(logits=map_logits(outputs.logits, self.groups))

  @property
  def wrapped(self) -> Any:
    """The network."""
    return self.classifier

  @property
  def num_classes(self) -> int:
    """K, the number of groups."""
    return len(self.groups)


def with_classes(network: nn.Module, groups: Groups | None) -> nn.Module:
  """Returns a network with mapped classes; for None the network itself."""
  return network if groups is None else ClassMap(network, groups)
