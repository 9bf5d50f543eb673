"""A graph with modules in its nodes: the functions a train step is made of."""

import contextlib
import dataclasses
import zlib
from collections.abc import (
  Callable,
  Collection,
  Iterable,
  Iterator,
  Mapping,
)
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxkd.graph import Graph, Learner, Model, Shared, Transfer
from jaxkd.graph.heads import with_reused_head
from jaxkd.graph.transfers import guide_outputs, masked_mean
from jaxkd.models import norms
from jaxkd.models.reusing import HEAD
from jaxkd.types import Array, Batch, Metrics, Outputs, Tree, Variables


@dataclasses.dataclass(frozen=True)
class Program:
  """A graph with a module in each node. Made by `bind`.

  graph: the description.
  modules: by network.
  extract: by network, its owner's parameters -> its own.
  expand: by expanded network, (the narrower network's initial variables, key)
    -> the variables that are stored for it.
  init_modules: modules to initialise, by network: its own; instead of an
    expanded network's, that of the narrower one.
  input_shape: of one image, [H, W, C].
  precomputed: frozen networks that are not run: their logits come with each
    batch, and those of their taps that are named here.
  """

  graph: Graph
  modules: Mapping[str, nn.Module]
  extract: Mapping[str, Callable[[Tree], Tree]]
  expand: Mapping[str, Callable[[Variables, Array], Variables]]
  init_modules: Mapping[str, nn.Module]
  input_shape: tuple[int, int, int]
  precomputed: Mapping[str, tuple[str, ...]] = dataclasses.field(
    default_factory=dict
  )

  def starts_from(self, name: str) -> str:
    """Returns the network whose initial variables a network starts from.

    Mostly itself; otherwise the one with the same start, or the narrower one
    that it is expanded from.
    """
    network = self.graph.networks.get(name)
    if isinstance(network, Learner) and network.like:
      if network.same_start or network.expander:
        return network.like
    return name

  def init_network(self, name: str, key: Array) -> Variables:
    """Returns variables of a network, initialised at random.

    Args:
      name: of one of the `init_modules`.
      key: the run's; the name is folded in.
    """
    variables = self.init_modules[name].init(
      fold_in(key, f'init {self.starts_from(name)}'),
      jnp.zeros((1, *self.input_shape)),
    )
    return {
      'params': variables.get('params', {}),
      'batch_stats': variables.get('batch_stats', {}),
    }

  def initial_variables(
    self, name: str, key: Array, initial: Mapping[str, Variables]
  ) -> Variables:
    """Returns the variables that a network starts from.

    Args:
      name: of the network.
      key: the run's.
      initial: initial variables by name of the `init_modules`; networks that
        are not in it are initialised at random.
    """
    if name in self.expand:
      narrow = self.initial_variables(self.starts_from(name), key, initial)
      return self.expand[name](narrow, fold_in(key, f'grow {name}'))
    if name in initial:  # Flax returns no statistics without BatchNorm
      variables = {'batch_stats': {}, **initial[name]}
    else:
      variables = self.init_network(name, key)
    if name in self.graph.heads:
      own = {k: x for k, x in variables['params'].items() if k != HEAD}
      return {**variables, 'params': own}
    return variables

  def init_objectives(self, key: Array, examples: int) -> tuple[Tree, Tree]:
    """Returns (params, memory) of the transfers that own any, by name.

    Args:
      key: the run's.
      examples: size of the training set.
    """
    shapes = jax.eval_shape(self.outputs_of_zeros)
    outputs = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return self._init_objectives(key, outputs, examples)

  def _init_objectives(
    self, key: Array, outputs: Mapping[str, Outputs], examples: int
  ) -> tuple[Tree, Tree]:
    params, memory = {}, {}
    for transfer in self.graph.transfers:
      with self._explained(transfer):
        own, bank = transfer.objective.init(
          fold_in(key, f'init {transfer.name}'),
          learner=outputs[transfer.learner],
          guide=guide_outputs(transfer.guide, outputs),
          examples=examples,
        )
      params |= {transfer.name: own} if own else {}
      memory |= {transfer.name: bank} if bank else {}
    return params, memory

  def check_objectives(self, spec: Batch, epochs: int) -> None:
    """Traces every objective on batches of these shapes; computes nothing.

    Args:
      spec: shapes and types of a batch, see `Problem.batch_spec`.
      epochs: length of the phase.

    Raises:
      KeyError: an objective asks for a tap that a network does not have.
      ValueError: an objective is not defined between its guide and learner; a
        weight that the phase is too short for.
    """

    def losses(key: Array, batch: Batch) -> Array:
      examples = len(batch['index'])
      outputs = self.outputs_of_zeros(examples)
      one = jax.tree.map(lambda x: x[:1], outputs)
      params, memory = self._init_objectives(key, one, examples)
      epoch = jnp.zeros(())
      return self.losses(
        params, memory, outputs, batch, key=key, epoch=epoch, epochs=epochs
      )[0]

    jax.eval_shape(losses, jax.random.key(0), spec)

  def outputs_of_zeros(self, examples: int = 1) -> dict[str, Outputs]:
    """Returns all networks' outputs for black images, to be traced."""
    image, outputs = jnp.zeros((examples, *self.input_shape)), {}
    for name, module in self.modules.items():
      if name in self.precomputed:
        full: Any = module.init_with_output(jax.random.key(0), image)[0]
        outputs[name] = only(full, self.precomputed[name])
      else:
        variables = module.init(jax.random.key(0), image)
        outputs[name], _ = norms.apply(module, variables, image)
    return outputs

  @contextlib.contextmanager
  def _explained(self, transfer: Transfer) -> Iterator[None]:
    """Explains errors of an objective that needs more than logits."""
    try:
      yield
    except (LookupError, TypeError, ValueError) as error:
      names = sorted(self.precomputed.keys() & transfer.guides)
      if not names:
        raise
      raise ValueError(
        f'{transfer.name}: of {names[0]} there are logits alone, since this'
        ' training does not run it (its outputs are stored, cached, or those of'
        ' a function), and this objective needs more of it. Take an objective'
        f' of logits, such as kd, or the network itself. ({error})'
      ) from error

  def resolve(self, params: Mapping[str, Tree]) -> dict[str, Tree]:
    """Returns each network's parameters.

    Those of a sharing network are a function of its owner's, such as slices;
    and a reused classifier is that of the other network in this step.

    Args:
      params: by owner.
    """
    networks = {
      name: extract(params[self.graph.owner(name)])
      for name, extract in self.extract.items()
    }
    for name, head in self.graph.heads.items():
      other = lax.stop_gradient(networks[head.of][HEAD])
      networks[name] = {**networks[name], HEAD: other}
    return networks

  def forward(
    self,
    params: Mapping[str, Tree],
    stats: Mapping[str, Tree],
    image: Array,
    names: Collection[str] | None = None,
    key: Array | None = None,
    precomputed: Mapping[str, Outputs] | None = None,
  ) -> tuple[dict[str, Outputs], dict[str, Tree]]:
    """Runs networks once: frozen ones in eval mode, others in train mode.

    Args:
      params: by network, as `resolve` returns.
      stats: BatchNorm statistics by network.
      image: [B, H, W, C].
      names: of the networks to run; None runs all.
      key: this step's, for networks with dropout and the like.
      precomputed: outputs of frozen networks, by name, which are not run.

    Returns:
      Outputs of the networks that were run, with their `norms`; and the
      statistics of all networks, updated.
    """
    outputs, updated = {}, dict(stats)
    for name, module in self.modules.items():
      if names is not None and name not in names:
        continue
      if name in self.precomputed:
        outputs[name] = (precomputed or {})[name]
        continue
      variables = {'params': params[name], 'batch_stats': stats[name]}
      if name in self.graph.frozen:
        outputs[name], _ = norms.apply(module, variables, image)
      else:
        outputs[name], updated[name] = norms.apply(
          module, variables, image, train=True, rngs=_rngs(key, name)
        )
    return outputs, updated

  def losses(
    self,
    params: Mapping[str, Tree],
    memory: Mapping[str, Tree],
    outputs: Mapping[str, Outputs],
    batch: Batch,
    *,
    key: Array,
    epoch: Array,
    epochs: int,
    transfers: Iterable[Transfer] | None = None,
  ) -> tuple[Array, dict[str, Tree], Metrics]:
    """Returns the weighted sum of the transfers' losses, memory and metrics.

    Args:
      params: of the objectives, by transfer.
      memory: of the objectives, by transfer.
      outputs: by network.
      batch: the batch that the networks have been run on.
      key: this step's.
      epoch: float32 scalar, continuous from 0.
      epochs: length of the phase.
      transfers: some of the graph's; None takes all.

    Returns:
      The scalar loss; memory by transfer; metrics 'loss' and, before its
      weight, 'loss/TRANSFER'.

    Raises:
      ValueError: a loss and a mask whose shapes do not match.
    """
    total, memory, metrics = jnp.zeros(()), dict(memory), {}
    for transfer in self.graph.transfers if transfers is None else transfers:
      name, guide = transfer.name, guide_outputs(transfer.guide, outputs)
      if transfer.detach:
        guide = lax.stop_gradient(guide)
      with self._explained(transfer):
        value, bank = transfer.objective.loss(
          params.get(name, {}),
          memory.get(name, {}),
          learner=outputs[transfer.learner],
          guide=guide,
          batch=batch,
          key=fold_in(key, name),
          epoch=epoch,
          epochs=epochs,
        )
      if name in memory:
        memory[name] = lax.stop_gradient(bank)
      metrics[f'loss/{name}'] = value = masked_mean(name, value, batch['mask'])
      weight = transfer.weight
      weight = weight(epoch, epochs) if callable(weight) else weight
      if transfer.dropout:
        weight *= transfer.dropout(fold_in(key, 'chance'))
      total += weight * value
    return total, memory, {'loss': total, **metrics}


