"""An experiment: a checked config, and the phases that it describes."""

import dataclasses
import functools
from collections.abc import Mapping

from jaxkd import config as configs
from jaxkd import data, models, objectives, problems
from jaxkd.catalog import UnknownNameError, lookup, suggestion
from jaxkd.config import Config
from jaxkd.data.base import Dataset, View
from jaxkd.graph import OBJECTIVES, Model, Phase
from jaxkd.graph.several_labels import check_sigmoid
from jaxkd.problems import Problem
from jaxkd.runs import describe, sections
from jaxkd.runs.phases import ResolvedPhase, resolve
from jaxkd.sharing import shared
from jaxkd.training import mesh


@dataclasses.dataclass(frozen=True)
class Source:
  """The data of an experiment, read only when they are needed.

  settings: the config's section on data.
  loaded: the data themselves, if they are in memory already.
  sizes: of the data, if no data will be read.
  """

  settings: Config
  loaded: Dataset | None = None
  sizes: data.Spec | None = None

  @functools.cached_property
  def dataset(self) -> Dataset:
    """The data, read when first asked for."""
    if self.loaded is not None:
      return self.loaded
    arguments = self.settings.to_dict()
    further = arguments.pop('settings')
    arguments = {**arguments, **further}
    # The runs of a study have the same data, most often.
    return shared('data', repr(arguments), lambda: data.load(**arguments))

  @property
  def image_shape(self) -> tuple[int, int, int]:
    """[H, W, C] of one image."""
    spec = self._spec
    if spec is None:
      return self.dataset.image_shape
    height, width, channels = spec.image_shape
    size = self.settings.image_size
    return (size or height, size or width, channels)

  @property
  def view(self) -> View:
    """The normalisation of the images; its augmentation is not the run's."""
    spec = self._spec
    return spec.view if spec and spec.view else self.dataset.view

  @property
  def num_classes(self) -> int:
    """K."""
    spec = self._spec
    return spec.num_classes if spec else self.dataset.num_classes

  @property
  def train_images(self) -> int:
    """Training images; read from the data only if need be, 0 if unknown."""
    spec, section = self._spec, self.settings
    if spec and spec.train:
      return data.train_size(
        spec, section.few_shot, section.validation, section.hold_out
      )
    return 0 if self.sizes else len(self.dataset.train)

  @property
  def class_names(self) -> tuple[str, ...]:
    """K names."""
    return tuple(self.dataset.class_names)

  @property
  def problem(self) -> Problem:
    """The problem that the data pose."""
    spec = self._spec
    name = spec.problem if spec else self.dataset.problem
    return lookup('problem', problems.CATALOG, name)

  @property
  def _spec(self) -> data.Spec | None:
    """The sizes of the data, where they follow from the data set's name."""
    section = self.settings
    if self.loaded is not None or self.sizes is not None:
      return self.sizes
    settings = section.settings.to_dict()
    return data.spec(section.name, settings, section.channels)


@dataclasses.dataclass(frozen=True)
class Experiment:
  """A checked config, and what is made from it. Made by `build`.

  config: the settings.
  source: the data.
  models: by section of the config.
  phases: in the order in which they are run.
  """

  config: Config
  source: Source
  models: Mapping[str, Model]
  phases: tuple[ResolvedPhase, ...]

  @property
  def dataset(self) -> Dataset:
    """The data, read when first asked for."""
    return self.source.dataset

  @property
  def image_shape(self) -> tuple[int, int, int]:
    """[H, W, C] of one image; read from the data only if need be."""
    return self.source.image_shape

  @property
  def num_classes(self) -> int:
    """K; read from the data only if need be."""
    return self.source.num_classes

  @property
  def differences(self) -> list[str]:
    """What differs between networks and data, a line for each fact."""
    lines = [x for phase in self.phases for x in phase.differences]
    return list(dict.fromkeys(lines))

  def describe(self, done: Mapping[str, str] | None = None) -> str:
    """Returns the phases, their networks, transfers and cost, as text.

    Args:
      done: phase -> why it will not be trained; only named then.
    """
    config, images = self.config, self.source.train_images
    shape = 'x'.join(map(str, self.image_shape))
    head = (
      f'{config.method.name} on {config.data.name}:'
      f' {f"{images:,} " if images else ""}images {shape},'
      f' {self.num_classes} classes, batches of {config.batch_size},'
      f' seed {config.seed}'
    )
    texts = [
      describe.phase_text(number, phase, images, (done or {}).get(phase.name))
      for number, phase in enumerate(self.phases, 1)
    ]
    phases = [x for x in self.phases if x.name not in (done or {})]
    return '\n\n'.join([head, *texts, describe.cost_text(phases, images)])


