"""Evaluation of a network on a whole split, on all devices."""

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
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
    static = module, self.problem, self.view
    return self._totals(self._map(_measured, static, variables))

  def totals_of(
    self, predict: Callable[[np.ndarray], np.ndarray]
  ) -> dict[str, np.ndarray]:
    """Returns these sums for any function of normalised images.

    Args:
      predict: images [B, H, W, C] -> logits [B, K], in NumPy.
    """

    def measured(examples: Any, mask: Array) -> Measured:
      raw = jax.device_get(_gather(self._stored, examples))
      batch = self.problem.eval_view(raw, mask, self.view)
      logits = predict(np.asarray(batch['image']))
      return _measured_logits(self.problem, logits, batch)

    pairs = self._batches(len(self.split))
    return self._totals([measured(*pair) for pair in pairs])

  def _totals(self, results: list[Measured]) -> dict[str, np.ndarray]:
    """Returns sums and rows of the split from those of its batches."""
    sums, rows = zip(*results, strict=True)
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
    static = (module, other_module), self.problem, self.view
    both = (variables, other_variables), jnp.float32(temperature)
    sums = self._map(_agreement, static, both)
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
    static = module, self.problem, self.view, taps
    parts = jax.device_get(self._map(_outputs, static, variables, size))
    whole, labels = jax.tree.map(lambda *x: np.concatenate(x)[:size], *parts)
    return Examples(whole.logits, labels, whole.taps)

  def logits(
    self, module: nn.Module, variables: Variables, examples: int
  ) -> np.ndarray:
    """Returns the logits [N, K] of the first N = `examples` images."""
    return self.outputs(module, variables, examples, taps=()).logits

  def _map(
    self,
    function: Callable[..., Any],
    static: tuple[Any, ...],
    arguments: Any,
    examples: int | None = None,
  ) -> list[Any]:
    """Returns the results of a function of each batch.

    A stored split is one call on accelerators. On CPUs, where XLA runs a
    convolution in a loop 20 times slower, a batch is, and is waited for: their
    devices share one pool of threads, in which two batches that both need all
    devices can deadlock.

    Args:
      function: (*static, arguments, stored split, a batch of indices into it or
        else of loaded examples, mask).
      static: hashable.
      arguments: a tree of arrays.
      examples: of the split, from the first on; None takes all.
    """
    count = examples or len(self.split)
    cpu = meshes.platform(self.mesh) == 'cpu'
    if self._stored and not cpu:
      return self._in_one_call(function, static, arguments, count)
    results = []
    for batch, mask in self._batches(count):
      results.append(
        _call(function, static, arguments, self._stored, batch, mask)
      )
      if cpu:
        jax.block_until_ready(results[-1])
    return results

  def _in_one_call(
    self,
    function: Callable[..., Any],
    static: tuple[Any, ...],
    arguments: Any,
    examples: int,
  ) -> list[Any]:
    """Returns what `_map` does, from a loop over the batches of the split."""
    pairs, size = self._pairs(examples)
    sharding = meshes.batch_split(self.mesh, size, axis=1)
    stacked = jax.tree.map(lambda *x: np.stack(x), *pairs)
    results = jax.device_get(
      _loop(
        function,
        static,
        arguments,
        self._stored,
        jax.device_put(stacked, sharding),
      )
    )
    return [
      jax.tree.map(lambda x, n=n: x[n], results) for n in range(len(pairs))
    ]

  def _pairs(
    self, examples: int
  ) -> tuple[list[tuple[np.ndarray, np.ndarray]], int]:
    """Returns indices and masks of the batches, and the size of a batch."""
    size, devices = len(self.split), self.mesh.size
    batch = min(BATCH, -(-size // devices)) * devices
    pairs = list(batches.eval_batches(size, batch))[: -(-examples // batch)]
    return pairs, batch

  def _batches(self, examples: int) -> Iterator[tuple[Any, Array]]:
    """Yields the batches that hold the first examples, and their masks."""
    pairs, batch = self._pairs(examples)
    inputs, masks = zip(*pairs, strict=True)
    if not self._stored:
      inputs = batches.prefetch(self.split, inputs, 0, None)
    sharding = meshes.batch_split(self.mesh, batch)
    for pair in zip(inputs, masks, strict=True):
      yield jax.device_put(pair, sharding)


@partial(jax.jit, static_argnames=('function', 'static'))
def _call(
  function: Callable[..., Any],
  static: tuple[Any, ...],
  arguments: Any,
  stored: batches.StoredSplit | None,
  examples: Any,
  mask: Array,
) -> Any:
  """Returns a function's results for one batch, see `Evaluator._map`."""
  return function(*static, arguments, stored, examples, mask)


@partial(jax.jit, static_argnames=('function', 'static'))
def _loop(
  function: Callable[..., Any],
  static: tuple[Any, ...],
  arguments: Any,
  stored: batches.StoredSplit,
  pairs: tuple[Array, Array],
) -> Any:
  """Returns the results of `_call`, stacked, for indices and masks [S, B]."""
  return lax.map(
    lambda pair: function(*static, arguments, stored, *pair), pairs
  )


def _measured(
  module: nn.Module,
  problem: Problem,
  view: View,
  variables: Variables,
  stored: batches.StoredSplit | None,
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


def _agreement(
  modules: tuple[nn.Module, nn.Module],
  problem: Problem,
  view: View,
  arguments: tuple[tuple[Variables, Variables], Any],
  stored: batches.StoredSplit | None,
  examples: Any,
  mask: Array,
) -> Sums:
  """Returns the agreement of two networks over one batch."""
  variables, temperature = arguments
  batch = problem.eval_view(_gather(stored, examples), mask, view)
  student, teacher = (
    predict(module, own, batch['image']).logits
    for module, own in zip(modules, variables, strict=True)
  )
  return problem.agreement(student, teacher, batch, temperature)


def _outputs(
  module: nn.Module,
  problem: Problem,
  view: View,
  taps: tuple[str, ...],
  variables: Variables,
  stored: batches.StoredSplit | None,
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


def _gather(
  stored: batches.StoredSplit | None, examples: Any
) -> dict[str, Array]:
  """Returns raw examples, for indices into a stored split or for themselves."""
  return batches.gather(stored, examples) if stored else examples
