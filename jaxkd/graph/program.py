"""A graph with modules in its nodes: the functions a train step is made of."""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxkd import models
from jaxkd.graph import (
  LABELS,
  Fusion,
  Graph,
  Learner,
  Model,
  Reused,
  Shared,
  Transfer,
)
from jaxkd.models import norms
from jaxkd.models.reusing import HEAD
from jaxkd.objectives.simkd import reused
from jaxkd.types import Array, Batch, Metrics, Outputs, Tree, Variables


@dataclasses.dataclass(frozen=True)
class Program:
  """A graph with a module in each node. Made by `bind`.

  graph: the description.
  modules: by network.
  takes: network -> (its owner's parameters -> its own).
  grows: network -> how it starts out of a narrower one.
  starts: module by name of a start: a network's own, or, of one that grows,
    that of the narrower one.
  input_shape: of one image, [H, W, C].
  """

  graph: Graph
  modules: Mapping[str, nn.Module]
  takes: Mapping[str, Callable[[Tree], Tree]]
  grows: Mapping[str, Callable[[Variables, Array], Variables]]
  starts: Mapping[str, nn.Module]
  input_shape: tuple[int, int, int]

  def source(self, name: str) -> str:
    """Returns the network whose start network `name` has: mostly its own."""
    network = self.graph.networks.get(name)
    if isinstance(network, Learner) and network.like:
      if network.same_start or network.expander:
        return network.like
    return name

  def init_network(self, name: str, key: Array) -> Variables:
    """Returns fresh variables; `key` is the run's, the name is folded in.

    Args:
      name: of a start.
      key: the run's.
    """
    variables = self.starts[name].init(
      fold_in(key, f'init {self.source(name)}'),
      jnp.zeros((1, *self.input_shape)),
    )
    return {
      'params': variables['params'],
      'batch_stats': variables.get('batch_stats', {}),
    }

  def start(
    self, name: str, key: Array, known: Mapping[str, Variables]
  ) -> Variables:
    """Returns where a network starts.

    Args:
      name: of the network.
      key: the run's.
      known: variables by name of a start; what is not there is drawn.
    """
    if name in self.grows:
      narrow = self.start(self.source(name), key, known)
      return self.grows[name](narrow, fold_in(key, f'grow {name}'))
    start = known[name] if name in known else self.init_network(name, key)
    if name in self.graph.heads:
      own = {k: x for k, x in start['params'].items() if k != HEAD}
      return {**start, 'params': own}
    return start

  def init_objectives(self, key: Array, examples: int) -> tuple[Tree, Tree]:
    """Returns (params, memory) of the transfers that own any, by name."""
    shapes = jax.eval_shape(self._outputs_of_zeros)
    outputs = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return self._init_objectives(key, outputs, examples)

  def _init_objectives(
    self, key: Array, outputs: Mapping[str, Outputs], examples: int
  ) -> tuple[Tree, Tree]:
    params, memory = {}, {}
    for transfer in self.graph.transfers:
      own, bank = transfer.objective.init(
        fold_in(key, f'init {transfer.name}'),
        _guide(transfer.guide, outputs),
        outputs[transfer.learner],
        examples,
      )
      params |= {transfer.name: own} if own else {}
      memory |= {transfer.name: bank} if bank else {}
    return params, memory

  def rehearse(self) -> None:
    """Lets every objective see what it would see; nothing is computed.

    Raises:
      KeyError: an objective asks for a tap that a network does not have.
      ValueError: an objective is not defined between its guide and learner.
    """

    def losses(key: Array) -> Array:
      batch: Batch = {
        'image': jnp.zeros((2, *self.input_shape)),
        'label': jnp.zeros(2, jnp.int32),
        'index': jnp.arange(2),
        'mask': jnp.ones(2),
      }
      outputs = self._outputs_of_zeros(examples=2)
      one = jax.tree.map(lambda x: x[:1], outputs)
      params, memory = self._init_objectives(key, one, examples=2)
      epoch = jnp.zeros(())
      return self.losses(params, memory, outputs, batch, epoch, key)[0]

    jax.eval_shape(losses, jax.random.key(0))

  def _outputs_of_zeros(self, examples: int = 1) -> dict[str, Outputs]:
    image = jnp.zeros((examples, *self.input_shape))
    return {
      name: norms.run(module, module.init(jax.random.key(0), image), image)[0]
      for name, module in self.modules.items()
    }

  def resolve(self, params: Mapping[str, Tree]) -> dict[str, Tree]:
    """Returns each network's parameters.

    Those of sharing networks are slices of their owners', and a classifier that
    is another network's is that network's, of this step.
    """
    found = {
      name: take(params[self.graph.owner(name)])
      for name, take in self.takes.items()
    }
    for name, head in self.graph.heads.items():
      other = lax.stop_gradient(found[head.of][HEAD])
      found[name] = {**found[name], HEAD: other}
    return found

  def forward(
    self,
    params: Mapping[str, Tree],
    stats: Mapping[str, Tree],
    image: Array,
    names: Collection[str] | None = None,
    key: Array | None = None,
  ) -> tuple[dict[str, Outputs], dict[str, Tree]]:
    """Runs networks once: frozen ones in eval mode, others in train mode.

    Args:
      params: by network, as `resolve` returns.
      stats: BatchNorm statistics by network.
      image: [B, H, W, C].
      names: of the networks to run; None runs all.
      key: this step's, for networks that draw, such as those with dropout.

    Returns:
      Outputs by network, of those that were run, with the BatchNorms in front
      of taps, see `models.norms`; and the statistics of all, updated.
    """
    outputs, updated = {}, dict(stats)
    for name, module in self.modules.items():
      if names is not None and name not in names:
        continue
      variables = {'params': params[name], 'batch_stats': stats[name]}
      if name in self.graph.frozen:
        outputs[name], _ = norms.run(module, variables, image)
      else:
        outputs[name], updated[name] = norms.run(
          module, variables, image, train=True, keys=_streams(key, name)
        )
    return outputs, updated

  def losses(
    self,
    params: Mapping[str, Tree],
    memory: Mapping[str, Tree],
    outputs: Mapping[str, Outputs],
    batch: Batch,
    epoch: Array,
    key: Array,
    transfers: Iterable[Transfer] | None = None,
  ) -> tuple[Array, dict[str, Tree], Metrics]:
    """Returns the weighted sum of transfers, their memory and metrics.

    Args:
      params: of the objectives, by transfer.
      memory: of the objectives, by transfer.
      outputs: by network.
      batch: what the networks have seen.
      epoch: float32 scalar, for weights that change.
      key: this step's.
      transfers: some of the graph's; None takes all.

    Returns:
      The scalar loss; memory by transfer; metrics 'loss' and, before its
      weight, 'loss/TRANSFER'.
    """
    total, memory, metrics = jnp.zeros(()), dict(memory), {}
    for transfer in self.graph.transfers if transfers is None else transfers:
      name, guide = transfer.name, _guide(transfer.guide, outputs)
      if transfer.detach:
        guide = lax.stop_gradient(guide)
      value, bank = transfer.objective.loss(
        params.get(name, {}),
        memory.get(name, {}),
        guide,
        outputs[transfer.learner],
        batch,
        fold_in(key, name),
      )
      if name in memory:
        memory[name] = lax.stop_gradient(bank)
      metrics[f'loss/{name}'] = value = _mean(value, batch['mask'])
      weight = transfer.weight
      weight = weight(epoch) if callable(weight) else weight
      if transfer.dropout:
        weight *= transfer.dropout(fold_in(key, 'chance'))
      total += weight * value
    return total, memory, {'loss': total, **metrics}


