"""Evaluation of a network on a whole split, on all devices."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh

from jaxkd import metrics
from jaxkd.data import batches
from jaxkd.data.base import Split, View
from jaxkd.metrics.sums import Sums
from jaxkd.problems import Problem
from jaxkd.training import mesh as meshes
from jaxkd.training.frozen import Evaluated, evaluated, folds
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
    networks = self._networks((module, variables))
    return self._totals(networks.applied(_measured))

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
    networks = self._networks(
      (module, variables), (other_module, other_variables)
    )
    sums = self._map(networks.applied(_agreement, temperature))
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
    networks = self._networks((module, variables), taps=tuple(taps))
    parts = jax.device_get(self._map(networks.applied(_outputs), size))
    whole, labels = jax.tree.map(lambda *x: np.concatenate(x)[:size], *parts)
    return Examples(whole.logits, labels, whole.taps)

  def logits(
    self, module: nn.Module, variables: Variables, examples: int
  ) -> np.ndarray:
    """Returns the logits [N, K] of the first N = `examples` images."""
    return self.outputs(module, variables, examples, taps=()).logits

  def _networks(
    self, *pairs: tuple[nn.Module, Variables], taps: tuple[str, ...] = ()
  ) -> '_Networks':
    """Returns networks as functions of this split's batches."""
    return _Networks(self.problem, self.view, self.mesh, pairs, taps)

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


@dataclasses.dataclass
class _Networks:
  """Networks in eval mode, which are prepared for the first batch.

  problem: of the split.
  view: how its images are normalised.
  mesh: the devices.
  pairs: modules and their variables.
  taps: the names of those to return.
  """

  problem: Problem
  view: View
  mesh: Mesh
  pairs: Sequence[tuple[nn.Module, Variables]]
  taps: tuple[str, ...]

  def __post_init__(self):
    self._ready: tuple[Any, Any] | None = None

  def applied(self, function: Callable[..., Any], *settings: Any) -> Any:
    """Returns (stored, examples, mask) -> the function's result.

    Args:
      function: (networks, problem, view, arrays of the networks, *settings,
        stored, examples, mask) -> any tree.
      *settings: numbers.
    """

    def run(stored: dict[str, Array], examples: Any, mask: Array) -> Any:
      if self._ready is None:
        self._ready = self._prepared(stored, examples, mask)
      networks, values = self._ready
      fixed = networks, self.problem, self.view, values
      return function(*fixed, *settings, stored, examples, mask)

    return run

  def _prepared(
    self, stored: dict[str, Array], examples: Any, mask: Array
  ) -> tuple[Any, Any]:
    def image(stored, examples, mask):
      raw = _gather(stored, examples)
      return self.problem.eval_view(raw, mask, self.view)['image']

    shape = jax.eval_shape(image, stored, examples, mask)
    fold = folds(meshes.platform(self.mesh))
    networks = tuple(
      evaluated(module, variables, shape, self.taps, fold)
      for module, variables in self.pairs
    )
    values = [
      network.prepare(variables)
      for network, (_, variables) in zip(networks, self.pairs, strict=True)
    ]
    return networks, jax.device_put(values, meshes.whole(self.mesh))


@partial(jax.jit, static_argnames=('networks', 'problem', 'view'))
def _measured(
  networks: tuple[Evaluated],
  problem: Problem,
  view: View,
  values: list[Any],
  stored: dict[str, Array],
  examples: Any,
  mask: Array,
) -> Measured:
  """Returns sums and rows of one network over one batch."""
  batch = problem.eval_view(_gather(stored, examples), mask, view)
  logits = networks[0].run(values[0], batch['image']).logits
  return _measured_logits(problem, logits, batch)


@partial(jax.jit, static_argnames='problem')
def _measured_logits(problem: Problem, logits: Array, batch: Any) -> Measured:
  """Returns sums and rows of logits over one batch."""
  rows = {} if problem.rows is None else problem.rows(logits, batch)
  return problem.sums(logits, batch), rows


@partial(jax.jit, static_argnames=('networks', 'problem', 'view'))
def _agreement(
  networks: tuple[Evaluated, Evaluated],
  problem: Problem,
  view: View,
  values: list[Any],
  temperature: float,
  stored: dict[str, Array],
  examples: Any,
  mask: Array,
) -> Sums:
  """Returns the agreement of two networks over one batch."""
  batch = problem.eval_view(_gather(stored, examples), mask, view)
  student, teacher = (
    network.run(own, batch['image']).logits
    for network, own in zip(networks, values, strict=True)
  )
  return problem.agreement(student, teacher, batch, temperature)


@partial(jax.jit, static_argnames=('networks', 'problem', 'view'))
def _outputs(
  networks: tuple[Evaluated],
  problem: Problem,
  view: View,
  values: list[Any],
  stored: dict[str, Array],
  examples: Any,
  mask: Array,
) -> tuple[Outputs, Array]:
  """Returns a network's outputs for one batch, padding included, and labels."""
  batch = problem.eval_view(_gather(stored, examples), mask, view)
  return networks[0].run(values[0], batch['image']), batch['label']


def _gather(stored: dict[str, Array], examples: Any) -> dict[str, Array]:
  """Returns raw examples, for indices into a stored split or for themselves."""
  return batches.gather(stored, examples) if stored else examples
