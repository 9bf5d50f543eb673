"""Which BatchNorm a tap comes from, told to those who ask.

OFD needs the scale and bias behind a map before its activation. A network notes
them in a collection of their own, so that they cost nothing where nobody asks,
and `Outputs` stay what they are; a training step asks, and hears of them as
further taps: of 'stage1_pre' as 'stage1_pre:scale' and 'stage1_pre:bias', [C].
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from jaxkd.types import Array, Outputs, Tree

NORMS = 'norms'  # the collection


def note(module: nn.Module, tap: str, norm: Mapping[str, Array]) -> None:
  """Notes what a tap is, or the last summand of what it is.

  Args:
    module: the network.
    tap: its name.
    norm: the parameters of the BatchNorm in front of it, 'scale' and 'bias'.
  """
  if not module.is_initializing():
    module.sow(
      NORMS, tap, dict(norm), init_fn=dict, reduce_fn=lambda _, new: new
    )


def run(
  network: nn.Module,
  variables: Mapping[str, Tree],
  image: Array,
  train: bool = False,
  keys: Mapping[str, Array] | None = None,
) -> tuple[Outputs, Tree]:
  """Runs a network and asks for its notes.

  Args:
    network: any.
    variables: its arrays.
    image: [B, H, W, C].
    train: the mode.
    keys: by stream, for networks that draw.

  Returns:
    Outputs, with what has been noted among the taps; and, in train mode, the
    new 'batch_stats'.
  """
  asked = [NORMS, 'batch_stats'] if train else [NORMS]
  found: Any = network.apply(
    variables, image, train=train, mutable=asked, rngs=dict(keys or {})
  )
  said, made = found
  norms = made.get(NORMS, {})
  noted = {f'{tap}:{x}': norms[tap][x] for tap in norms for x in norms[tap]}
  said = said._replace(taps={**said.taps, **noted})
  return said, made.get('batch_stats', {})