def bind(
  graph: Graph,
  build: Callable[[str | Model, float, int | None], nn.Module],
  input_shape: tuple[int, int, int],
) -> Program:
  """Puts a module into every node.

  Args:
    graph: the description.
    build: (architecture, width, branches) -> module. The architecture is a
      model, or else a name: the network's own, or the one that it is `like`.
    input_shape: of one image, [H, W, C].
  """
  modules = {
    name: build(graph.architecture(name), network.width, network.branches)
    for name, network in graph.networks.items()
  }
  for name, head in graph.heads.items():
    own, other = modules[name], modules[head.of]
    modules[name] = _reusing(own, other, head, input_shape)
  takes, grows, starts = {}, {}, dict(modules)
  for name, network in graph.networks.items():
    takes[name] = lambda params: params
    if isinstance(network, Shared):
      owner = modules[network.owner]
      takes[name] = network.sharing(modules[name], owner, input_shape)
    elif isinstance(network, Learner) and network.expander and network.like:
      del starts[name]
      like = network.like
      if like not in modules:
        starts[like] = build(like, 1.0, network.branches)
      expansion = network.expander(starts[like], modules[name], input_shape)
      takes[name], grows[name] = expansion.parameters, expansion.expand
  return Program(graph, modules, takes, grows, starts, input_shape)


