"""Networks that no train step runs: stored outputs, functions, the view cache.

A frozen network can be a file of its outputs (`outputs` of its section), a
function of Python or a program in a file, or a network whose outputs are cached
(`teacher.cache_outputs`).
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn

from jaxkd import checkpoints, models
from jaxkd.checkpoints import Card
from jaxkd.config import BAYES, Config
from jaxkd.data.base import Dataset
from jaxkd.graph import Frozen, Model, Phase
from jaxkd.problems import Problem
from jaxkd.runs import layout
from jaxkd.stores import Store
from jaxkd.train.evaluation import Evaluator
from jaxkd.train.precomputed import CACHES, Source, check_cacheable, check_store

TEACHER = 'teacher'  # the section with `cache_outputs`
# Settings of a section by which a network's images and classes are fitted to
# those of the data.
FITTING = (
  'mean',
  'std',
  'image_size',
  'channels',
  'classes',
  'unmapped',
)


def is_function(model: Model) -> bool:
  """Returns whether a model is a function, which has no arrays here."""
  if model.checkpoint == BAYES:
    return False
  return checkpoints.is_function(model.name, model.checkpoint)


def described(model: Model) -> Model:
  """Returns a model with what the card of its outputs or program says.

  A model that is not a file of outputs or of a program is returned as it is.
  """
  card = None
  if model.outputs:
    card = Card.from_json(Store(model.outputs).header.card)
  elif model.checkpoint and is_function(model):
    card = checkpoints.card_of_file(model.checkpoint)
    name = model.checkpoint.replace('\\', '/').rpartition('/')[2]
    if card is None:
      return dataclasses.replace(model, name=checkpoints.FUNCTION + name)
  if card is None:
    return model
  return dataclasses.replace(
    model,
    name=card.model,
    width=card.width,
    settings=card.settings,
    taps=card.taps,
    read_out='',
  )


def of_phases(
  config: Config,
  phases: Sequence[Phase],
  models_of: Sequence[Mapping[str, Model]],
  image_shape: tuple[int, int, int],
) -> dict[str, Source]:
  """Returns the sources of a run's frozen networks that no step runs, by name.

  Args:
    config: of the run.
    phases: of the run.
    models_of: by network of each phase.
    image_shape: [H, W, C].

  Raises:
    ImportError: a library is needed and absent.
    ValueError: a network that is trained in some phase has outputs alone; a
      file or function is not what it should be.
  """
  sources = {}
  for phase, models_by_network in zip(phases, models_of, strict=True):
    for name, network in phase.graph.networks.items():
      model = models_by_network[name]
      if getattr(network, 'like', None) not in (None, name):
        continue  # has the model's architecture, and arrays of its own
      alone = model.outputs or is_function(model)
      if alone and not isinstance(network, Frozen):
        raise ValueError(
          f'{name!r} is trained in the phase {phase.name!r}, but'
          f' {model.outputs or model.checkpoint or model.name} has no'
          ' parameters, only outputs: it can only be a frozen teacher'
        )
      if isinstance(network, Frozen) and name not in sources:
        source = _source(config, name, model, image_shape)
        if source is not None:
          sources[name] = source
  return sources


def _source(
  config: Config, name: str, model: Model, image_shape: tuple[int, int, int]
) -> Source | None:
  """Returns the source of a frozen network; None if the step runs it."""
  own = network_source(config, model, name)
  caches = name == TEACHER and config.teacher.cache_outputs
  if caches:
    folder = layout.cache_folder(config.cache) / CACHES
    own = dataclasses.replace(own, cache=folder)
  if model.outputs:
    if caches:
      raise ValueError(
        f'teacher.outputs={model.outputs!r} has the outputs already: set'
        ' teacher.cache_outputs to False'
      )
    store = Store(model.outputs)
    return dataclasses.replace(own, store=store, card=store.header.card)
  if is_function(model):
    function = checkpoints.read_function(
      model.name, model.checkpoint, image_shape, model.settings
    )
    digest = {'function': function.card.params_sha256}
    return dataclasses.replace(
      own,
      function=function.function,
      predict=function.predict,
      network={**own.network, **digest},
      card=function.card.to_json(),
    )
  return own if caches else None


def network_source(config: Config, model: Model, name: str = TEACHER) -> Source:
  """Returns the source of a network's logits that is the network itself.

  Args:
    config: of the run.
    model: of the network.
    name: of the network.
  """
  return Source(
    dtype=config.store.dtype,
    top=config.store.top,
    network={'inputs': _fitting(config, name), **identity(config, model)},
    data={
      'augment': config.data.augment,
      'image_size': config.data.image_size,
      **config.data.settings.to_dict(),
    },
  )


def identity(config: Config, model: Model) -> dict[str, Any]:
  """Returns what a network computes, besides its variables, as JSON values."""
  entries = {
    'model': model.name,
    'width': model.width,
    'settings': dict(model.settings),
    'compute_dtype': config.compute_dtype,
  }
  imported = models.is_path(model.name) and not is_function(model)
  if imported:  # its code is not ours
    entries['source'] = models.source_digest(model.name)
  return json.loads(json.dumps(entries))


def _fitting(config: Config, name: str) -> dict[str, Any]:
  """Returns how a section fits images and classes to its network."""
  section = config.to_dict().get(name, {})
  entries = {key: section[key] for key in FITTING if key in section}
  return json.loads(json.dumps(entries))


def module_of(source: Source) -> nn.Module | None:
  """Returns what stands for a network in a program; None: the network."""
  if not source.card:
    return None
  card = Card.from_json(source.card)
  return models.Precomputed(card.num_classes, card.params, card.macs)


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
      check_cacheable(dataset)


def evaluate(
  source: Source, problem: Problem, test: Evaluator
) -> dict[str, float]:
  """Returns the test results of stored outputs, or of a function."""
  if source.predict:
    return problem.summary(test.totals_of(source.predict))
  results = Card.from_json(source.card).results
  return {
    name: float(value)
    for name, value in results.items()
    if name in problem.displays and value is not None
  }


def digest(source: Source | None, card: Card) -> str:
  """Returns the digest by which a run knows its pretrained network again."""
  if source is None or source.store is None:
    return card.params_sha256
  text = json.dumps(source.store.header.as_json(), sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()
