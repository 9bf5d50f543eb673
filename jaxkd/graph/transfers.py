"""The outputs of a transfer's guide, and the mean of its loss."""

import functools
from collections.abc import Mapping

import jax.numpy as jnp

from jaxkd.graph import LABELS, Fusion
from jaxkd.types import Array, Outputs


def guide_outputs(
  guide: str | Fusion, outputs: Mapping[str, Outputs]
) -> Outputs | None:
  """Returns the guide's outputs; None for labels, which are in the batch.

  A fusion has no norms: a sum of BatchNorms is not a BatchNorm.

  Args:
    guide: of a transfer.
    outputs: by network.
  """
  if isinstance(guide, str):
    return None if guide == LABELS else outputs[guide]
  members = [outputs[name] for name in guide.weights]
  weights = list(guide.weights.values())

  def fuse(arrays: list[Array]) -> Array:
    terms = [w * x for w, x in zip(weights, arrays, strict=True)]
    return functools.reduce(jnp.add, terms)

  def shapes(tap: str) -> set[tuple[int, ...] | None]:
    return {m.taps[tap].shape if tap in m.taps else None for m in members}

  taps = [tap for tap in members[0].taps if len(shapes(tap)) == 1]
  return Outputs(
    logits=fuse([m.logits for m in members]),
    taps={tap: fuse([m.taps[tap] for m in members]) for tap in taps},
  )


def masked_mean(name: str, loss: Array, mask: Array) -> Array:
  """Returns the mean of a loss, weighted by the mask; a scalar as it is.

  Args:
    name: of the transfer, for the message.
    loss: [B, ...] or a scalar.
    mask: [B] or [B, ...], 1 for entries that count, or any weights of at least
      0. It is broadcast over further axes of the loss; over further axes of its
      own, its maximum is taken. The mean over a mask of zeros is 0.

  Raises:
    ValueError: shapes that do not match.
  """
  if loss.ndim == 0:
    return loss
  if mask.ndim > loss.ndim:
    mask = jnp.max(mask, axis=tuple(range(loss.ndim, mask.ndim)))
  if mask.shape != loss.shape[: mask.ndim]:
    raise ValueError(
      f'{name}: the mask of the batch must have the first axes of the loss'
      f' {list(loss.shape)}, got {list(mask.shape)}'
    )
  if mask.shape != loss.shape:
    mask = mask.reshape(mask.shape + (1,) * (loss.ndim - mask.ndim))
    mask = jnp.broadcast_to(mask, loss.shape)
  total = jnp.sum(mask)
  return jnp.sum(loss * mask) / jnp.where(total > 0, total, 1)