def _reusing(
  network: nn.Module,
  other: nn.Module,
  head: Reused,
  input_shape: tuple[int, int, int],
) -> nn.Module:
  """Returns a network with the classifier of another one.

  Raises:
    ValueError: the other one's classifier reads something else than its pooled
      features.
  """
  image = jnp.zeros((1, *input_shape))
  says, _ = jax.eval_shape(network.init_with_output, jax.random.key(0), image)
  guide, arrays = jax.eval_shape(
    other.init_with_output, jax.random.key(0), image
  )
  settings = reused(says, guide)
  kernel = arrays['params'].get(HEAD, {}).get('kernel', jnp.zeros(0))
  if kernel.shape[:-1] != (settings['features'],):
    raise ValueError(
      f'the classifier of {head.of!r} cannot be reused: it would be the'
      f' parameters {HEAD!r}, with a kernel [{settings["features"]}, K] for its'
      f' tap pooled, and the kernel is {list(kernel.shape)}'
    )
  return models.reusing(network, factor=head.factor, **settings)


def predict(
  module: nn.Module, variables: Mapping[str, Tree], image: Array
) -> Outputs:
  """Returns what a network says in eval mode."""
  return cast(Outputs, module.apply(variables, image, train=False))


def _streams(key: Array | None, name: str) -> dict[str, Array]:
  """Returns a network's keys by stream for the key of a step; {} for None.

  Flax draws from 'params' what belongs to any stream that is not there.
  """
  if key is None:
    return {}
  return {x: fold_in(key, f'{x} of {name}') for x in ('dropout', 'params')}


def fold_in(key: Array, purpose: str) -> Array:
  """Returns the key for a purpose: randomness is a function of its name."""
  return jax.random.fold_in(key, zlib.crc32(purpose.encode()))


def _guide(
  guide: str | Fusion, outputs: Mapping[str, Outputs]
) -> Outputs | None:
  """Returns what the guide says; labels speak through the batch."""
  if isinstance(guide, str):
    return None if guide == LABELS else outputs[guide]
  members = [outputs[name] for name in guide.weights]
  weights = list(guide.weights.values())

  def fuse(arrays: list[Array]) -> Array:
    terms = [w * x for w, x in zip(weights, arrays, strict=True)]
    return functools.reduce(jnp.add, terms)

  # Whose sums mean something: that of two BatchNorms is none, see models.norms.
  taps = [
    tap
    for tap in members[0].taps
    if ':' not in tap
    and len({m.taps[tap].shape if tap in m.taps else None for m in members})
    == 1
  ]
  return Outputs(
    logits=fuse([m.logits for m in members]),
    taps={tap: fuse([m.taps[tap] for m in members]) for tap in taps},
  )


def _mean(loss: Array, mask: Array) -> Array:
  """Averages a loss per example over the examples that count."""
  if loss.ndim == 0:
    return loss
  return jnp.sum(loss * mask) / jnp.maximum(jnp.sum(mask), 1)
