"""A run and its folder: start, resume, refuse, finish.

A run lives in its workdir:

  lock.json          while a process works on the run: which one
  config.json        the resolved config; a run with another is refused
  data.json          the data's fingerprint, likewise
  pretrained.json    digests of networks that come from checkpoints, likewise
  changes.json       what differed when it was resumed with `allow_changed`
  metrics.jsonl      one object per epoch; tensorboard/ has the same
  wandb.json         the run of Weights & Biases, if there is one
  gap.png            accuracies and losses of the networks, epoch by epoch
  reliability.png    how well a network is calibrated; --mode=eval draws it
  checkpoints/PHASE  states of the training, to resume from
  networks/NAME      trained networks: variables.npz and network.json
  phases/PHASE.json  a finished phase: its networks, time and throughput
  phases/PHASE.npz   parameters of its objectives, for later phases
  summary.json       the result; the run is finished when it exists

See `layout` and `folder` for the names that version 0.1 gave to some of them.
"""

import functools
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxkd import checkpoints, plots
from jaxkd import config as configs
from jaxkd.checkpoints import SavedNetwork, native
from jaxkd.disk import write_json
from jaxkd.graph import Graph, Learner
from jaxkd.runs import folder, layout, plan, preflight, results, sources
from jaxkd.runs.cache import Cache, settings_of
from jaxkd.runs.experiment import Experiment
from jaxkd.runs.lock import locked
from jaxkd.runs.phases import ResolvedPhase
from jaxkd.runs.pretrained import (
  evaluate_pretrained,
  load_pretrained,
  sources_of,
)
from jaxkd.runs.tracking import Tracking
from jaxkd.training import log
from jaxkd.training.loop import Callback
from jaxkd.training.phase import train_phase
from jaxkd.training.progress import say
from jaxkd.types import Tree

DATA, PRETRAINED = 'data.json', 'pretrained.json'


