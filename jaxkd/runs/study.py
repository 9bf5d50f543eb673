"""Studies: recipes compared over seeds, each pair of runs a paired comparison.

A config with `study.recipes` or `study.seeds` is many runs: one for each recipe
(some settings that differ; no dots in its name) and each seed. A study lives in
its workdir:

  config.json        the resolved config; with other settings it is refused,
                     but recipes, seeds and what is shown may change
  runs/RECIPE/seedN  each run, resumable; or, of a study whose seeds are trained
  runs/RECIPE.json   together, what came out of a recipe
  summary.json       the result: every figure by recipe and seed
  study.png          what the outcome depends on, if the study asks for it

Recipes called GROUP/NAME are compared within their group, with its baseline or
else with its first, in alphabetical order.
"""

import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict
from tqdm import tqdm

from jaxkd import config as configs
from jaxkd import plots
from jaxkd.catalog import lookup
from jaxkd.config import Config
from jaxkd.disk import PARTIAL, write_json
from jaxkd.runs import comparison
from jaxkd.runs.experiment import Experiment, build
from jaxkd.runs.layout import CONFIG
from jaxkd.runs.provenance import provenance
from jaxkd.runs.run import Run
from jaxkd.runs.vmapped import Networks, run_together

# What may differ between seeds that are trained together.
TOGETHER = ('seed', 'teacher.seed', 'data.settings.seed')


def is_study(config: Config) -> bool:
  """Does the config describe several runs?"""
  return bool(config.study.recipes or config.study.seeds)


def expand(config: Config) -> dict[str, list[Config]]:
  """Returns the configs of a study's runs: for each recipe, one for each seed.

  Raises:
    KeyError: one of `only` is no recipe, with suggestions.
    ValueError: a recipe that is not a tree of settings.
  """
  whole = config.to_dict()
  study = whole.pop('study')
  seeds = study['seeds'] or (config.seed,)
  recipes, found = study['recipes'] or {'run': {}}, {}
  for name in study['only'] or recipes:
    recipe = lookup('recipe', recipes, name)
    if not isinstance(recipe, Mapping):
      raise ValueError(
        f'study.recipes.{name} is {recipe!r}, expected settings such as'
        f' {dict(teacher=dict(loss="brier"))}'
      )
    found[name] = []
    for seed in seeds:
      given = _merged(whole, recipe)
      for key in study['vary']:
        given = _merged(given, _nested(key, seed))
      found[name].append(ConfigDict({**given, 'study': _one_run()}))
  return found


def _one_run() -> dict[str, Any]:
  """Returns the settings of a study that is none."""
  return configs.default().study.to_dict()


