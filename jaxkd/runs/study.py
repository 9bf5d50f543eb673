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

import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from jaxkd import config as configs
from jaxkd import plots, problems
from jaxkd.catalog import lookup
from jaxkd.config import Config
from jaxkd.disk import write_json
from jaxkd.problems import Display, Problem
from jaxkd.runs import comparison, folder, layout, preflight
from jaxkd.runs.experiment import Experiment, build
from jaxkd.runs.lock import LockedError, locked
from jaxkd.runs.provenance import provenance
from jaxkd.runs.run import Run
from jaxkd.runs.vmapped import Networks, run_together
from jaxkd.sharing import sharing

# Settings that may differ between seeds that are trained together.
TOGETHER = ('seed', 'teacher.seed', 'data.settings.seed')


def is_study(config: Config) -> bool:
  """Returns whether the config describes several runs."""
  return bool(config.study.recipes or config.study.seeds)


def expand(config: Config) -> dict[str, list[Config]]:
  """Returns the configs of a study's runs: for each recipe, one for each seed.

  Raises:
    KeyError: `only` names an unknown recipe, with suggestions.
    ValueError: a recipe that is not a tree of settings.
  """
  whole = config.to_dict()
  study = whole.pop('study')
  seeds = study['seeds'] or (config.seed,)
  recipes, configs_by_recipe = study['recipes'] or {'run': {}}, {}
  for name in study['only'] or recipes:
    recipe = lookup('recipe', recipes, name)
    if not isinstance(recipe, Mapping):
      raise ValueError(
        f'study.recipes.{name} must be a tree of settings such as'
        f' {dict(teacher=dict(loss="brier"))}, got {recipe!r}'
      )
    configs_by_recipe[name] = []
    for seed in seeds:
      settings = _merged(whole, recipe)
      for key in study['vary']:
        settings = _merged(settings, _nested(key, seed))
      settings = configs.of_tree({**settings, 'study': _one_run()})
      configs_by_recipe[name].append(settings)
  return configs_by_recipe


def _one_run() -> dict[str, Any]:
  """Returns the section `study` of a config that is one run."""
  return configs.default().study.to_dict()


def _merged(
  tree: Mapping[str, Any], changes: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns a tree with some values changed.

  Changes of the method's settings are added to them, unless they name another
  method: this one then has no other settings than those of the changes.
  """
  merged = dict(tree)
  for key, value in changes.items():
    old = merged.get(key)
    if not isinstance(value, Mapping) or not isinstance(old, Mapping):
      merged[key] = value
    elif key == 'method' and value.get('name', old['name']) != old['name']:
      merged[key] = dict(value)
    else:
      merged[key] = _merged(old, value)
  return merged


def _nested(key: str, value: Any) -> dict[str, Any]:
  *parents, last = key.split('.')
  tree: dict[str, Any] = {last: value}
  for parent in reversed(parents):
    tree = {parent: tree}
  return tree


def describe(config: Config) -> str:
  """Returns the first run of each recipe, as text."""
  return '\n\n'.join(
    f'Recipe {name}, {len(runs)} seeds\n\n{build(runs[0]).describe()}'
    for name, runs in expand(config).items()
  )


def _build(name: str, config: Config) -> Experiment:
  """Returns a run's experiment; a mistake in it names the recipe."""
  try:
    return build(config)
  except (KeyError, ValueError) as error:
    raise ValueError(f'recipe {name!r}: {error}') from error


def _check_seeds(name: str, runs: list[Experiment], together: bool) -> None:
  """Refuses seeds that are one run, or that cannot be trained together."""
  identities = set()
  for run in runs:
    seeds = [phase.seed for phase in run.phases]
    identity = json.dumps([seeds, configs.resolved(run.config)['data']])
    if identity in identities:
      raise ValueError(
        f'recipe {name!r} has one run for several seeds: they are equal, or no'
        ' setting in study.vary makes a difference. (A run that only trains a'
        ' teacher is seeded by teacher.seed)'
      )
    identities.add(identity)
  first, *others = (configs.resolved(run.config) for run in runs)
  for other in others if together else []:
    for line in configs.differing(first, other):
      if line.partition(':')[0] not in TOGETHER:
        raise ValueError(
          'seeds that are trained together must differ in nothing but'
          f' {", ".join(TOGETHER)}; recipe {name!r} has {line}'
        )


def _names(
  experiment: Experiment, together: bool
) -> tuple[set[str], dict[str, Display]]:
  """Returns the networks and the metrics that a run has results of."""
  problem = experiment.source.problem
  networks: set[str] = set()
  for phase in experiment.phases:
    networks |= set(phase.graph.networks)
    if phase.ema:
      networks |= {f'{name}_ema' for name in phase.graph.trained}
  if not together:
    return networks, problem.reported
  shown = dict(problem.displays)
  square = shown.get('posterior_square')
  train = {**shown, **({'frobenius': square} if square else {})}
  metrics = shown | {f'train_{key}': value for key, value in train.items()}
  best = {f'{name}_best' for name in networks}
  return networks | best | {'target'}, metrics


class Study:
  """A config of many runs, in a folder."""

  def __init__(self, config: Config, workdir: pathlib.Path):
    """Checks every run's config before the first is trained.

    Raises:
      KeyError, ValueError: a mistake in a run's config, with the recipe; seeds
        that make no difference; metrics of networks that are in no phase; the
        folder holds a study of another config.
    """
    self.settings = config.study
    self.seeds = tuple(config.study.seeds) or (config.seed,)
    self.workdir = workdir
    self._config = configs.resolved(config)
    self._allowed = config.allow_changed
    self._check_folder()
    self._runs = expand(config)
    # By recipe, for each seed: network -> path of its checkpoint.
    self._paths: dict[str, list[dict[str, str]]] = {}
    for name, runs in self._runs.items():
      # Only for the checks: their data would fill the memory.
      experiments = [_build(name, run) for run in runs]
      _check_seeds(name, experiments, config.study.together)
      self._check_metrics(name, experiments[0])
      self._paths[name] = [preflight.checkpoint_paths(x) for x in experiments]

  def _check_metrics(self, name: str, experiment: Experiment) -> None:
    settings = self.settings
    if settings.baseline:  # `only` may leave it out
      groups = comparison.grouped(settings.recipes.to_dict()).values()
      lookup(
        'baseline',
        {k: v for x in groups for k, v in x.items()},
        settings.baseline,
      )
    networks, metrics = _names(experiment, settings.together)
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

  def finish(self) -> dict[str, Any]:
    """Runs the recipes and seeds that are not finished; returns the summary.

    Raises:
      LockedError: another process works in the folder.
      ValueError: a run has failed; the message names its recipe.
    """
    with locked(self.workdir), sharing():
      self._check_folder()
      return self.summary or self._finish()

  def _check_folder(self) -> None:
    """Refuses a folder of another config, or of something else."""
    folder.check(self.workdir, self._config, 'study', 'study', self._allowed)

  def _finish(self) -> dict[str, Any]:
    self._check_checkpoints()
    write_json(self.workdir / layout.CONFIG, self._config)
    one = self._together if self.settings.together else self._alone
    recipes = {}
    for name, runs in self._runs.items():
      tqdm.write(f'Recipe {name}')
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

  def _alone(self, name: str, runs: list[Config]) -> list[Networks]:
    """Returns the results of each seed, from a run of its own."""
    networks = []
    for seed, config in zip(self.seeds, runs, strict=True):
      run = Run(build(config), self._folder(name, seed))
      networks.append((run.summary or run.finish())['networks'])
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
