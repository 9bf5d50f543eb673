"""Evaluation of a network on a whole split, on all devices."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
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
    return self._totals(self._map(_measured, networks))

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
    networks = self._networks(
      (module, variables), (other_module, other_variables)
    )
    sums = self._map(_agreement, networks, (jnp.float32(temperature),))
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
    parts = jax.device_get(self._map(_outputs, networks, (), size))
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
    self,
    function: Callable[..., Any],
    networks: '_Networks',
    settings: tuple[Array, ...] = (),
    examples: int | None = None,
  ) -> list[Any]:
    """Returns the results of a function of each batch.

    A stored split is one call on accelerators. On CPUs, where XLA runs a
    convolution in a loop 20 times slower, a batch is, and is waited for: their
    devices share one pool of threads, in which two batches that both need all
    devices can deadlock.

    Args:
      function: (networks, problem, view, (arrays of the networks, *settings),
        stored split, a batch of indices into it or else of loaded examples,
        mask) -> any tree.
      networks: those that the function runs.
      settings: its numbers.
      examples: of the split, from the first on; None takes all.
    """
    count = examples or len(self.split)
    cpu = meshes.platform(self.mesh) == 'cpu'
    if self._stored and not cpu:
      return self._in_one_call(function, networks, settings, count)
    results = []
    for batch, mask in self._batches(count):
      static, values = networks.ready(self._stored, batch, mask)
      arguments = values, *settings
      results.append(
        _call(function, static, arguments, self._stored, batch, mask)
      )
      if cpu:
        jax.block_until_ready(results[-1])
    return results

  def _in_one_call(
    self,
    function: Callable[..., Any],
    networks: '_Networks',
    settings: tuple[Array, ...],
    examples: int,
  ) -> list[Any]:
    """Returns what `_map` does, from a loop over the batches of the split."""
    pairs, size = self._pairs(examples)
    static, values = networks.ready(self._stored, *pairs[0])
    sharding = meshes.batch_split(self.mesh, size, axis=1)
    stacked = jax.tree.map(lambda *x: np.stack(x), *pairs)
    results = jax.device_get(
      _loop(
        function,
        static,
        (values, *settings),
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
  arguments: tuple[Any, ...],
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
  arguments: tuple[Any, ...],
  stored: batches.StoredSplit,
  pairs: tuple[Array, Array],
) -> Any:
  """Returns the results of `_call`, stacked, for indices and masks [S, B]."""
  return lax.map(
    lambda pair: function(*static, arguments, stored, *pair), pairs
  )


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
    self._ready: tuple[tuple[Any, ...], list[Any]] | None = None

  def ready(
    self, stored: batches.StoredSplit | None, examples: Any, mask: Any
  ) -> tuple[tuple[Any, ...], list[Any]]:
    """Returns the networks, problem and view, and the networks' arrays.

    Args:
      stored: see `Evaluator._map`.
      examples: a batch, whose shape is that of all others.
      mask: of the batch.
    """
    if self._ready is None:
      self._ready = self._prepared(stored, examples, mask)
    return self._ready

  def _prepared(
    self, stored: batches.StoredSplit | None, examples: Any, mask: Any
  ) -> tuple[tuple[Any, ...], list[Any]]:
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
    static = networks, self.problem, self.view
    return static, jax.device_put(values, meshes.whole(self.mesh))


def _measured(
  networks: tuple[Evaluated],
  problem: Problem,
  view: View,
  arguments: tuple[list[Any]],
  stored: batches.StoredSplit | None,
  examples: Any,
  mask: Array,
) -> Measured:
  """Returns sums and rows of one network over one batch."""
  batch = problem.eval_view(_gather(stored, examples), mask, view)
  ((values,),) = arguments
  logits = networks[0].run(values, batch['image']).logits
  return _measured_logits(problem, logits, batch)


@partial(jax.jit, static_argnames='problem')
def _measured_logits(problem: Problem, logits: Array, batch: Any) -> Measured:
  """Returns sums and rows of logits over one batch."""
  rows = {} if problem.rows is None else problem.rows(logits, batch)
  return problem.sums(logits, batch), rows


def _agreement(
  networks: tuple[Evaluated, Evaluated],
  problem: Problem,
  view: View,
  arguments: tuple[list[Any], Any],
  stored: batches.StoredSplit | None,
  examples: Any,
  mask: Array,
) -> Sums:
  """Returns the agreement of two networks over one batch."""
  values, temperature = arguments
  batch = problem.eval_view(_gather(stored, examples), mask, view)
  student, teacher = (
    network.run(own, batch['image']).logits
    for network, own in zip(networks, values, strict=True)
  )
  return problem.agreement(student, teacher, batch, temperature)


def _outputs(
  networks: tuple[Evaluated],
  problem: Problem,
  view: View,
  arguments: tuple[list[Any]],
  stored: batches.StoredSplit | None,
  examples: Any,
  mask: Array,
) -> tuple[Outputs, Array]:
  """Returns a network's outputs for one batch, padding included, and labels."""
  batch = problem.eval_view(_gather(stored, examples), mask, view)
  ((values,),) = arguments
  return networks[0].run(values, batch['image']), batch['label']


def _gather(
  stored: batches.StoredSplit | None, examples: Any
) -> dict[str, Array]:
  """Returns raw examples, for indices into a stored split or for themselves."""
  return batches.gather(stored, examples) if stored else examples
