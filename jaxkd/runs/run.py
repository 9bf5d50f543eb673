"""A run and its folder: start, resume, refuse, finish.

A run lives in its workdir:

  config.json        the resolved config; a run with another is refused
  data.json          the data's fingerprint, likewise
  given.json         digests of networks by checkpoints, likewise
  metrics.jsonl      one object per epoch; tensorboard/ has the same
  gap.png            what it says of the networks' accuracies and losses
  reliability.png    how well a network is calibrated; --mode=eval draws it
  checkpoints/STAGE  states of the training, to resume from
  networks/NAME      trained networks: variables.npz and network.json
  phases/STAGE.json  a finished phase: its networks, time and throughput
  phases/STAGE.npz   what its objectives have learned, for the phases behind it
  summary.json       the result; the run is finished when it is there
"""

import json
import pathlib
from typing import Any

from tqdm import tqdm

from jaxkd import checkpoints, models, plots, problems, text, tree
from jaxkd import config as configs
from jaxkd.catalog import lookup
from jaxkd.checkpoints import Card, SavedNetwork, native
from jaxkd.disk import PARTIAL, write_json
from jaxkd.graph import Phase
from jaxkd.problems import Problem
from jaxkd.runs import describe, layout
from jaxkd.runs.experiment import Experiment
from jaxkd.runs.layout import CONFIG
from jaxkd.runs.pretrained import evaluate_pretrained, load_pretrained
from jaxkd.runs.provenance import provenance
from jaxkd.runs.teacher_cache import TeacherCache
from jaxkd.train import log
from jaxkd.train.phase import train_phase
from jaxkd.types import Tree, Variables

DATA, GIVEN = 'data.json', 'given.json'


