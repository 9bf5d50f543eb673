"""From a config to a finished run: the only reader of configs."""

import dataclasses
import functools
import pathlib
from typing import Any

import optax
from ml_collections import ConfigDict

from jaxkd import checkpoints, data, methods, models, problems
from jaxkd import config as configs
from jaxkd.catalog import UnknownNameError, call, lookup, suggestion
from jaxkd.config import Config
from jaxkd.data.base import Dataset
from jaxkd.graph import OBJECTIVES, Frozen, Learner, Model, Phase
from jaxkd.graph.program import Program, bind
from jaxkd.methods.offline import TEACHER_LOSSES
from jaxkd.problems import Problem
from jaxkd.runs import describe
from jaxkd.train import mesh, optimizer
from jaxkd.train.feed import steps_per_epoch
from jaxkd.train.phase import Task
from jaxkd.types import DTYPES

ARCHITECTURES = ('student', 'teacher')  # the sections that describe networks
# Settings of the teacher's training that came after its cache: keys have them
# only where they are not at their defaults, so that older teachers are found.
LATER = (
  'read_out',
  'cross_entropy_epochs',
  'blend_epochs',
  'stop',
  'start',
  'settings',
  'taps',
)


def phases_of(config: Config) -> tuple[Phase, ...]:
  """Returns the method's phases, after the teacher's where it needs one.

  Raises:
    KeyError: no method of that name.
    ValueError: a setting that the method does not take.
  """
  arguments = config.method.to_dict()
  name = arguments.pop('name', '')
  method = lookup('method', methods.CATALOG, name)
  train_teacher = methods.teacher(
    loss=config.teacher.loss,
    reduction=config.teacher.reduction,
    scale=config.teacher.scale,
    epochs=config.teacher.epochs or None,
    learning_rate=config.teacher.learning_rate or None,
    stop=configs.stop(config) or None,
    cross_entropy_epochs=config.teacher.cross_entropy_epochs,
    blend_epochs=config.teacher.blend_epochs,
  )
  configs.check_start(config, trains=method is methods.teacher)
  if method is methods.teacher:
    if config.baseline or config.kd_baseline:
      raise ValueError(
        'baseline and kd_baseline train twins of the student, and the method'
        ' teacher has no student: leave them False'
      )
    # Its settings are the config's section on the teacher.
    return call('method teacher', lambda: train_teacher, arguments)
  phases = call(f'method {name}', method, arguments)
  _check_taught(config, phases)
  if config.kd_baseline:
    phases = (*methods.kd_baseline(), *phases)
  if config.baseline:
    phases = (*methods.baseline(), *phases)
  guided = any(
    isinstance(phase.graph.networks.get('teacher'), Frozen) for phase in phases
  )
  if guided and not config.teacher.checkpoint:
    phases = (*train_teacher, *phases)
  return phases


def _check_taught(config: Config, phases: tuple[Phase, ...]) -> None:
  """Refuses a trained teacher where the method itself trains it.

  It would begin where that one has ended, and another one would be compared.
  """
  learns = any(
    isinstance(phase.graph.networks.get('teacher'), Learner) for phase in phases
  )
  if learns and (config.kd_baseline or config.teacher.checkpoint):
    raise ValueError(
      f'the method {config.method.name} trains the teacher itself, so'
      f' kd_baseline={config.kd_baseline} and'
      f' teacher.checkpoint={config.teacher.checkpoint!r} cannot be: leave them'
      " False and ''. (Where its training starts, teacher.start says.)"
    )


