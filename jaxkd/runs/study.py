"""Studies: recipes compared over seeds, as paired comparisons of runs.

A config with `study.recipes` or `study.seeds` is many runs: one for each recipe
(some settings that differ; no dots in its name) and each seed. A study lives in
its workdir:

  config.json        the resolved config; with other settings it is refused,
                     but recipes, seeds, columns and the outcome may change
  runs/RECIPE/seedN  each run, which can be resumed
  runs/RECIPE.json   in their place, if the seeds are trained together, the
                     results of a recipe
  summary.json       the result: every metric by recipe and seed
  study.png          the outcome against another metric, if asked for

Recipes called GROUP/NAME are compared within their group, with its baseline or
else with its first, in alphabetical order.
"""

import contextlib
import hashlib
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jaxkd import config as configs
from jaxkd import plots, problems
from jaxkd.catalog import lookup
from jaxkd.config import Config
from jaxkd.disk import write_json
from jaxkd.problems import Problem
from jaxkd.runs import cache, comparison, folder, layout, preflight
from jaxkd.runs.describe import recipes_text
from jaxkd.runs.expansion import expand
from jaxkd.runs.experiment import Experiment, build
from jaxkd.runs.lock import LockedError, locked
from jaxkd.runs.members import Member, check_seeds, names
from jaxkd.runs.plan import Announce
from jaxkd.runs.provenance import provenance
from jaxkd.runs.run import Run
from jaxkd.runs.vmapped import Networks, run_together
from jaxkd.sharing import sharing
from jaxkd.training.progress import Runs, say

# Called with a run's folder and its experiment, if that is at hand.
AfterRun = Callable[[pathlib.Path, Experiment | None], object]


def is_study(config: Config) -> bool:
  """Returns whether the config describes several runs."""
  return bool(config.study.recipes or config.study.seeds)


def describe(config: Config) -> str:
  """Returns the recipes, and the first run of each, as text."""
  experiments = {n: build(runs[0]) for n, runs in expand(config).items()}
  texts = [f'Recipe {n}\n\n{x.describe()}' for n, x in experiments.items()]
  seeds = config.study.seeds or (config.seed,)
  return '\n\n'.join([recipes_text(experiments, len(seeds)), *texts])


def _build(name: str, config: Config) -> Experiment:
  """Returns a run's experiment; a mistake in it names the recipe."""
  try:
    return build(config)
  except (KeyError, ValueError) as error:
    raise ValueError(f'recipe {name!r}: {error}') from error