def build(config: Config, source: Source | None = None) -> Experiment:
  """Checks a config and builds its experiment, mostly without reading data.

  Args:
    config: the settings.
    source: the data, if they are in memory; None: those of the config.

  Raises:
    KeyError: an unknown setting, method, model, data set or network, with
      suggestions.
    ValueError: a setting of a wrong type or value.
  """
  configs.check(config)
  phases = sections.phases_of(config)
  _check_rates(config, phases)
  if any(phase.reusable for phase in phases):
    configs.check_teacher(config)
  mesh.check_batch_size(mesh.make_mesh(), config.batch_size)
  experiment = bound(config, phases, source)
  for phase in experiment.phases:
    configs.check_lengths(
      config, phase.name, phase.epochs, phase.length, phase.schedule
    )
    program, trained = phase.program, phase.graph.trained
    for name, module in program.modules.items():
      models.check(module, program.input_shape, train=name in trained)
    problem, shape = experiment.source.problem, program.input_shape
    if problem.sigmoid:
      check_sigmoid(program)
      _check_merges(phase, config.data.name)
    spec = problem.batch_spec(shape, 2, experiment.num_classes)
    program.check_objectives(spec, phase.length)
    phase.make_optimizer(1)
  return experiment


def bound(
  config: Config,
  phases: tuple[Phase, ...] | None = None,
  source: Source | None = None,
) -> Experiment:
  """Returns the experiment of a config, without the checks of `build`.

  Args:
    config: the settings.
    phases: of its method; None: as `sections.phases_of` returns them.
    source: see `build`.
  """
  if phases is None:
    phases = sections.phases_of(config)
  source = source or Source(config.data)
  by_section = sections.models(config)
  phases = tuple(_for_problem(phase, source.problem) for phase in phases)
  resolved = resolve(config, phases, by_section, source, source.problem)
  return Experiment(config, source, by_section, resolved)


def _for_problem(phase: Phase, problem: Problem) -> Phase:
  """Returns a phase whose default loss of labels is that of the problem."""
  objective = objectives.make(problem.label_objective)
  graph = phase.graph.with_label_objective(objective)
  return dataclasses.replace(phase, graph=graph)


def _check_merges(phase: ResolvedPhase, data: str) -> None:
  """Refuses merged classes of a teacher where they do not exclude each other.

  Args:
    phase: whose networks are checked.
    data: name of the data set.

  Raises:
    ValueError: the probabilities of several classes would be summed.
  """
  for name, interface in phase.interfaces.items():
    if interface.merges:
      raise ValueError(
        f'classes of {name!r} can be merged where each image has one class, and'
        f' those of {data} have several: map one class of the network to each'
        ' class of the data'
      )


def _check_rates(config: Config, phases: tuple[Phase, ...]) -> None:
  """Raises UnknownNameError for the learning rate of an unknown owner."""
  owners = {o for phase in phases for o in (*phase.graph.learners, OBJECTIVES)}
  for owner in config.optimizer.rates:
    if owner not in owners:
      raise UnknownNameError(
        f'config.optimizer.rates names {owner!r}, which learns in no phase.'
        f' {suggestion(owner, owners)}'
      )