@dataclasses.dataclass(frozen=True)
class Experiment:
  """A checked config, and what is made from it.

  phases: in the order in which they are run.
  """

  config: Config
  phases: tuple[Phase, ...]

  @functools.cached_property
  def dataset(self) -> Dataset:
    """The data, read when first asked for."""
    given = self.config.data.to_dict()
    settings = given.pop('settings')
    return data.load(**{**given, **settings})

  @property
  def problem(self) -> Problem:
    """The problem that the data pose; read from the data only if need be."""
    spec = self._spec
    name = spec.problem if spec else self.dataset.problem
    return lookup('problem', problems.CATALOG, name)

  @property
  def image_shape(self) -> tuple[int, int, int]:
    """[H, W, C] of one image; read from the data only if need be."""
    spec = self._spec
    if spec is None:
      return self.dataset.image_shape
    height, width, channels = spec.image_shape
    size = self.config.data.image_size
    return (size or height, size or width, channels)

  @property
  def num_classes(self) -> int:
    """K; read from the data only if need be."""
    spec = self._spec
    return spec.num_classes if spec else self.dataset.num_classes

  @property
  def _spec(self) -> data.Spec | None:
    section = self.config.data
    return data.spec(section.name, section.settings.to_dict())

  def section(self, phase: Phase, name: str) -> Config:
    """Returns the section on a network: the config's, or a model's own."""
    return self._architecture(phase.graph.architecture(name))

  def _architecture(self, of: str | Model) -> Config:
    if isinstance(of, Model):
      return ConfigDict({**dataclasses.asdict(of), 'read_out': 'softmax'})
    sections = {name: self.config[name] for name in ARCHITECTURES}
    return lookup('architecture', sections, of)

  def program(self, phase: Phase) -> Program:
    """Returns the phase's graph with a module in each node.

    Raises:
      KeyError: no such model or compute type.
      ValueError: a width that the model cannot have.
    """
    dtype = lookup('compute_dtype', DTYPES, self.config.compute_dtype)

    def build(like, width, branches):
      section = self._architecture(like)
      if branches is None:
        branches = section.get('branches', 1)
      return models.build(
        section.name,
        self.num_classes,
        taps=section.taps.to_dict(),
        width=section.width * width,
        branches=branches,
        dtype=dtype,
        **section.settings.to_dict(),
      )

    program = bind(phase.graph, build, self.image_shape)
    if not self._reads_teacher(phase):
      return program
    heads = phase.graph.heads
    speaks = {'teacher', *(n for n in heads if heads[n].of == 'teacher')}
    modules = {
      name: models.wrap(module, self.teacher_read_out)
      if name in speaks
      else module
      for name, module in program.modules.items()
    }
    return dataclasses.replace(program, modules=modules)

  def _reads_teacher(self, phase: Phase) -> bool:
    """Is there the teacher, as its own training left it or as it goes on?

    Another network of its architecture, or a teacher that learns among others,
    learns by losses of logits.
    """
    teacher = phase.graph.networks.get('teacher')
    return isinstance(teacher, Frozen) or self.is_teacher(phase)

  @property
  def teacher_read_out(self) -> str:
    """What the teacher's outputs mean.

    What the card of its checkpoint says; or, if it is trained here (or the
    checkpoint is not there yet), what the config says.
    """
    section = self.config.teacher
    if section.checkpoint == configs.BAYES:
      return 'softmax'
    path = section.checkpoint and pathlib.Path(section.checkpoint)
    if path and path.exists():
      card = checkpoints.load_card(path)
      return card.read_out if card else 'softmax'
    return section.read_out or TEACHER_LOSSES[section.loss].read_out

  def epochs(self, phase: Phase) -> int:
    """Returns for how many epochs a phase is trained."""
    return self.length(phase) if phase.stop is None else phase.stop

  def length(self, phase: Phase) -> int:
    """Returns how many epochs a phase's schedule is made for."""
    return self.config.epochs if phase.epochs is None else phase.epochs

  def learning_rate(self, phase: Phase) -> float:
    """Returns a phase's peak learning rate."""
    if phase.learning_rate is None:
      return self.config.optimizer.learning_rate
    return phase.learning_rate

  def schedule(self, phase: Phase) -> str:
    """Returns the name of a phase's schedule."""
    return phase.schedule or self.config.schedule.name

  def is_teacher(self, phase: Phase) -> bool:
    """Is it the phase that trains the teacher?"""
    return phase.graph.learners == ('teacher',)

  def prepares(self, phase: Phase) -> bool:
    """Does it train the teacher for the phases behind it?"""
    return self.is_teacher(phase) and phase != self.phases[-1]

  def seed(self, phase: Phase) -> int:
    """Returns a phase's seed; a teacher has its own."""
    teacher = self.is_teacher(phase)
    return self.config.teacher.seed if teacher else self.config.seed

  def optimizer_name(self, phase: Phase) -> str:
    """Returns which optimizer a phase has."""
    name = self.config.optimizer.name
    return name if phase.graph.guided else optimizer.unguided(name)

  def optimizer(
    self, phase: Phase, steps_per_epoch: int
  ) -> optax.GradientTransformation:
    """Returns the phase's optimizer, with a rate for each owner if asked."""
    settings = self.config.optimizer.to_dict()
    rates, rate = settings.pop('rates'), settings.pop('learning_rate')
    settings.pop('ema')
    settings['name'] = self.optimizer_name(phase)
    shape = {**self.config.schedule.to_dict(), 'name': self.schedule(phase)}

    def schedule(rate):
      return optimizer.make_schedule(
        learning_rate=rate,
        epochs=self.length(phase),
        steps_per_epoch=steps_per_epoch,
        **shape,
      )

    rate = self.learning_rate(phase)
    schedules = schedule(rate)
    if rates:
      owners = (*phase.graph.learners, OBJECTIVES)
      schedules = {o: schedule(rates.get(o, rate)) for o in owners}
    return optimizer.make_optimizer(schedules=schedules, **settings)

  def task(self, phase: Phase) -> Task:
    """Returns all that a phase's training is a function of."""
    steps = steps_per_epoch(self.dataset, self.config.batch_size)
    return Task(
      name=phase.name,
      program=self.program(phase),
      dataset=self.dataset,
      problem=self.problem,
      mesh=mesh.make_mesh(),
      optimizer=self.optimizer(phase, steps),
      epochs=self.epochs(phase),
      length=self.length(phase),
      batch_size=self.config.batch_size,
      seed=self.seed(phase),
      ema=0.0 if self.prepares(phase) else self.config.optimizer.ema,
      every_steps=self.config.save_every_steps,
    )

  def teacher_settings(self, phase: Phase) -> dict[str, Any]:
    """Returns all that determines a trained teacher, as JSON values."""
    config = configs.resolved(self.config)
    teacher = config['teacher']
    default = configs.resolved(configs.default())['teacher']
    given = {k: v for k, v in teacher.items() if k != 'checkpoint'}
    if models.is_path(teacher['name']):  # whose code is not ours
      given['source'] = models.source_digest(teacher['name'])
    for key in LATER:
      if given[key] == default[key]:
        del given[key]
    if 'start' in given:  # what it is, not where it lies
      section = self.config.teacher
      _, card = checkpoints.load(
        pathlib.Path(section.start),
        section.name,
        self.image_shape,
        width=section.width,
        **section.settings.to_dict(),
      )
      given['start'] = card.params_sha256
    optimizer = config['optimizer']
    optimizer['name'] = self.optimizer_name(phase)
    for key in ('ema', 'delta'):  # not of its training
      del optimizer[key]
    return {
      'teacher': given,
      'optimizer': optimizer,
      'learning_rate': self.learning_rate(phase),
      'epochs': self.length(phase),
      'schedule': config['schedule'],
      'batch_size': config['batch_size'],
      'compute_dtype': config['compute_dtype'],
      'data': {**config['data'], 'dir': ''},
      'fingerprint': self.dataset.fingerprint,
    }

  def describe(self) -> str:
    """Returns the phases, their networks and transfers, as text."""
    config = self.config
    shape = 'x'.join(map(str, self.image_shape))
    head = (
      f'{config.method.name} on {config.data.name}: images {shape},'
      f' {self.num_classes} classes, batches of {config.batch_size},'
      f' seed {config.seed}'
    )
    texts = []
    for number, phase in enumerate(self.phases, 1):
      names = {n: self.section(phase, n).name for n in phase.graph.networks}
      epochs, length = self.epochs(phase), self.length(phase)
      note = (
        f'{epochs if epochs == length else f"{epochs} of {length}"} epochs,'
        f' {self.optimizer_name(phase)} at'
        f' {self.learning_rate(phase):g}, {self.schedule(phase)} schedule'
      )
      texts.append(
        describe.phase_text(number, phase, self.program(phase), names, note)
      )
    return '\n\n'.join([head, *texts])