class Run:
  """An experiment in a folder."""

  def __init__(
    self,
    experiment: Experiment,
    workdir: pathlib.Path,
    callbacks: Sequence[Callback] = (),
    later: Callable[[float], float] | None = None,
  ):
    """Opens the folder, new or interrupted; writes nothing yet.

    Args:
      experiment: to be run.
      workdir: its folder.
      callbacks: called after each epoch of each phase; one that returns True
        ends the phase.
      later: the time of the study's runs after it, see `Forecast`.

    Raises:
      ImportError: `log.wandb` is set, and W&B is not installed.
      ValueError: the folder holds a run of another config, or something else.
    """
    self.experiment = experiment
    self.workdir = workdir
    self._callbacks = tuple(callbacks)
    self._config = configs.resolved(experiment.config)
    names = [phase.name for phase in experiment.phases]
    log = experiment.config.log
    self._tracking = Tracking(log, workdir, self._config, names)
    self._later = later
    # Transfer -> parameters of its objective, for later phases.
    self._objectives: dict[str, Tree] = {}
    self._check_folder()

  @functools.cached_property
  def _cache(self) -> Cache:
    return Cache(self.experiment.config.cache)

  @property
  def summary(self) -> dict[str, Any] | None:
    """The result of a finished run, or None."""
    return folder.read_summary(self.workdir)

  def finish(self, announce: plan.Announce | None = None) -> dict[str, Any]:
    """Runs the phases that are not finished, and returns the summary.

    Args:
      announce: called with what the run will do, before it is trained.

    Raises:
      LockedError: another process works in the folder.
      ValueError: whatever cannot work, before anything is trained.
    """
    with locked(self.workdir), self._tracking:
      self._check_folder()
      return self.summary or self._finish(announce)

  def _check_folder(self) -> None:
    """Refuses a folder of another config, or of something else."""
    allowed = self.experiment.config.allow_changed
    folder.check(self.workdir, self._config, 'run', allowed=allowed)

  def _finish(self, announce: Callable[[str], object] | None) -> dict[str, Any]:
    networks = load_pretrained(self.experiment)
    preflight.check(self.experiment, networks)
    self._check_cache()
    pretrained_results = evaluate_pretrained(self.experiment, networks)
    self._claim(networks)
    for note in self.experiment.dataset.notes:
      say(f'data: {note}')
    for name, network in networks.items():
      for note in network.card.notes:
        say(f'{name}: {network.card.converted_from}: {note}')
    for line in self.experiment.differences:
      say(line)
    done = plan.done(self.experiment, self.workdir, self._cache)
    if announce:
      announce(self.experiment.describe(done))
    self._forecast = plan.forecast(self.experiment, done, self._later)
    for phase in self.experiment.phases:
      networks |= (
        self._finished(phase, networks)
        or self._cached(phase)
        or self._train(phase, networks, pretrained_results)
      )
    summary = results.summary_of(
      self.experiment,
      {name: network.card for name, network in networks.items()},
      {
        phase.name: json.loads(self._record(phase).read_text())
        for phase in self.experiment.phases
      },
    )
    self._tracking.result(summary['networks'])
    write_json(self.workdir / layout.SUMMARY, summary)
    return summary

  def _check_cache(self) -> None:
    """Checks the cache if a network will be trained for it."""
    for phase in self.experiment.phases:
      if phase.reusable and not self._record(phase).exists():
        kept = self._cache.path(settings_of(self.experiment, phase))
        if not (phase.prepares and checkpoints.kind_of(kept)):
          self._cache.check()

  def draw(self) -> pathlib.Path | None:
    """Draws test accuracy, loss and the gap to the result, epoch by epoch.

    Returns:
      The picture, gap.png, drawn before or now; None for a run whose result is
      reusable, such as a teacher's, since nothing is compared with it.
    """
    picture, last = self.workdir / 'gap.png', self.experiment.phases[-1]
    if picture.exists() or last.reusable:
      return picture if picture.exists() else None
    config, problem = self.experiment.config, self.experiment.source.problem
    name = problem.finite[0]
    headline, loss = problem.displays[problem.headline], problem.displays[name]
    return plots.gap(
      log.read(self.workdir / 'metrics.jsonl'),
      picture,
      student=last.graph.result,
      guide=_coupled(last.graph, last.graph.result),
      title=f'{config.method.name} on {config.data.name}',
      metrics=plots.GapMetrics(
        headline=problem.headline,
        headline_label=headline.label,
        percent=headline.percent,
        loss=name,
        loss_label=loss.label,
      ),
    )

  def _claim(self, pretrained: Mapping[str, SavedNetwork]) -> None:
    """Records the config, the data and the checkpoints, or compares them.

    Args:
      pretrained: the networks that come from checkpoints.

    Raises:
      ValueError: the run began with other checkpoints or other data.
    """
    dataset, own = self.experiment.dataset, sources_of(self.experiment)
    records = {
      layout.CONFIG: self._config,
      PRETRAINED: {
        n: sources.digest(own.get(n), x.card) for n, x in pretrained.items()
      },
      DATA: {'name': dataset.name, 'fingerprint': dataset.fingerprint},
    }
    kinds = (
      (layout.CONFIG, 'config'),
      (PRETRAINED, 'checkpoint'),
      (DATA, 'data'),
    )
    allowed, changes = self.experiment.config.allow_changed, {}
    for name, kind in kinds:
      path = folder.place(self.workdir, name)
      if path.exists():
        old = folder.renamed(json.loads(path.read_text()))
        pair = [old], [records[name]]
        lines = folder.check_same(self.workdir, *pair, 'a run', kind, allowed)
        changes |= {kind: lines} if lines else {}
    self.workdir.mkdir(parents=True, exist_ok=True)
    if changes:
      folder.note_changes(self.workdir, changes)
    for name, kind in kinds:
      path = folder.place(self.workdir, name)
      if kind in changes or not path.exists():
        write_json(path, records[name])

  def _network(self, name: str) -> pathlib.Path:
    """Returns the folder of a trained network."""
    return layout.network(self.workdir, name)

  def _record(self, phase: ResolvedPhase) -> pathlib.Path:
    """Returns the file that exists when a phase is finished."""
    return layout.phase(self.workdir, phase.name)

  def _learned(self, phase: ResolvedPhase) -> pathlib.Path:
    """Returns the file of parameters of a phase's objectives."""
    return self._record(phase).with_suffix('.npz')

  def _finish_phase(
    self,
    phase: ResolvedPhase,
    networks: Mapping[str, SavedNetwork],
    frozen: Mapping[str, Mapping[str, Any]],
    cost: Mapping[str, Any],
  ) -> None:
    """Writes the results of a phase, and last the record that it is finished.

    Args:
      phase: the finished one.
      networks: by name, those that it has trained.
      frozen: by name, the test results of its frozen networks.
      cost: time and throughput.
    """
    for name, network in networks.items():
      checkpoints.save(self._network(name), *network)
    path = self._record(phase)
    path.parent.mkdir(exist_ok=True)
    write_json(path, {'networks': list(networks), 'frozen': frozen, **cost})

  def _finished(
    self, phase: ResolvedPhase, networks: Mapping[str, SavedNetwork]
  ) -> dict[str, SavedNetwork] | None:
    """Returns the networks of a phase, None if it is not finished.

    Args:
      phase: of the run.
      networks: those of the phases before it, and of checkpoints.
    """
    path, learned = self._record(phase), self._learned(phase)
    if not path.exists():
      return None
    record = json.loads(path.read_text())
    if learned.exists():
      self._objectives |= native.load_tree(learned)
    trained = {
      name: checkpoints.load(self._network(name)) for name in record['networks']
    }
    return trained | _with_results(networks, record['frozen'])

  def _cached(self, phase: ResolvedPhase) -> dict[str, SavedNetwork] | None:
    """Returns a reusable network that an earlier run has trained.

    Only in a phase that prepares others: a run always trains its own result.
    """
    started = (self.workdir / 'checkpoints' / phase.name).exists()
    if started or not phase.prepares:
      return None
    settings = settings_of(self.experiment, phase)
    network = self._cache.load(settings)
    if network is None:
      return None
    path, name = str(self._cache.path(settings)), phase.graph.result
    say(f'{name}: trained before, from {path}')
    self._finish_phase(
      phase, {name: network}, {}, {'seconds': 0.0, 'cached': path}
    )
    return {name: network}

  def _train(
    self,
    phase: ResolvedPhase,
    networks: Mapping[str, SavedNetwork],
    pretrained_results: Mapping[str, dict[str, float]],
  ) -> dict[str, SavedNetwork]:
    """Trains a phase; its networks are on disk when this returns.

    Args:
      phase: to train.
      networks: by name, those of checkpoints and of earlier phases.
      pretrained_results: by name, the test results of those of checkpoints.
    """
    initial = {name: network.variables for name, network in networks.items()}
    task = phase.cached_task(self.experiment.dataset)
    outcome = train_phase(
      task,
      self.workdir,
      initial,
      self._objectives,
      pretrained_results,
      self._callbacks,
      tensorboard=self.experiment.config.log.tensorboard,
      trackers=self._tracking.trackers,
      forecast=self._forecast,
    )
    self._keep_learned(phase, outcome.objectives)
    trained, frozen = {}, {}
    for name, variables in outcome.variables.items():
      if name in phase.graph.frozen:
        frozen[name] = outcome.record.last[name]
      else:
        base = name.removesuffix('_ema')
        card = results.card_of(self.experiment, phase, base, variables)
        test = outcome.results[name]
        card = card.replace(network=name).with_results(test)
        trained[name] = SavedNetwork(variables, card)
    if phase.reusable:
      settings, name = settings_of(self.experiment, phase), phase.graph.result
      path = self._cache.store(settings, *trained[name])
      say(f'{name}: kept in {path}')
    stopped = outcome.record.stopped
    cost = {
      'epochs': stopped or task.epochs,
      **({'stopped_by_callback': True} if stopped else {}),
      'seconds': outcome.record.wall,
      'training_seconds': outcome.record.seconds,
      'images_per_second': outcome.record.images_per_second,
    }
    self._finish_phase(phase, trained, frozen, cost)
    return trained | _with_results(networks, frozen)

  def _keep_learned(
    self, phase: ResolvedPhase, objectives: Mapping[str, Tree]
  ) -> None:
    """Keeps the parameters of objectives whose transfer is in a later phase.

    Args:
      phase: that has just been trained.
      objectives: by transfer, its objective's parameters.
    """
    phases = self.experiment.phases
    later = {
      transfer.name
      for each in phases[phases.index(phase) + 1 :]
      for transfer in each.graph.transfers
    }
    kept = {name: own for name, own in objectives.items() if name in later}
    if kept:
      native.save_tree(self._learned(phase), kept)
    self._objectives |= kept


def _with_results(
  networks: Mapping[str, SavedNetwork], results: Mapping[str, Mapping[str, Any]]
) -> dict[str, SavedNetwork]:
  """Returns networks with new test results on their cards.

  Args:
    networks: by name.
    results: of some of them, by name.
  """
  return {
    name: networks[name]._replace(card=networks[name].card.with_results(result))
    for name, result in results.items()
  }


def _coupled(graph: Graph, name: str) -> str | None:
  """Returns the network whose parameters or start depend on network `name`.

  That is the owner of its parameters, or else a network that is expanded from
  it; None if there is neither.
  """
  if graph.owner(name) != name:
    return graph.owner(name)
  for other, network in graph.networks.items():
    if isinstance(network, Learner) and network.expander:
      if network.like == name:
        return other
  return None
