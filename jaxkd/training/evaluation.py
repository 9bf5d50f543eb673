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

from jaxkd import metrics
from jaxkd.catalog import lookup
from jaxkd.data import batches
from jaxkd.data.base import Split, View
from jaxkd.graph.program import predict
from jaxkd.metrics.sums import Sums
from jaxkd.problems import Problem
from jaxkd.training import mesh as meshes
from jaxkd.types import Array, Outputs, Variables

BATCH = 500  # at most, for each device
Measured = tuple[Sums, dict[str, Array]]  # sums and rows, see `Problem`


class Examples(NamedTuple):
  """A network's outputs for N images, in NumPy.

  logits: float32 [N, K].
  labels: int32 [N], the right answers.
  taps: float32 [N, ...] by name, see `Outputs`.
  """

  logits: np.ndarray
  labels: np.ndarray
  taps: dict[str, np.ndarray]


@dataclasses.dataclass
class Evaluator:
  """Evaluates networks on one split.

  split: the examples.
  view: how its images are normalised.
  problem: defines the metrics.
  mesh: the devices.
  """

  split: Split
  view: View
  problem: Problem
  mesh: Mesh

  def __post_init__(self):
    self._stored = meshes.put_split(self.split, self.mesh)

  def __call__(
    self, module: nn.Module, variables: Variables
  ) -> dict[str, float]:
    """Returns a network's metrics on the split, see `Problem.summary`."""
    return self.problem.summary(self.totals(module, variables))

  def totals(
    self, module: nn.Module, variables: Variables
  ) -> dict[str, np.ndarray]:
    """Returns the sums over the split, of which metrics and plots are made.

    With them are the problem's `rows` of the whole split.
    """
    return self._totals(
      partial(_measured, module, self.problem, self.view, variables)
    )

  def totals_of(
    self, predict: Callable[[np.ndarray], np.ndarray]
  ) -> dict[str, np.ndarray]:
    """Returns these sums for any function of normalised images.

    Args:
      predict: images [B, H, W, C] -> logits [B, K], in NumPy.
    """

    def measured(
      stored: dict[str, Array], examples: Any, mask: Array
    ) -> Measured:
      raw = jax.device_get(_gather(stored, examples))
      batch = self.problem.eval_view(raw, mask, self.view)
      logits = predict(np.asarray(batch['image']))
      return _measured_logits(self.problem, logits, batch)

    return self._totals(measured)

  def _totals(self, measured: Callable[..., Measured]) -> dict[str, np.ndarray]:
    """Returns sums and rows of the split from those of its batches."""
    sums, rows = zip(*self._map(measured), strict=True)
    size = len(self.split)
    return {**metrics.totals(sums, size), **metrics.gathered(rows, size)}

  def compare(
    self,
    module: nn.Module,
    variables: Variables,
    other_module: nn.Module,
    other_variables: Variables,
    temperature: float = 1.0,
  ) -> dict[str, float]:
    """Returns how far a network agrees with another one.

    Args:
      module: the student.
      variables: the student's.
      other_module: the teacher.
      other_variables: the teacher's.
      temperature: T > 0, by which logits are divided, see `Problem.agreement`.

    Returns:
      For classification 'agreement', the fraction of equal answers, and 'kl',
      KL(other || network) in nats.
    """
    sums = self._map(
      partial(
        _agreement,
        (module, other_module),
        self.problem,
        self.view,
        (variables, other_variables),
        temperature,
      )
    )
    return self.problem.summary(metrics.totals(sums, len(self.split)))

  def outputs(
    self,
    module: nn.Module,
    variables: Variables,
    examples: int,
    taps: tuple[str, ...] = ('pooled',),
  ) -> Examples:
    """Returns a network's outputs for the first images of the split.

    Args:
      module: the network.
      variables: its arrays.
      examples: N; all if the split has fewer.
      taps: the names of those to return.

    Raises:
      KeyError: the network has no such tap, with suggestions.
    """
    size = min(examples, len(self.split))
    run = partial(_outputs, module, self.problem, self.view, taps, variables)
    parts = jax.device_get(self._map(run, size))
    whole, labels = jax.tree.map(lambda *x: np.concatenate(x)[:size], *parts)
    return Examples(whole.logits, labels, whole.taps)

  def logits(
    self, module: nn.Module, variables: Variables, examples: int
  ) -> np.ndarray:
    """Returns the logits [N, K] of the first N = `examples` images."""
    return self.outputs(module, variables, examples, taps=()).logits

  def _map(
    self, function: Callable[..., Any], examples: int | None = None
  ) -> list[Any]:
    """Returns function(stored, examples, mask) of each batch.

    All are dispatched before the first is waited for, but not on CPUs: their
    devices share one pool of threads, in which two batches that both need all
    devices can deadlock.

    Args:
      function: of the stored split, a batch of indices into it or else of
        loaded examples, and the batch's mask.
      examples: of the split, from the first on; None takes all.
    """
    results = []
    for batch, mask in self._batches(examples or len(self.split)):
      results.append(function(self._stored, batch, mask))
      if jax.default_backend() == 'cpu':
        jax.block_until_ready(results[-1])
    return results

  def _batches(self, examples: int) -> Iterator[tuple[Any, Array]]:
    """Yields the batches that hold the first examples, and their masks."""
    size, devices = len(self.split), self.mesh.size
    batch = min(BATCH, -(-size // devices)) * devices
    pairs = list(batches.eval_batches(size, batch))[: -(-examples // batch)]
    inputs, masks = zip(*pairs, strict=True)
    if not self._stored:
      inputs = batches.prefetch(self.split, inputs, 0, None)
    sharding = meshes.batch_split(self.mesh, batch)
    for pair in zip(inputs, masks, strict=True):
      yield jax.device_put(pair, sharding)


@partial(jax.jit, static_argnames=('module', 'problem', 'view'))
def _measured(
  module: nn.Module,
  problem: Problem,
  view: View,
  variables: Variables,
  stored: dict[str, Array],
  examples: Any,
  mask: Array,
) -> Measured:
  """Returns sums and rows of one network over one batch."""
  batch = problem.eval_view(_gather(stored, examples), mask, view)
  logits = predict(module, variables, batch['image']).logits
  return _measured_logits(problem, logits, batch)


@partial(jax.jit, static_argnames='problem')
def _measured_logits(problem: Problem, logits: Array, batch: Any) -> Measured:
  """Returns sums and rows of logits over one batch."""
  rows = {} if problem.rows is None else problem.rows(logits, batch)
  return problem.sums(logits, batch), rows


@partial(jax.jit, static_argnames=('modules', 'problem', 'view'))
def _agreement(
  modules: tuple[nn.Module, nn.Module],
  problem: Problem,
  view: View,
  variables: tuple[Variables, Variables],
  temperature: float,
  stored: dict[str, Array],
  examples: Any,
  mask: Array,
) -> Sums:
  """Returns the agreement of two networks over one batch."""
  batch = problem.eval_view(_gather(stored, examples), mask, view)
  student, teacher = (
    predict(module, own, batch['image']).logits
    for module, own in zip(modules, variables, strict=True)
  )
  return problem.agreement(student, teacher, batch, temperature)


@partial(jax.jit, static_argnames=('module', 'problem', 'view', 'taps'))
def _outputs(
  module: nn.Module,
  problem: Problem,
  view: View,
  taps: tuple[str, ...],
  variables: Variables,
  stored: dict[str, Array],
  examples: Any,
  mask: Array,
) -> tuple[Outputs, Array]:
  """Returns a network's outputs for one batch, padding included, and labels."""
  batch = problem.eval_view(_gather(stored, examples), mask, view)
  outputs = predict(module, variables, batch['image'])
  wanted = {
    name: lookup('tap', outputs.taps, name).astype(jnp.float32) for name in taps
  }
  return Outputs(outputs.logits, wanted), batch['label']


def _gather(stored: dict[str, Array], examples: Any) -> dict[str, Array]:
  """Returns raw examples, for indices into a stored split or for themselves."""
  return batches.gather(stored, examples) if stored else examples
