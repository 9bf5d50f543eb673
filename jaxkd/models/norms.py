"""The BatchNorm in front of a tap, on request.

OFD needs scale and bias of the BatchNorm in front of an activation. A network
records them in a separate collection, so that they cost nothing unless they are
requested; `apply` requests them, and returns them as `Outputs.norms`.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from jaxkd.types import Array, Outputs, Tree

NORMS = 'norms'  # the collection


def record_norm(module: nn.Module, tap: str, norm: Mapping[str, Array]) -> None:
  """Records which BatchNorm a tap, or its last summand, is the output of.

  Args:
    module: the network.
    tap: name of the tap.
    norm: parameters of the BatchNorm, 'scale' and 'bias' [C].
  """
  if not module.is_initializing():
    module.sow(
      NORMS, tap, dict(norm), init_fn=dict, reduce_fn=lambda _, new: new
    )


def apply(
  network: nn.Module,
  variables: Mapping[str, Tree],
  image: Array,
  train: bool = False,
  rngs: Mapping[str, Array] | None = None,
) -> tuple[Outputs, Tree]:
  """Runs a network and collects the BatchNorms that it records.

  Args:
    network: any network.
    variables: its arrays.
    image: [B, H, W, C].
    train: the train flag.
    rngs: keys by stream, for networks with dropout and the like.

  Returns:
    Outputs with `norms`; and, in train mode, the new 'batch_stats', otherwise
    {}.
  """
  mutable = [NORMS, 'batch_stats'] if train else [NORMS]
  results: Any = network.apply(
    variables, image, train=train, mutable=mutable, rngs=dict(rngs or {})
  )
  outputs, updated = results
  outputs = outputs.replace(norms=updated.get(NORMS, {}))
  return outputs, updated.get('batch_stats', {})