def _merged(
  tree: Mapping[str, Any], changes: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns a tree with some values changed; another method brings its own."""
  found = dict(tree)
  for key, value in changes.items():
    old = found.get(key)
    if not isinstance(value, Mapping) or not isinstance(old, Mapping):
      found[key] = value
    elif key == 'method' and value.get('name', old['name']) != old['name']:
      found[key] = dict(value)
    else:
      found[key] = _merged(old, value)
  return found


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


def _check_folder(workdir: pathlib.Path, config: dict[str, Any]) -> None:
  """Refuses a folder that is neither this study's nor empty."""
  path = workdir / CONFIG
  if path.exists():
    _refuse_other(workdir, [json.loads(path.read_text())], [config])
  elif workdir.exists():
    names = [x.name for x in workdir.iterdir() if x.suffix != PARTIAL]
    if names:
      raise ValueError(
        f'{workdir} is not empty and holds no study ({min(names)!r} is in it);'
        ' take another --workdir'
      )


def _refuse_other(
  place: pathlib.Path, old: list[dict[str, Any]], new: list[dict[str, Any]]
) -> None:
  """Refuses results of other settings, but for those of the study."""
  lines = [] if len(old) == len(new) else [f'{len(old)} -> {len(new)} seeds']
  for pair in zip(old, new, strict=False):
    lines += configs.differing(*({**x, 'study': {}} for x in pair))
  if lines:
    raise ValueError(
      f'{place} holds results of another config; take another --workdir, or'
      ' change back:\n  ' + '\n  '.join(dict.fromkeys(lines))
    )


def _check_seeds(name: str, runs: list[Experiment], together: bool) -> None:
  """Refuses seeds that are one run, or that cannot be trained together."""
  seen = {}
  for run in runs:
    seeds = [run.seed(phase) for phase in run.phases]
    identity = json.dumps([seeds, configs.resolved(run.config)['data']])
    if identity in seen:
      raise ValueError(
        f'recipe {name!r} has one run for several seeds: they are equal, or'
        ' study.vary names nothing that makes a difference. (What only trains a'
        ' teacher is seeded by teacher.seed)'
      )
    seen[identity] = run
  first, *others = (configs.resolved(run.config) for run in runs)
  for other in others if together else []:
    for line in configs.differing(first, other):
      if line.partition(':')[0] not in TOGETHER:
        raise ValueError(
          'seeds that are trained together differ in nothing but'
          f' {", ".join(TOGETHER)}; recipe {name!r} has {line}'
        )


class Study:
  """A config of many runs, in a folder."""

  def __init__(self, config: Config, workdir: pathlib.Path):
    """Checks every run's config before the first is trained.

    Raises:
      KeyError, ValueError: as a run's config would, naming the recipe; seeds
        that make no difference; figures of networks that are in no phase; the
        folder holds a study of another config.
    """
    self.settings = config.study
    self.seeds = tuple(config.study.seeds) or (config.seed,)
    self.workdir = workdir
    self._config = configs.resolved(config)
    _check_folder(workdir, self._config)
    self._runs = expand(config)
    for name, runs in self._runs.items():
      # Only for the checks: their data would fill the memory.
      experiments = [_build(name, run) for run in runs]
      _check_seeds(name, experiments, config.study.together)
      self._check_figures(name, experiments[0])

  def _check_figures(self, name: str, experiment: Experiment) -> None:
    settings = self.settings
    if settings.baseline:  # may be among those that `only` leaves out
      groups = comparison.grouped(settings.recipes.to_dict()).values()
      lookup(
        'baseline',
        {k: v for x in groups for k, v in x.items()},
        settings.baseline,
      )
    networks = {'target'} if settings.together else set()
    for phase in experiment.phases:
      networks |= set(phase.graph.networks)
    for key in (*settings.columns, settings.outcome, settings.against):
      network, slash, metric = key.partition('/')
      base = network.removesuffix('_best').removesuffix('_ema')
      if key and not (base in networks and slash and metric):
        raise ValueError(
          f'the study shows {key!r}, which is not NETWORK/METRIC with a network'
          f' of recipe {name!r}: {", ".join(sorted(networks))}'
        )

  @property
  def summary(self) -> dict[str, Any] | None:
    """The result of a finished study, or None."""
    path = self.workdir / 'summary.json'
    found = json.loads(path.read_text()) if path.exists() else {}
    return found if found.get('configs') == self._digest() else None

  def _digest(self) -> str:
    """Returns what tells the runs of one study from those of another."""
    runs = {
      name: [configs.resolved(run) for run in runs]
      for name, runs in self._runs.items()
    }
    text = json.dumps(runs, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()

  def finish(self) -> dict[str, Any]:
    """Runs what has not been run yet, and returns the summary.

    Raises:
      ValueError: a run has failed, saying which.
    """
    self.workdir.mkdir(parents=True, exist_ok=True)
    write_json(self.workdir / CONFIG, self._config)
    one = self._together if self.settings.together else self._alone
    recipes = {}
    for name, runs in self._runs.items():
      tqdm.write(f'Recipe {name}')
      try:
        recipes[name] = _by_seed(one(name, runs))
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
    write_json(self.workdir / 'summary.json', summary)
    (self.workdir / 'study.png').unlink(missing_ok=True)
    return summary

  def _alone(self, name: str, runs: list[Config]) -> list[Networks]:
    found = []
    for seed, config in zip(self.seeds, runs, strict=True):
      run = Run(build(config), self.workdir / 'runs' / name / f'seed{seed}')
      found.append((run.summary or run.finish())['networks'])
    return found

  def _together(self, name: str, runs: list[Config]) -> list[Networks]:
    path = self.workdir / 'runs' / f'{name}.json'
    new = [configs.resolved(run) for run in runs]
    if path.exists():
      saved = json.loads(path.read_text())
      _refuse_other(path, saved['configs'], new)
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
        figures = settings.against, settings.outcome
        texts[-1] += comparison.dependence(recipes, *figures)
    return '\n\n'.join(texts)

  def draw(self, summary: Mapping[str, Any]) -> pathlib.Path | None:
    """Draws the outcome against what it may depend on, if that was asked."""
    figures = self.settings.against, self.settings.outcome
    if not self.settings.against:
      return None

    def values(recipe, key):
      return comparison.scaled(comparison.figure_of(recipe, key), key)

    groups = {
      group: {
        name: (values(recipe, figures[0]), values(recipe, figures[1]))
        for name, recipe in recipes.items()
      }
      for group, recipes in comparison.grouped(summary['recipes']).items()
    }
    path = self.workdir / 'study.png'
    return plots.dependence(groups, path, *map(comparison.label, figures))


def _by_seed(runs: list[Networks]) -> dict[str, dict[str, list[float]]]:
  """Returns every figure of a recipe's networks as a list over the seeds."""
  return {
    network: {
      key: [run[network][key] for run in runs]
      for key, value in metrics.items()
      if isinstance(value, float)
    }
    for network, metrics in runs[0].items()
  }
