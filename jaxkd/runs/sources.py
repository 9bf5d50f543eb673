"""Networks that no train step runs: stored outputs, functions, the view cache.

A frozen network can be a file of its outputs (`outputs` of its section), a
function of Python or a program in a file, or a network whose outputs are cached
(`teacher.cache`).
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from jaxkd import models, problems
from jaxkd.checkpoints import Card
from jaxkd.config import Config
from jaxkd.data.base import Dataset
from jaxkd.graph import Frozen, Model, Phase
from jaxkd.problems import Problem
from jaxkd.runs import functions, view_cache
from jaxkd.runs.interfaces import Data, Interface, Interfaces
from jaxkd.stores import Store
from jaxkd.training.evaluation import Evaluator
from jaxkd.training.precomputed import (
  Caching,
  Source,
  check_cacheable,
  check_store,
)

TEACHER = 'teacher'  # the section with `cache`


def of_phases(
  config: Config,
  phases: Sequence[Phase],
  models_of: Sequence[Mapping[str, Model]],
  interfaces: Interfaces,
) -> dict[str, Source]:
  """Returns the sources of a run's frozen networks that no step runs, by name.

  Networks for which the view cache is 'auto' are among them.

  Args:
    config: of the run.
    phases: of the run.
    models_of: by network of each phase.
    interfaces: of the run's networks.

  Raises:
    ImportError: a library is needed and absent.
    ValueError: a network that is trained in some phase has outputs alone; a
      file or function is not what it should be.
  """
  sources, caching = {}, view_cache.caching_of(config)
  for phase, models_by_network in zip(phases, models_of, strict=True):
    for name, network in phase.graph.networks.items():
      model = models_by_network[name]
      if getattr(network, 'like', None) not in (None, name):
        continue  # has the model's architecture, and arrays of its own
      alone = model.outputs or functions.is_function(model)
      if alone and not isinstance(network, Frozen):
        raise ValueError(
          f'{name!r} is trained in the phase {phase.name!r}, but'
          f' {model.outputs or model.checkpoint or model.name} has no'
          ' parameters, only outputs: it can only be a frozen teacher'
        )
      if isinstance(network, Frozen) and name not in sources:
        interface = interfaces.of_network(phase.graph, name)
        own = network_source(config, model, interface)
        guides = any(name in t.guides for t in phase.graph.transfers)
        own = dataclasses.replace(own, cache=caching if guides else None)
        source = _source(own, name, model, interface, interfaces.data)
        if source is not None:
          sources[name] = source
  _check_frozen(phases, caching)
  return sources


def _check_frozen(phases: Sequence[Phase], caching: Caching | None) -> None:
  """Refuses a view cache in a run whose guides all learn.

  Raises:
    ValueError: their outputs change with each step.
  """
  graphs = [phase.graph for phase in phases]
  guides = sorted({x for g in graphs for t in g.transfers for x in t.guides})
  frozen = any(graph.frozen for graph in graphs)
  if caching and caching.mode != 'auto' and guides and not frozen:
    raise ValueError(
      f'teacher.cache={caching.mode!r} keeps the outputs of frozen networks,'
      f' and {" and ".join(guides)} learn, so that their outputs change with'
      " each step: set it to 'off' or 'auto'"
    )


def _source(
  own: Source,
  name: str,
  model: Model,
  interface: Interface | None,
  data: Data,
) -> Source | None:
  """Returns the source of a frozen network; None if the step runs it.

  Args:
    own: the network itself, with its view cache.
    name: of the network.
    model: of the network.
    interface: of the network.
    data: of the run.
  """
  auto = own.cache is not None and own.cache.mode == 'auto'
  if model.outputs:
    store = Store(model.outputs)
    explicit = own.cache if name == TEACHER and not auto else None
    _check_outputs(store, data, explicit)
    own = dataclasses.replace(own, cache=None)
    return dataclasses.replace(own, store=store, card=store.header.card)
  if functions.is_function(model):
    function = functions.read(model, data.image_shape)
    assert interface is not None, 'a function has a card'
    digest = {'function': function.card.params_sha256}
    return dataclasses.replace(
      own,
      cache=None if auto else own.cache,
      function=interface.of_data(function.function, jnp.asarray),
      predict=interface.of_data(function.predict, np.asarray),
      network={**own.network, **digest},
      card=function.card.to_json(),
    )
  return own if own.cache else None


def _check_outputs(store: Store, data: Data, cache: Caching | None) -> None:
  """Checks that a store has logits of the data's classes.

  Raises:
    ValueError: it has others, or they are to be cached as well.
  """
  if cache:
    raise ValueError(
      f'teacher.outputs={str(store.path)!r} has the outputs already: set'
      f" teacher.cache={cache.mode!r} to 'off' or 'auto'"
    )
  classes = store.header.rows.shape[-1]
  if classes != data.num_classes:
    raise ValueError(
      f'{store.path} has logits of {classes} classes, the data have'
      f' {data.num_classes}: store the outputs for these data'
    )


def network_source(
  config: Config, model: Model, interface: Interface | None
) -> Source:
  """Returns the source of a network's logits that is the network itself.

  Args:
    config: of the run.
    model: of the network.
    interface: of the network.
  """
  entries = {
    'model': model.name,
    'width': model.width,
    'settings': dict(model.settings),
    'compute_dtype': config.compute_dtype,
    'interface': interface and dataclasses.asdict(interface),
  }
  imported = models.is_path(model.name) and not functions.is_function(model)
  if imported:  # its code is not ours
    entries['source'] = models.source_digest(model.name)
  return Source(
    network=json.loads(json.dumps(entries)),
    data={
      'augment': config.data.augment,
      'image_size': config.data.image_size,
      **config.data.settings.to_dict(),
    },
  )


def module_of(source: Source, num_classes: int) -> nn.Module | None:
  """Returns what stands for a network in a program; None: the network.

  Args:
    source: of its logits.
    num_classes: of the data.
  """
  if not source.card:
    return None
  card = Card.from_json(source.card)
  return models.Precomputed(num_classes, card.params, card.macs)


def check(dataset: Dataset, sources: Mapping[str, Source]) -> None:
  """Checks that sources have, or can have, outputs for a data set's images.

  Raises:
    ValueError: stored outputs are those of other images; outputs of these
      images cannot be cached.
  """
  for source in sources.values():
    if source.store:
      check_store(source.store, dataset, source)
    if source.cache is not None:
      check_cacheable(dataset, problems.of(dataset), source.cache.mode)


def evaluate(
  source: Source, problem: Problem, test: Evaluator
) -> dict[str, float]:
  """Returns the test results of stored outputs, or of a function."""
  if source.predict:
    return problem.summary(test.totals_of(source.predict))
  results = Card.from_json(source.card).results
  return {
    # JSON has no infinity, which a class of probability 0 leads to.
    name: math.inf if value is None else float(value)
    for name, value in results.items()
    if name in problem.displays
  }


def digest(source: Source | None, card: Card) -> str:
  """Returns the digest by which a run knows its pretrained network again."""
  if source is None or source.store is None:
    return card.params_sha256
  text = json.dumps(source.store.header.as_json(), sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()