def build(config: Config) -> Experiment:
  """Checks a config and builds what can be built before data is read.

  Raises:
    KeyError: an unknown setting, method, model, data set or network, with
      suggestions.
    ValueError: a setting of a wrong type or value.
  """
  configs.check(config)
  if config.teacher.read_out:
    lookup('read-out', models.READ_OUTS, config.teacher.read_out)
  phases = phases_of(config)
  owners = {o for phase in phases for o in (*phase.graph.learners, OBJECTIVES)}
  for owner in config.optimizer.rates:
    if owner not in owners:
      raise UnknownNameError(
        f'config.optimizer.rates names {owner!r}, which learns in no phase.'
        f' {suggestion(owner, owners)}'
      )
  experiment = Experiment(config, phases)
  if any(map(experiment.is_teacher, phases)):
    configs.check_recipe(config)
  mesh.check_batch_size(mesh.make_mesh(), config.batch_size)
  for phase in phases:
    program, trained = experiment.program(phase), phase.graph.trained
    for name, module in program.modules.items():
      models.check(module, program.input_shape, train=name in trained)
    spec = experiment.problem.batch_spec(program.input_shape, 2)
    program.check_objectives(spec, experiment.length(phase))
    experiment.optimizer(phase, steps_per_epoch=1)
  return experiment
