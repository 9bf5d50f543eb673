"""The types that every part of the project shares."""

import dataclasses
from collections.abc import Iterator
from typing import Any, NotRequired, Self, TypedDict

import jax
import jax.numpy as jnp

Array = jax.Array
Tree = Any  # a pytree of arrays: nested dicts, as Flax makes them
DTYPES = {'bfloat16': jnp.bfloat16, 'float32': jnp.float32}  # of computation
Metrics = dict[str, Array]  # flat; names use slashes, values are scalars


class Batch(TypedDict):
  """The data of one train step or evaluation step.

  image: float32 [B, H, W, C], normalised and, in training, augmented.
  label: int32 [B], in 0..K-1.
  index: int32 [B], position of the example in its split.
  mask: float32, 1 for entries that count and 0 for padding: [B], or of the
    shape of the labels where an example has one for each entry. In training it
    holds the examples' weights, if the data have any: numbers of at least 0.
  precomputed: by network, the outputs of frozen networks that the step does not
    run.
  seed: uint32 scalar, of the run: one program serves all seeds.
  """

  image: Array
  label: Array
  index: Array
  mask: Array
  precomputed: NotRequired[dict[str, 'Outputs']]
  seed: NotRequired[Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Outputs:
  """What every network returns; unpacks as the pair (logits, taps).

  logits: float32 [B, K].
  taps: intermediate features by name: 'stem', 'stage1', 'stage1_pre' (before
    the stage's last activation), ..., 'pooled' [B, D]. Maps are [B, H, W, C];
    a transformer's tokens are [B, N, D].
  norms: 'scale' and 'bias' [C] of the BatchNorm in front of a tap, by the tap's
    name; {} unless asked for, see `models.norms`.
  """

  logits: Array
  taps: dict[str, Array]
  norms: dict[str, dict[str, Array]] = dataclasses.field(default_factory=dict)

  def __iter__(self) -> Iterator[Any]:
    yield self.logits
    yield self.taps

  def replace(self, **changes: Any) -> Self:
    """Returns a copy with other values of some fields."""
    return dataclasses.replace(self, **changes)


# A network's arrays: 'params' are trained, 'batch_stats' are accumulated by
# BatchNorm.
Variables = dict[str, Tree]
