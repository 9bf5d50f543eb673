"""Evaluation of a network on a whole split, on all devices."""

import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh

from jaxkd import evaluate
from jaxkd.data import augment, batches
from jaxkd.data.base import Dataset, View
from jaxkd.program import predict
from jaxkd.train import mesh as meshes
from jaxkd.types import Array, Metrics, Variables

BATCH = 500  # at most, for each device


@dataclasses.dataclass
class Evaluator:
  """Measures networks on the test split of a data set.

  dataset: its test split is evaluated, in the test view.
  mesh: the devices.
  """

  dataset: Dataset
  mesh: Mesh

  def __post_init__(self):
    self._arrays = meshes.resident(self.dataset.test, self.mesh)

  def __call__(
    self, module: nn.Module, variables: Variables
  ) -> dict[str, float]:
    """Returns 'top1' (a fraction) and 'nll' (nats) over the split."""
    sums = [  # all dispatched before the first is waited for
      _counts(module, self.dataset.view, variables, self._arrays, raw, mask)
      for raw, mask in self._batches()
    ]
    return evaluate.means(sums, len(self.dataset.test))

  def logits(
    self, module: nn.Module, variables: Variables, examples: int
  ) -> np.ndarray:
    """Returns the logits [N, K] of the first N = `examples` test images."""
    found = []
    for raw, _ in self._batches():
      found.append(
        np.asarray(
          _logits(module, self.dataset.view, variables, self._arrays, raw)[0]
        )
      )
      if sum(map(len, found)) >= examples:
        break
    return np.concatenate(found)[: min(examples, len(self.dataset.test))]

  def _batches(self) -> Iterator[tuple[Any, Array]]:
    size = len(self.dataset.test)
    devices = self.mesh.size
    batch = min(BATCH, -(-size // devices)) * devices
    pairs = list(batches.eval_batches(size, batch))
    indices, masks = zip(*pairs, strict=True)
    if not self._arrays:
      indices = batches.prefetch(self.dataset.test, indices, 0, None)
    split = meshes.batch_split(self.mesh, batch)
    for pair in zip(indices, masks, strict=True):
      yield jax.device_put(pair, split)


@partial(jax.jit, static_argnames=('module', 'view'))
def _counts(
  module: nn.Module,
  view: View,
  variables: Variables,
  arrays: dict[str, Array],
  raw: Any,
  mask: Array,
) -> Metrics:
  """Counts over one batch."""
  logits, labels = _logits(module, view, variables, arrays, raw)
  return evaluate.counts(logits, labels, mask)


@partial(jax.jit, static_argnames=('module', 'view'))
def _logits(
  module: nn.Module,
  view: View,
  variables: Variables,
  arrays: dict[str, Array],
  raw: Any,
) -> tuple[Array, Array]:
  """Logits and labels of a batch: of indices into `arrays`, or raw images."""
  raw = batches.gather(arrays, raw) if arrays else raw
  image = augment.eval_view(raw['image'], view=view)
  return predict(module, variables, image).logits, raw['label']