class Run:
  """An experiment in a folder."""

  def __init__(self, experiment: Experiment, workdir: pathlib.Path):
    """Opens the folder, new or interrupted; writes nothing yet.

    Raises:
      ValueError: the folder holds a run of another config, or something else.
    """
    self.experiment = experiment
    self.workdir = workdir
    self._cache = TeacherCache(experiment.config.cache)
    self._carried: dict[str, Tree] = {}  # transfer -> what it has learned
    self._check(CONFIG, self._config(), 'config')

  def _config(self) -> dict[str, Any]:
    return configs.resolved(self.experiment.config)

  def _check(self, name: str, new: dict[str, Any], what: str) -> bool:
    """Compares with what the run began with; False if it has not begun."""
    path = self.workdir / name
    if not path.exists():
      return False
    lines = configs.differing(json.loads(path.read_text()), new)
    if lines:
      raise ValueError(
        f'{self.workdir} holds a run of another {what}; take another'
        ' --workdir, or change back:\n  ' + '\n  '.join(lines)
      )
    return True

  def _claim(self, found: dict[str, SavedNetwork]) -> None:
    """Makes the folder this run's, with the networks that it is given."""
    dataset = self.experiment.dataset
    new = {'name': dataset.name, 'fingerprint': dataset.fingerprint}
    given = {name: card.params_sha256 for name, (_, card) in found.items()}
    self._check(GIVEN, given, 'checkpoint')
    if self._check(DATA, new, 'data set'):
      return
    self.workdir.mkdir(parents=True, exist_ok=True)
    foreign = {
      path.name
      for path in self.workdir.iterdir()
      if path.name != CONFIG and path.suffix != PARTIAL
    }
    if foreign:
      raise ValueError(
        f'{self.workdir} is not empty and holds no run ({min(foreign)!r} is'
        ' in it); take another --workdir'
      )
    write_json(self.workdir / CONFIG, self._config())
    write_json(self.workdir / GIVEN, given)
    write_json(self.workdir / DATA, new)

  @property
  def summary(self) -> dict[str, Any] | None:
    """The result of a finished run, or None."""
    path = self.workdir / 'summary.json'
    return json.loads(path.read_text()) if path.exists() else None

  def finish(self) -> dict[str, Any]:
    """Runs what has not been run yet, and returns the summary."""
    found = load_pretrained(self.experiment)
    measured = evaluate_pretrained(self.experiment, found)
    self._claim(found)
    for note in self.experiment.dataset.notes:
      tqdm.write(f'data: {note}')
    for phase in self.experiment.phases:
      found |= (
        self._done(phase, found)
        or self._cached(phase)
        or self._train(phase, found, measured)
      )
    summary = self._summary({name: card for name, (_, card) in found.items()})
    write_json(self.workdir / 'summary.json', summary)
    return summary

  def _folder(self, name: str) -> pathlib.Path:
    return layout.network(self.workdir, name)

  def _mark(self, phase: Phase) -> pathlib.Path:
    return layout.phase(self.workdir, phase.name)

  def _finish_phase(
    self,
    phase: Phase,
    networks: dict[str, SavedNetwork],
    frozen: dict[str, dict[str, Any]],
    cost: dict[str, Any],
  ) -> None:
    """Writes what a phase has made, and last the mark that it has.

    Args:
      phase: the one that is done.
      networks: by name, what it has trained.
      frozen: by name, how good its frozen networks are.
      cost: time and throughput.
    """
    for name, network in networks.items():
      checkpoints.save(self._folder(name), *network)
    self._mark(phase).parent.mkdir(exist_ok=True)
    mark = {'networks': list(networks), 'frozen': frozen, **cost}
    write_json(self._mark(phase), mark)

  def _done(
    self, phase: Phase, found: dict[str, SavedNetwork]
  ) -> dict[str, SavedNetwork] | None:
    """Returns the networks of a finished phase, None if it is not finished."""
    if not self._mark(phase).exists():
      return None
    mark = json.loads(self._mark(phase).read_text())
    carried = self._mark(phase).with_suffix('.npz')
    if carried.exists():
      self._carried |= native.load_tree(carried)
    networks = {
      name: checkpoints.load(self._folder(name)) for name in mark['networks']
    }
    return networks | _measured(found, mark['frozen'])

  def _cached(self, phase: Phase) -> dict[str, SavedNetwork] | None:
    """Returns a teacher that an earlier run has trained in the same way.

    A run whose result is the teacher trains it all the same.
    """
    started = (self.workdir / 'checkpoints' / phase.name).exists()
    if started or not self.experiment.prepares(phase):
      return None
    settings = self.experiment.teacher_settings(phase)
    found = self._cache.load(settings)
    if found is None:
      return None
    path = str(self._cache.path(settings))
    tqdm.write(f'teacher: trained before, from {path}')
    networks = {'teacher': found}
    self._finish_phase(phase, networks, {}, {'seconds': 0.0, 'cached': path})
    return networks

  def _train(
    self,
    phase: Phase,
    found: dict[str, SavedNetwork],
    measured: dict[str, dict[str, float]],
  ) -> dict[str, SavedNetwork]:
    """Trains a phase; its networks are on disk when this returns.

    Args:
      phase: to train.
      found: by network, those of checkpoints and of earlier phases.
      measured: by network, how good those of checkpoints are.
    """
    initial = {name: variables for name, (variables, _) in found.items()}
    task = self.experiment.task(phase)
    trained = train_phase(task, self.workdir, initial, self._carried, measured)
    self._carry(phase, trained.objectives)
    networks, frozen = {}, {}
    for name, variables in trained.variables.items():
      if name in phase.graph.frozen:
        frozen[name] = trained.record.last[name]
      else:
        card = self._card(phase, name.removesuffix('_ema'), variables).replace(
          network=name, results=trained.results[name]
        )
        networks[name] = SavedNetwork(variables, card)
    if self.experiment.is_teacher(phase):
      settings = self.experiment.teacher_settings(phase)
      path = self._cache.store(settings, *networks['teacher'])
      tqdm.write(f'teacher: kept in {path}')
    cost = {
      'epochs': task.epochs,
      'seconds': trained.record.wall,
      'training_seconds': trained.record.seconds,
      'images_per_second': trained.record.images_per_second,
    }
    self._finish_phase(phase, networks, frozen, cost)
    return networks | _measured(found, frozen)

  def _carry(self, phase: Phase, learned: dict[str, Tree]) -> None:
    """Keeps what later phases go on with: where they have the transfer, too.

    Args:
      phase: that has just been trained.
      learned: by transfer, its objectives' parameters.
    """
    phases = self.experiment.phases
    names = {
      transfer.name
      for later in phases[phases.index(phase) + 1 :]
      for transfer in later.graph.transfers
    }
    kept = {name: own for name, own in learned.items() if name in names}
    if kept:
      path = self._mark(phase).with_suffix('.npz')
      native.save_tree(path, kept)
    self._carried |= kept

  def _card(self, phase: Phase, name: str, variables: Variables) -> Card:
    """Returns the model card of a network, without its results."""
    section = self.experiment.section(phase, name)
    network = phase.graph.networks[name]
    program = self.experiment.program(phase)
    params, macs = describe.sizes(program, name)
    dataset = self.experiment.dataset
    return Card(
      phase=phase.name,
      model=section.name,
      width=section.width * network.width,
      branches=getattr(program.modules[name], 'branches', 1),
      settings=section.settings.to_dict(),
      taps=section.taps.to_dict(),
      read_out=models.read_out_of(program.modules[name]),
      reused=models.reuses(program.modules[name]) or {},
      compute_dtype=self.experiment.config.compute_dtype,
      num_classes=dataset.num_classes,
      class_names=tuple(dataset.class_names),
      image_shape=dataset.image_shape,
      data=dataset.name,
      data_fingerprint=dataset.fingerprint,
      mean=tuple(dataset.view.mean),
      std=tuple(dataset.view.std),
      scale=dataset.view.scale,
      params=params,
      macs=macs,
      params_sha256=tree.digest(dict(variables)),
    )

  def _summary(self, cards: dict[str, Card]) -> dict[str, Any]:
    """Returns the run's result; the fields are the design's."""
    config, dataset = self.experiment.config, self.experiment.dataset
    phases = {
      phase.name: json.loads(self._mark(phase).read_text())
      for phase in self.experiment.phases
    }
    last = phases[self.experiment.phases[-1].name]
    teacher = cards.get('teacher')
    return {
      'networks': {
        name: _reported(card, problems.of(dataset))
        for name, card in cards.items()
      },
      'method': configs.resolved(config)['method'],
      'data': dataset.name,
      'problem': dataset.problem,
      'epochs': config.epochs,
      'seed': config.seed,
      'seconds': sum(phase['seconds'] for phase in phases.values()),
      'images_per_second': last['images_per_second'],
      'phases': phases,
      'provenance': {
        **provenance(),
        'data_fingerprint': dataset.fingerprint,
        'train_images': len(dataset.train),
        'test_images': len(dataset.test),
        'teacher_fingerprint': teacher and teacher.params_sha256,
      },
    }