class Study:
  """A config of many runs, in a folder."""

  def __init__(
    self,
    config: Config,
    workdir: pathlib.Path,
    after_run: AfterRun | None = None,
  ):
    """Checks every run's config before the first is trained.

    Args:
      config: of the study.
      workdir: its folder.
      after_run: called with the folder of each finished run, and with its
        experiment if it has just been run.

    Raises:
      KeyError, ValueError: a mistake in a run's config, with the recipe; seeds
        that make no difference; metrics of networks that are in no phase; the
        folder holds a study of another config.
    """
    self.settings = config.study
    self.seeds = tuple(config.study.seeds) or (config.seed,)
    self.workdir = workdir
    self._after_run = after_run
    self._config = configs.resolved(config)
    self._allowed = config.allow_changed
    self._check_folder()
    self._runs = expand(config)
    # By recipe, for each seed: network -> path of its checkpoint; and phase ->
    # key of the network that it prepares.
    self._paths: dict[str, list[dict[str, str]]] = {}
    self._prepared: dict[str, list[dict[str, str]]] = {}
    for name, runs in self._runs.items():
      # Only for the checks: their data would fill the memory.
      experiments = [_build(name, run) for run in runs]
      check_seeds(name, experiments, config.study.together)
      self._check_metrics(name, experiments[0])
      self._paths[name] = [preflight.checkpoint_paths(x) for x in experiments]
      self._prepared[name] = [cache.prepared(x) for x in experiments]

  def _check_metrics(self, name: str, experiment: Experiment) -> None:
    settings = self.settings
    if settings.baseline:  # `only` may leave it out
      groups = comparison.grouped(settings.recipes.to_dict()).values()
      lookup(
        'baseline',
        {k: v for x in groups for k, v in x.items()},
        settings.baseline,
      )
    networks, metrics = names(experiment, settings.together)
    for key in (*settings.columns, settings.outcome, settings.against):
      network, slash, metric = key.partition('/')
      if key and not (network in networks and slash and metric):
        raise ValueError(
          f'the study shows {key!r}, which is not NETWORK/METRIC with a network'
          f' of recipe {name!r}: {", ".join(sorted(networks))}'
        )
      if key:
        self._check_metric(key, metric, experiment.source.problem)
        lookup('metric', metrics, metric)

  @staticmethod
  def _check_metric(key: str, metric: str, problem: Problem) -> None:
    """Refuses a metric that only another problem than the data's has."""
    elsewhere = {x for p in problems.CATALOG.values() for x in p.reported}
    if metric in elsewhere - problem.reported.keys():
      raise ValueError(
        f'the study shows {key!r}, and the problem {problem.name!r} of its data'
        f' has no metric {metric!r}, but {", ".join(problem.reported)}: set'
        ' study.columns, study.outcome and study.against to some of them'
      )

  @property
  def summary(self) -> dict[str, Any] | None:
    """The result of a finished study, or None."""
    summary = folder.read_summary(self.workdir) or {}
    return summary if summary.get('configs') == self._digest() else None

  def _digest(self) -> str:
    """Returns the digest of all runs' configs."""
    runs = {
      name: [configs.resolved(run) for run in runs]
      for name, runs in self._runs.items()
    }
    text = json.dumps(runs, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()

  @property
  def members(self) -> list[Member]:
    """The runs, in the order of recipes and seeds."""
    return [
      Member(name, seed, config, self._folder(name, seed), prepared)
      for name, runs in self._runs.items()
      for seed, config, prepared in zip(
        self.seeds, runs, self._prepared[name], strict=True
      )
    ]

  @contextlib.contextmanager
  def begun(self) -> Iterator[None]:
    """Holds the lock on the folder, with the config written into it.

    Whoever runs the members elsewhere, as `jaxkd sweep` does, does it inside.

    Raises:
      FileNotFoundError: a checkpoint of a run does not exist.
      LockedError: another process works in the folder.
    """
    with locked(self.workdir):
      self._check_folder()
      self._begin()
      yield

  def finish(self, announce: Announce | None = None) -> dict[str, Any]:
    """Runs the recipes and seeds that are not finished; returns the summary.

    Args:
      announce: called with what the study will do, before anything is trained.

    Raises:
      LockedError: another process works in the folder.
      ValueError: a run has failed; the message names its recipe.
    """
    with locked(self.workdir), sharing():
      self._check_folder()
      return self.summary or self._finish(announce)

  def _check_folder(self) -> None:
    """Refuses a folder of another config, or of something else."""
    folder.check(self.workdir, self._config, 'study', 'study', self._allowed)

  def _begin(self) -> None:
    self._check_checkpoints()
    write_json(self.workdir / layout.CONFIG, self._config)

  def _finish(self, announce: Announce | None) -> dict[str, Any]:
    self._begin()
    if announce:
      first = {name: build(runs[0]) for name, runs in self._runs.items()}
      announce(recipes_text(first, len(self.seeds)))
    self._clock = Runs(
      sum(
        folder.read_summary(self._folder(name, seed)) is None
        for name in self._runs
        for seed in self.seeds
      )
    )
    one = self._together if self.settings.together else self._alone
    recipes = {}
    for number, (name, runs) in enumerate(self._runs.items(), 1):
      if self._is_missing(name):
        say(f'Recipe {name} ({number} of {len(self._runs)})')
      try:
        recipes[name] = _by_seed(one(name, runs))
      except LockedError:
        raise
      except ValueError as error:
        raise ValueError(
          f'recipe {name!r}: {error}\n(--config.study.only=... runs others)'
        ) from error
    summary = {
      'seeds': list(self.seeds),
      'configs': self._digest(),
      'recipes': recipes,
      'provenance': provenance(),
    }
    write_json(self.workdir / layout.SUMMARY, summary)
    (self.workdir / 'study.png').unlink(missing_ok=True)
    return summary

  def _check_checkpoints(self) -> None:
    """Checks that the checkpoints of all runs exist, before the first run."""
    for name, runs in self._paths.items():
      for seed, paths in zip(self.seeds, runs, strict=True):
        if folder.read_summary(self._folder(name, seed)) is None:
          try:
            preflight.check_paths(paths, self.workdir)
          except (FileNotFoundError, ValueError) as error:
            raise ValueError(f'recipe {name!r}: {error}') from error

  def _folder(self, recipe: str, seed: int) -> pathlib.Path:
    return self.workdir / 'runs' / recipe / f'seed{seed}'

  def _is_missing(self, recipe: str) -> bool:
    """Returns whether a run of a recipe is not finished."""
    places = [self._folder(recipe, seed) for seed in self.seeds]
    return any(folder.read_summary(x) is None for x in places)

  def _alone(self, name: str, runs: list[Config]) -> list[Networks]:
    """Returns the results of each seed, from a run of its own."""
    networks, clock = [], self._clock
    for seed, config in zip(self.seeds, runs, strict=True):
      place = self._folder(name, seed)
      summary = folder.read_summary(place)
      if summary is None:
        experiment = build(config)
        run = Run(experiment, place, later=clock.later)
        summary = clock.timed(run.finish)
      else:
        experiment = None
        new, allowed = configs.resolved(config), config.allow_changed
        folder.check(place, new, 'run', allowed=allowed)
      networks.append(summary['networks'])
      if self._after_run:
        self._after_run(place, experiment)
    return networks

  def _together(self, name: str, runs: list[Config]) -> list[Networks]:
    """Returns the networks' results for each seed, trained in one program."""
    path = self.workdir / 'runs' / f'{name}.json'
    new = [configs.resolved(run) for run in runs]
    if path.exists():
      saved = json.loads(path.read_text())
      old = [folder.renamed(config) for config in saved['configs']]
      folder.check_same(path, old, new, 'results', 'config')
      return saved['runs']
    networks = run_together([build(run) for run in runs])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {'configs': new, 'runs': networks})
    return networks

  def report(self, summary: Mapping[str, Any]) -> str:
    """Returns the result as text: a table for each group of recipes."""
    texts, settings = [], self.settings
    for group, recipes in comparison.grouped(summary['recipes']).items():
      texts.append(
        comparison.report(
          group or 'recipe',
          recipes,
          columns=settings.columns,
          outcome=settings.outcome,
          baseline=settings.baseline,
        )
      )
      if settings.against and len(recipes) > 2:
        texts[-1] += comparison.dependence(
          recipes, settings.against, settings.outcome
        )
    return '\n\n'.join(texts)

  def draw(self, summary: Mapping[str, Any]) -> pathlib.Path | None:
    """Draws the outcome against the metric `study.against`, if it is set."""
    x, y = self.settings.against, self.settings.outcome
    if not x:
      return None

    def values(recipe, key):
      return comparison.scaled(comparison.values_of(recipe, key), key)

    groups = {
      group: {
        name: (values(recipe, x), values(recipe, y))
        for name, recipe in recipes.items()
      }
      for group, recipes in comparison.grouped(summary['recipes']).items()
    }
    path = self.workdir / 'study.png'
    return plots.dependence(groups, path, *map(comparison.label, (x, y)))


def _by_seed(runs: list[Networks]) -> dict[str, dict[str, list[float]]]:
  """Returns every metric of a recipe's networks as a list over the seeds."""
  return {
    network: {
      key: [run[network][key] for run in runs]
      for key, value in metrics.items()
      if isinstance(value, float)
    }
    for network, metrics in runs[0].items()
  }