def bind(
  graph: Graph,
  build: Callable[[str | Model, float, int | None], nn.Module],
  input_shape: tuple[int, int, int],
  precomputed: Mapping[str, nn.Module | None] | None = None,
) -> Program:
  """Puts a module into every node.

  Args:
    graph: the description.
    build: (architecture, width, branches) -> module. The architecture is a
      model, or else a name: the network's own, or the one that it is `like`.
    input_shape: of one image, [H, W, C].
    precomputed: the frozen networks whose logits come with the batch, with the
      module that stands for each; None: its own.

  Raises:
    ValueError: the classifier of such a network is to be reused.
  """
  precomputed = precomputed or {}
  modules = {
    name: precomputed.get(name)
    or build(graph.architecture(name), network.width, network.branches)
    for name, network in graph.networks.items()
  }
  for name, head in graph.heads.items():
    if precomputed.get(head.of):
      raise ValueError(
        f'{name!r} has the classifier of {head.of!r}, of which there are logits'
        ' alone: this method needs the network itself'
      )
    own, other = modules[name], modules[head.of]
    modules[name] = with_reused_head(own, other, head, input_shape)
  extract, expand, init_modules = {}, {}, dict(modules)
  for name, network in graph.networks.items():
    extract[name] = lambda params: params
    if isinstance(network, Shared):
      owner = modules[network.owner]
      extract[name] = network.sharing(modules[name], owner, input_shape)
    elif isinstance(network, Learner) and network.expander and network.like:
      del init_modules[name]
      like = network.like
      if like not in modules:
        init_modules[like] = build(like, 1.0, network.branches)
      expansion = network.expander(
        init_modules[like], modules[name], input_shape
      )
      extract[name], expand[name] = expansion.parameters, expansion.expand
  return Program(
    graph,
    modules,
    extract,
    expand,
    init_modules,
    input_shape,
    dict.fromkeys(precomputed, ()),
  )


def predict(
  module: nn.Module, variables: Mapping[str, Tree], image: Array
) -> Outputs:
  """Returns the outputs of a network in eval mode."""
  return cast(Outputs, module.apply(variables, image, train=False))


def only(outputs: Outputs, taps: Collection[str]) -> Outputs:
  """Returns a network's logits with some of its taps, and nothing else."""
  return Outputs(outputs.logits, {name: outputs.taps[name] for name in taps})


def _rngs(key: Array | None, name: str) -> dict[str, Array]:
  """Returns a network's keys by stream, from a step's key; {} for None.

  Flax takes 'params' for any stream that is missing.
  """
  if key is None:
    return {}
  return {x: fold_in(key, f'{x} of {name}') for x in ('dropout', 'params')}


def fold_in(key: Array, purpose: str) -> Array:
  """Returns the key for a purpose: randomness is a function of its name."""
  return jax.random.fold_in(key, zlib.crc32(purpose.encode()))
