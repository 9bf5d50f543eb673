"""Taps by name or by place, and as maps.

A tap's place is 'last', a network's deepest stage, whatever its number, or
'last_pre', that stage before its activation. Where a stage ends without an
activation, as in MobileNetV2 and in transformers, there is no tap 'stage1_pre',
and 'stage1' is what that name stands for.

A map is [B, H, W, C]. The tokens [B, N, D] of a transformer become the map of
its patches, without the class token; a vector [B, D] is a map of one pixel.
"""

import re

from jaxkd.losses import sizes
from jaxkd.types import Array, Outputs

STEM, LAST, PRE, POOLED = 'stem', 'last', '_pre', 'pooled'


def stages(outputs: Outputs) -> list[str]:
  """Returns the names of a network's stages, the deepest last."""
  names = [name for name in outputs.taps if re.fullmatch(r'stage\d+', name)]
  return sorted(names, key=lambda name: int(name.removeprefix('stage')))


def resolve(outputs: Outputs, tap: str) -> str | None:
  """Returns the name of a tap, by its name or place; None if there is none."""
  if tap in (LAST, LAST + PRE):
    names = stages(outputs)
    if not names:
      return None
    tap = tap.replace(LAST, names[-1])
  tap = tap if tap in outputs.taps else tap.removesuffix(PRE)
  return tap if tap in outputs.taps else None


def as_maps(x: Array, y: Array) -> tuple[Array, Array]:
  """Returns two taps as maps, float32, each in a size of its own.

  Args:
    x: a map, tokens, or a vector.
    y: likewise; tokens get the aspect ratio of the other's map.

  Raises:
    ValueError: tokens that do not form a grid.
  """
  return sizes.as_map(x, _aspect(y)), sizes.as_map(y, _aspect(x))


def _aspect(x: Array) -> tuple[int, int]:
  """Returns a map's height and width; tokens and vectors count as square."""
  return (x.shape[1], x.shape[2]) if x.ndim == 4 else (1, 1)
