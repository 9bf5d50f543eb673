"""The four shapes of data that every part of the project agrees on."""

from typing import Any, NamedTuple, TypedDict

import jax
import jax.numpy as jnp

Array = jax.Array
Tree = Any  # a pytree of arrays: nested dicts, as Flax makes them
DTYPES = {'bfloat16': jnp.bfloat16, 'float32': jnp.float32}  # of computation
Metrics = dict[str, Array]  # flat; names use slashes, values are scalars


class Batch(TypedDict):
  """What every train step and every evaluation sees of the data.

  image: float32 [B, H, W, C], normalised and, in training, augmented.
  label: int32 [B], in 0..K-1.
  index: int32 [B], position of the example in its split.
  mask: float32 [B], 1 for an example that counts and 0 for padding.
  """

  image: Array
  label: Array
  index: Array
  mask: Array


class Outputs(NamedTuple):
  """What every network returns.

  logits: float32 [B, K].
  taps: intermediate features by name: 'stem', 'stage1', 'stage1_pre' (before
    the stage's last activation), ..., 'pooled' [B, D]. Maps are [B, H, W, C];
    a transformer's tokens are [B, N, D].
  """

  logits: Array
  taps: dict[str, Array]


# A network's arrays: 'params', what is trained, and 'batch_stats', what
# BatchNorm accumulates.
Variables = dict[str, Tree]