def _reported(card: Card, problem: Problem) -> dict[str, Any]:
  """Returns the part of a network's card that a summary repeats."""
  figures = problem.reported
  always = [name for name, figure in figures.items() if not figure.optional]
  keys = ('model', 'width', 'branches', *always)
  keys += ('params', 'macs', 'params_sha256')
  optional = (*(name for name in figures if name not in always), 'reused')
  entries = card.to_json()
  return {
    **{key: entries.get(key) for key in keys},
    **{key: entries[key] for key in optional if key in entries},
  }


def _measured(
  networks: dict[str, SavedNetwork], results: dict[str, dict[str, Any]]
) -> dict[str, SavedNetwork]:
  """Returns the networks that were measured, with the results on their cards."""
  return {
    name: networks[name]._replace(card=networks[name].card.with_results(result))
    for name, result in results.items()
  }


def draw(workdir: pathlib.Path) -> pathlib.Path | None:
  """Draws test accuracy, loss and the gap to the student, epoch by epoch.

  Returns:
    The picture, gap.png, drawn before or now; None if there is no student.
  """
  picture = workdir / 'gap.png'
  rows = log.read(workdir / 'metrics.jsonl')
  tested = plots.curves(rows)
  if 'student' not in tested or picture.exists():
    return picture if picture.exists() else None
  config = json.loads((workdir / CONFIG).read_text())
  return plots.gap(
    rows,
    picture,
    guide='dynamic_teacher' if 'dynamic_teacher' in tested else None,
    title=f'{config["method"]["name"]} on {config["data"]["name"]}',
  )


def result_table(summary: dict[str, Any]) -> str:
  """Returns the networks of a summary as a table.

  What an older run has not measured is a dash.
  """
  problem = lookup(
    'problem', problems.CATALOG, summary.get('problem', 'classification')
  )
  figures = {k: x for k, x in problem.figures.items() if x.column}
  columns = [figure.column for figure in figures.values()]
  rows = [
    (
      name,
      describe.row_name(network),
      *(figure.show(network.get(key)) for key, figure in figures.items()),
      f'{network["params"]:,}',
      f'{network["macs"] / 1e6:,.1f} M',
    )
    for name, network in summary['networks'].items()
  ]
  head = ('network', 'model', *columns, 'parameters', 'MACs')
  return text.table([head, *rows], right=tuple(range(2, len(head))))
