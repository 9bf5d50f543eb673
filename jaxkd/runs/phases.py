"""A phase with all settings of its run resolved, ready to be trained."""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import flax.linen as nn
import optax

from jaxkd import checkpoints, models, problems
from jaxkd.catalog import lookup
from jaxkd.config import Config
from jaxkd.data.base import Dataset
from jaxkd.graph import OBJECTIVES, Frozen, Graph, Model, Phase
from jaxkd.graph.program import Program, bind
from jaxkd.problems import Problem
from jaxkd.runs import cost, sections, sources, view_cache
from jaxkd.runs.interfaces import Data, Interface, Interfaces
from jaxkd.training import mesh
from jaxkd.training import optimizer as optimizers
from jaxkd.training.feed import steps_per_epoch
from jaxkd.training.phase import Task
from jaxkd.training.precomputed import Source
from jaxkd.types import DTYPES


@dataclasses.dataclass(frozen=True)
class ResolvedPhase:
  """A phase of a run, with a value for each setting. Made by `resolve`.

  phase: the method's description of it.
  program: its graph with modules.
  models: by network.
  interfaces: by network, for those that differ from the data.
  epochs: to train.
  length: epochs that its schedule covers; more than `epochs` if the phase ends
    early.
  learning_rate: the peak.
  schedule: name of the learning rate's schedule.
  seed: of initial values, order, views and the step.
  optimizer: its name.
  make_schedules: steps per epoch -> the learning rate at a step, by owner; ''
    -> that of all owners.
  make_optimizer: the same -> the optimizer, over the learning owners.
  ema: decay of the weights' moving average; 0: no average.
  batch_size: over all devices.
  save_every_steps: saves inside an epoch; 0 saves after each epoch only.
  prepares: its network is reusable, and serves only the later phases.
  sources: by frozen network that no step runs, where its outputs come from.
  candidates: likewise, of networks whose outputs are cached if that saves time.
  """

  phase: Phase
  program: Program
  models: Mapping[str, Model]
  interfaces: Mapping[str, Interface]
  epochs: int
  length: int
  learning_rate: float
  schedule: str
  seed: int
  optimizer: str
  make_schedules: Callable[[int], dict[str, optax.Schedule]]
  make_optimizer: Callable[[int], optax.GradientTransformation]
  ema: float
  batch_size: int
  save_every_steps: int
  prepares: bool
  sources: Mapping[str, Source]
  candidates: Mapping[str, Source]

  @property
  def name(self) -> str:
    """The name of the phase."""
    return self.phase.name

  @property
  def graph(self) -> Graph:
    """The graph of the phase, as the method describes it."""
    return self.phase.graph

  @property
  def reusable(self) -> bool:
    """Whether other runs can take its network from the cache."""
    return self.phase.reusable

  @property
  def differences(self) -> list[str]:
    """What differs between its networks and the data, a line for each fact."""
    return [
      f'{name}: {line}'
      for name, interface in self.interfaces.items()
      for line in interface.lines
    ]

  def task(self, dataset: Dataset) -> Task:
    """Returns all that the phase's training is a function of."""
    steps = steps_per_epoch(dataset, self.batch_size)
    return Task(
      name=self.name,
      program=self.program,
      dataset=dataset,
      problem=problems.of(dataset),
      mesh=mesh.make_mesh(),
      optimizer=self.make_optimizer(steps),
      epochs=self.epochs,
      length=self.length,
      batch_size=self.batch_size,
      seed=self.seed,
      ema=self.ema,
      every_steps=self.save_every_steps,
      sources=self.sources,
      rates=self.make_schedules(steps),
    )

  def steps(self, images: int) -> int:
    """Returns the steps of an epoch of so many training images."""
    return -(-images // self.batch_size)

  def training_flops(self, images: int) -> int:
    """Returns the FLOPs of training on so many images, in all epochs."""
    return self.epochs * images * self.flops.training

  @functools.cached_property
  def sizes(self) -> dict[str, tuple[int, int]]:
    """Parameters and MACs per image of each network; 0 if unknown."""
    names = self.graph.networks
    return {name: cost.sizes(self.program, name) for name in names}

  @functools.cached_property
  def flops(self) -> cost.Flops:
    """What the phase costs for one image."""
    macs = {name: macs for name, (_, macs) in self.sizes.items()}
    two = self.optimizer in optimizers.TWO_GRADIENTS
    return cost.Flops(
      cost.training(self.program, macs, gradients=1 + two),
      cost.testing(self.graph, macs),
    )

  def cached_task(self, dataset: Dataset) -> Task:
    """Returns `task`, with outputs cached as far as that saves time."""
    return view_cache.choose(self.task(dataset), self.candidates)


def resolve(
  config: Config,
  phases: tuple[Phase, ...],
  models: Mapping[str, Model],
  data: Data,
  problem: Problem,
) -> tuple[ResolvedPhase, ...]:
  """Returns a run's phases with all settings resolved.

  Args:
    config: of the run.
    phases: of its method.
    models: by section of the config.
    data, problem: its images and classes, and what is predicted.

  Raises:
    KeyError: no such model or compute type.
    ValueError: a width, an input or classes that a model cannot have.
  """
  interfaces = Interfaces(phases, models, data)
  build = functools.partial(_build, config, models, interfaces)
  models_of = [sections.models_of(phase, models) for phase in phases]
  every = sources.of_phases(config, phases, models_of, interfaces)
  resolved = []
  for phase, own_models in zip(phases, models_of, strict=True):
    own, candidates = view_cache.split(every, phase.graph.frozen)
    graph, settings = phase.graph, config.optimizer
    length = config.epochs if phase.epochs is None else phase.epochs
    prepares = phase.reusable and phase is not phases[-1]
    name, rate = settings.name, phase.learning_rate
    name = name if graph.guided else optimizers.unguided(name)
    rate = settings.learning_rate if rate is None else rate
    seed = config.seed if phase.seed is None else phase.seed
    planned = length, rate, phase.schedule or config.schedule.name
    schedules = functools.partial(_schedules, config, graph, *planned)
    program = _program(config, phase, build, interfaces, own)
    spec = problem.batch_spec(program.input_shape, 2, data.num_classes)
    resolved.append(
      ResolvedPhase(
        phase=phase,
        program=view_cache.with_taps(program, own, spec, length),
        models=own_models,
        interfaces=interfaces.of_graph(graph),
        epochs=length if phase.stop is None else phase.stop,
        length=length,
        learning_rate=rate,
        schedule=planned[-1],
        seed=seed,
        optimizer=name,
        make_schedules=schedules,
        make_optimizer=functools.partial(_optimizer, config, name, schedules),
        ema=0.0 if prepares else settings.ema,
        batch_size=config.batch_size,
        save_every_steps=config.save_every_steps,
        prepares=prepares,
        sources=own,
        candidates=candidates,
      )
    )
  return tuple(resolved)


def _build(
  config: Config,
  models_by_section: Mapping[str, Model],
  interfaces: Interfaces,
  architecture: str | Model,
  width: float,
  branches: int | None,
  num_classes: int | None = None,
) -> nn.Module:
  """Returns the module of a node for images of the data; see `program.bind`.

  Args:
    config: of the run.
    models_by_section: of the config.
    interfaces: of the run's networks.
    architecture: a model, or the name of a section.
    width: in multiples of the model's.
    branches: of its convolutions; None: the model's.
    num_classes: None takes those of the data.
  """
  model = sections.model_of(architecture, models_by_section)
  if model.name.startswith(checkpoints.FUNCTION):
    raise ValueError(
      f'{model.name} is a function, which cannot be trained: it can only be a'
      ' frozen teacher, and no other network can have its architecture'
    )
  module = models.build(
    model.name,
    num_classes or interfaces.data.num_classes,
    taps=dict(model.taps),
    width=model.width * width,
    branches=model.branches if branches is None else branches,
    dtype=lookup('compute_dtype', DTYPES, config.compute_dtype),
    **model.settings,
  )
  interface = interfaces.of_architecture(architecture)
  return interface.convert_input(module) if interface else module


def _program(
  config: Config,
  phase: Phase,
  build: Callable[..., nn.Module],
  interfaces: Interfaces,
  own: Mapping[str, Source],
) -> Program:
  """Returns the phase's graph with a module in each node.

  Raises:
    ValueError: a classifier of other classes than the data's is to be reused.
  """
  graph = phase.graph
  mapped = {
    name: interface
    for name, interface in interfaces.of_graph(graph).items()
    if interface.groups is not None
  }
  for name, head in graph.heads.items():
    if head.of in mapped:
      raise ValueError(
        f'{name!r} has the classifier of {head.of!r}, whose classes differ from'
        f' those of the data ({"; ".join(mapped[head.of].lines)}): take a'
        ' network with the classes of the data, in their order, or another'
        ' method'
      )
  classes = interfaces.data.num_classes
  precomputed = {name: sources.module_of(own[name], classes) for name in own}
  mapped = {n: x for n, x in mapped.items() if not precomputed.get(n)}
  program = bind(graph, build, interfaces.data.image_shape, precomputed)
  modules, init_modules = dict(program.modules), dict(program.init_modules)
  for name, interface in mapped.items():
    network = graph.networks[name]
    modules[name] = init_modules[name] = build(
      graph.architecture(name),
      network.width,
      network.branches,
      interface.num_classes,
    )
  for name, section in _read_by_section(phase).items():
    read_out = sections.read_out(config, section)
    modules[name] = models.wrap(modules[name], read_out)
  for name, interface in mapped.items():
    modules[name] = models.with_classes(modules[name], interface.groups)
  return dataclasses.replace(
    program, modules=modules, init_modules=init_modules
  )


def _read_by_section(phase: Phase) -> dict[str, str]:
  """Returns the networks that have the read-out of a section of the config.

  They are the section's own network, frozen or in its own training, and the
  networks with its classifier. Another network of this architecture, or one
  that learns together with others, is trained by losses of logits.

  Returns:
    Network -> section.
  """
  graph = phase.graph
  own = {
    name: name
    for name, network in graph.networks.items()
    if graph.architecture(name) == name
    and (isinstance(network, Frozen) or phase.reusable)
  }
  heads = {n: own[x.of] for n, x in graph.heads.items() if x.of in own}
  return {**own, **heads}


def _schedules(
  config: Config,
  graph: Graph,
  length: int,
  learning_rate: float,
  schedule: str,
  steps: int,
) -> dict[str, optax.Schedule]:
  """Returns a phase's learning rates at a step.

  Args:
    config: of the run.
    graph: of the phase.
    length: epochs of the schedule.
    learning_rate: the peak of owners without a rate of their own.
    schedule: its name.
    steps: per epoch.

  Returns:
    Owner -> its schedule if any has a rate of its own; else '' -> that of all.
  """
  rates = config.optimizer.rates.to_dict()
  shape = {**config.schedule.to_dict(), 'name': schedule}
  owners = (*graph.learners, OBJECTIVES) if rates else ('',)
  return {
    owner: optimizers.make_schedule(
      learning_rate=rates.get(owner, learning_rate),
      epochs=length,
      steps_per_epoch=steps,
      **shape,
    )
    for owner in owners
  }


def _optimizer(
  config: Config,
  name: str,
  schedules: Callable[[int], dict[str, optax.Schedule]],
  steps: int,
) -> optax.GradientTransformation:
  """Returns a phase's optimizer, with a rate for each owner if any is set.

  Args:
    config: of the run.
    name: of the optimizer.
    schedules: see `_schedules`.
    steps: per epoch.
  """
  settings = config.optimizer.to_dict()
  for key in ('name', 'learning_rate', 'rates', 'ema'):
    del settings[key]
  by_owner = schedules(steps)
  one = by_owner.get('')
  return optimizers.make_optimizer(name, one or by_owner, **settings)
