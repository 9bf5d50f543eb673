"""Evaluation of a network on a whole split, on all devices."""

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxkd import evaluate
from jaxkd.catalog import lookup
from jaxkd.data import augment, batches
from jaxkd.data.base import Dataset, View
from jaxkd.evaluate.sums import Sums
from jaxkd.graph.program import predict
from jaxkd.train import mesh as meshes
from jaxkd.types import Array, Outputs, Variables

BATCH = 500  # at most, for each device


class Examples(NamedTuple):
  """What a network says of N images, in NumPy.

  logits: float32 [N, K].
  labels: int32 [N], the right answers.
  taps: float32 [N, ...] by name, see `Outputs`.
  """

  logits: np.ndarray
  labels: np.ndarray
  taps: dict[str, np.ndarray]


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
    """Returns means over the split.

    Returns:
      'top1', 'top5' and 'ece' (fractions), 'nll' (nats), 'brier'; and where the
      split's posterior is known 'posterior_square' and 'posterior_kl' (nats),
      see `evaluate.distance`.
    """
    return evaluate.summary(self.totals(module, variables))

  def totals(
    self, module: nn.Module, variables: Variables
  ) -> dict[str, np.ndarray]:
    """Returns sums over the split, which means and diagrams are made of."""
    view, size = self.dataset.view, len(self.dataset.test)
    sums = self._each(partial(_sums, module, view, variables), size)
    return evaluate.totals(sums, size)

  def totals_of(
    self, predict: Callable[[np.ndarray], np.ndarray]
  ) -> dict[str, np.ndarray]:
    """Returns such sums of any function of normalised images.

    Args:
      predict: images [B, H, W, C] -> logits [B, K], in NumPy.
    """
    view, size = self.dataset.view, len(self.dataset.test)

    def sums(arrays: dict[str, Array], raw: Any, mask: Array) -> Sums:
      raw = jax.device_get(_gather(arrays, raw))
      image = augment.eval_view(raw['image'], view=view)
      return _diagnostics(predict(np.asarray(image)), raw, np.asarray(mask))

    return evaluate.totals(self._each(sums, size), size)

  def reliability(
    self, module: nn.Module, variables: Variables
  ) -> dict[str, np.ndarray]:
    """Returns a network's confidence and accuracy by bin of confidence."""
    return evaluate.reliability(self.totals(module, variables))

  def compare(
    self,
    module: nn.Module,
    variables: Variables,
    other_module: nn.Module,
    other_variables: Variables,
    temperature: float = 1.0,
  ) -> dict[str, float]:
    """Returns how far a network says what another one says.

    Args:
      module: the student.
      variables: the student's.
      other_module: the teacher.
      other_variables: the teacher's.
      temperature: T > 0, see `evaluate.agreement`.

    Returns:
      'agreement', the fraction of equal answers, and 'kl', KL(other ||
      network) in nats.
    """
    sums = self._each(
      partial(
        _agreement,
        (module, other_module),
        self.dataset.view,
        (variables, other_variables),
        temperature,
      ),
      len(self.dataset.test),
    )
    return evaluate.means(sums, len(self.dataset.test))

  def outputs(
    self,
    module: nn.Module,
    variables: Variables,
    examples: int,
    taps: tuple[str, ...] = ('pooled',),
  ) -> Examples:
    """Returns what a network says of the first test images.

    Args:
      module: the network.
      variables: its arrays.
      examples: N; all if the split has fewer.
      taps: the names of those to return.

    Raises:
      KeyError: the network has no such tap, with suggestions.
    """
    size = min(examples, len(self.dataset.test))
    say = partial(_outputs, module, self.dataset.view, taps, variables)
    parts = jax.device_get(self._each(say, size))
    whole, labels = jax.tree.map(lambda *x: np.concatenate(x)[:size], *parts)
    return Examples(whole.logits, labels, whole.taps)

  def logits(
    self, module: nn.Module, variables: Variables, examples: int
  ) -> np.ndarray:
    """Returns the logits [N, K] of the first N = `examples` test images."""
    return self.outputs(module, variables, examples, taps=()).logits

  def _each(self, function: Callable[..., Any], examples: int) -> list[Any]:
    """Returns function(arrays, raw, mask) of the batches of some examples.

    All are dispatched before the first is waited for, but not on CPUs: their
    devices share one pool of threads, in which two batches that both need all
    devices can keep each other from ever ending.
    """
    found = []
    for raw, mask in self._batches(examples):
      found.append(function(self._arrays, raw, mask))
      if jax.default_backend() == 'cpu':
        jax.block_until_ready(found[-1])
    return found

  def _batches(self, examples: int) -> Iterator[tuple[Any, Array]]:
    """Yields the batches that hold the first examples, and their masks."""
    size = len(self.dataset.test)
    devices = self.mesh.size
    batch = min(BATCH, -(-size // devices)) * devices
    pairs = list(batches.eval_batches(size, batch))[: -(-examples // batch)]
    indices, masks = zip(*pairs, strict=True)
    if not self._arrays:
      indices = batches.prefetch(self.dataset.test, indices, 0, None)
    split = meshes.batch_split(self.mesh, batch)
    for pair in zip(indices, masks, strict=True):
      yield jax.device_put(pair, split)


@partial(jax.jit, static_argnames=('module', 'view'))
def _sums(
  module: nn.Module,
  view: View,
  variables: Variables,
  arrays: dict[str, Array],
  raw: Any,
  mask: Array,
) -> Sums:
  """All diagnostics of one network over one batch."""
  raw = _gather(arrays, raw)
  logits = _predict(module, view, variables, raw).logits
  return _diagnostics(logits, raw, mask)


@jax.jit
def _diagnostics(logits: Array, raw: dict[str, Array], mask: Array) -> Sums:
  """All diagnostics of logits [B, K] for one batch."""
  sums = [
    evaluate.counts(logits, raw['label'], mask),
    evaluate.bins(logits, raw['label'], mask),
  ]
  if 'posterior' in raw:
    sums.append(evaluate.distance(logits, raw['posterior'], mask))
  return {name: value for found in sums for name, value in found.items()}


@partial(jax.jit, static_argnames=('modules', 'view'))
def _agreement(
  modules: tuple[nn.Module, nn.Module],
  view: View,
  variables: tuple[Variables, Variables],
  temperature: float,
  arrays: dict[str, Array],
  raw: Any,
  mask: Array,
) -> Sums:
  """The agreement of two networks over one batch."""
  raw = _gather(arrays, raw)
  student, teacher = (
    _predict(module, view, own, raw).logits
    for module, own in zip(modules, variables, strict=True)
  )
  return evaluate.agreement(student, teacher, mask, temperature)


@partial(jax.jit, static_argnames=('module', 'view', 'taps'))
def _outputs(
  module: nn.Module,
  view: View,
  taps: tuple[str, ...],
  variables: Variables,
  arrays: dict[str, Array],
  raw: Any,
  mask: Array,
) -> tuple[Outputs, Array]:
  """What a network says of one batch, and the labels."""
  del mask  # padding is cut off by whoever joins the batches
  raw = _gather(arrays, raw)
  outputs = _predict(module, view, variables, raw)
  chosen = {
    name: lookup('tap', outputs.taps, name).astype(jnp.float32) for name in taps
  }
  return Outputs(outputs.logits, chosen), raw['label']


def _gather(arrays: dict[str, Array], raw: Any) -> dict[str, Array]:
  """Returns a batch of indices into `arrays`, or of raw images, as images."""
  return batches.gather(arrays, raw) if arrays else raw


def _predict(
  module: nn.Module, view: View, variables: Variables, raw: dict[str, Array]
) -> Outputs:
  """Returns what a network says of raw images in the test view."""
  image = augment.eval_view(raw['image'], view=view)
  return predict(module, variables, image)
