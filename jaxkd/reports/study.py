"""The report of a study: its recipes over their seeds, and its runs."""

import json
import math
import os
import pathlib
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxkd import problems
from jaxkd.config import Config
from jaxkd.disk import PARTIAL
from jaxkd.plots.outcomes import outcomes_png, outcomes_svg
from jaxkd.reports import graphs, page, record, run, tables, thumbnails, words
from jaxkd.reports.record import MISSING
from jaxkd.reports.tables import Cell, Row, Table
from jaxkd.runs import comparison, folder, layout, lock
from jaxkd.runs.expansion import expand
from jaxkd.runs.experiment import bound
from jaxkd.training import log

Results = dict[str, dict[str, list[float | None]]]  # of one recipe


def write(
  workdir: pathlib.Path, output: pathlib.Path, failure: str = ''
) -> None:
  """Writes the report of a study, finished or not, and those of its runs.

  Args:
    workdir: of the study.
    output: the file of the report; its folder exists.
    failure: why the study ended early; '' if it did not.
  """
  context = contents(workdir, output, failure)
  context['undrawn'] = _draw(workdir, context['groups'])
  output.write_text(page.render('study.html.j2', **context), encoding='utf-8')


def _draw(
  workdir: pathlib.Path, groups: Sequence[Mapping[str, Any]]
) -> list[str]:
  """Draws the outcomes of each group; returns what could not be drawn."""
  undrawn = []
  for group in groups:
    name = f'outcomes_{group["name"].replace("/", "_")}'.rstrip('_')
    values = group['values']
    if not any(math.isfinite(x) for own in values.values() for x in own):
      continue

    def job(group=group, values=values, name=name):
      path = workdir / f'{name}.png'
      return outcomes_png(values, path, group['label'], group['baseline'])

    why = record.attempt(job)
    if isinstance(why, dict):
      undrawn.append(f'{name}.png: {why[MISSING]}')
  return undrawn


def contents(
  workdir: pathlib.Path, output: pathlib.Path, failure: str = ''
) -> dict[str, Any]:
  """Returns the values that the template of a study needs; see `write`."""
  config = record.config_of(workdir)
  recipes = expand(config)
  seeds = tuple(config.study.seeds) or (config.seed,)
  summary = folder.read_summary(workdir) or {}
  summaries = {
    name: [_summary(workdir, config, name, n) for n in range(len(seeds))]
    for name in recipes
  }
  links = _links(workdir, output, summaries, seeds)
  results = {name: _by_seed(each) for name, each in summaries.items()}
  groups = [
    _group(name, own, config, seeds, links)
    for name, own in comparison.grouped(results).items()
  ]
  states = [
    (name, seed, _state(workdir / 'runs' / name / f'seed{seed}'))
    for name, own in summaries.items()
    for seed, one in zip(seeds, own, strict=True)
    if one is None
  ]
  finished = [x for own in summaries.values() for x in own if x is not None]
  first = folder.read_config(workdir / layout.CONFIG)
  picture = workdir / 'study.png'
  return {
    'name': workdir.resolve().name,
    'config': config,
    'figures': _figures(config, results, seeds, finished, len(states)),
    'groups': groups,
    'failure': failure,
    'missing': states,
    'graphs': record.attempt(lambda: _graphs(workdir, recipes)),
    'graph_svg': graphs.svg,
    'picture': thumbnails.of_png(picture) if picture.exists() else '',
    'outcome': config.study.outcome,
    'against': config.study.against,
    'settings': tables.settings(first),
    'text': json.dumps(first, indent=2),
    'provenance': _provenance(workdir, summary, finished),
  }


def _summary(
  workdir: pathlib.Path, config: Config, recipe: str, n: int
) -> dict[str, Any] | None:
  """Returns the result of the n-th seed of a recipe, None without one."""
  if config.study.together:
    path = workdir / 'runs' / f'{recipe}.json'
    runs = json.loads(path.read_text())['runs'] if path.exists() else []
    return {'networks': runs[n]} if n < len(runs) else None
  seeds = tuple(config.study.seeds) or (config.seed,)
  return folder.read_summary(workdir / 'runs' / recipe / f'seed{seeds[n]}')


def _by_seed(summaries: Sequence[Mapping[str, Any] | None]) -> Results:
  """Returns network -> metric -> a value for each seed, None without one."""
  results: Results = {}
  for n, summary in enumerate(summaries):
    for network, metrics in (summary or {'networks': {}})['networks'].items():
      for key, value in metrics.items():
        if isinstance(value, float):
          values = results.setdefault(network, {}).setdefault(
            key, [None] * len(summaries)
          )
          values[n] = value
  return results


def _values(results: Results, key: str, seeds: int) -> list[float]:
  """Returns a metric of a recipe by seed, as it is shown; NaN where missing."""
  try:
    return comparison.scaled(comparison.values_of(results, key), key)
  except KeyError:  # no run of the recipe has it yet
    return [math.nan] * seeds


def _group(
  name: str,
  recipes: Mapping[str, Results],
  config: Config,
  seeds: Sequence[int],
  links: Mapping[tuple[str, int], str],
) -> dict[str, Any]:
  """Returns the table, the picture and the outcomes of comparable recipes."""
  settings = config.study
  outcome = settings.outcome
  baseline = settings.baseline
  baseline = baseline if baseline in recipes else next(iter(recipes))
  values = {
    recipe: _values(results, outcome, len(seeds))
    for recipe, results in recipes.items()
  }
  label = comparison.label(outcome)
  points = '\n(points)' if label.endswith('(%)') else ''
  head = ['recipe', 'seeds', *map(comparison.label, settings.columns)]
  head += [f'{label.removesuffix(" (%)")} vs. {baseline}{points}']
  rows = []
  for recipe, results in recipes.items():
    cells = [Cell(str(sum(map(math.isfinite, values[recipe]))))]
    for key in settings.columns:
      own = _values(results, key, len(seeds))
      cells.append(Cell(_spread(own, key)))
    pairs = np.subtract(values[recipe], values[baseline])
    cells.append(_paired(pairs, outcome, recipe == baseline))
    rows.append(Row(recipe, cells, recipe == baseline))
  unit = ' %' if points else ''
  prefix = f'{name}/' if name else ''
  picture = record.attempt(
    lambda: outcomes_svg(values, label, unit, baseline, seeds)
  )
  return {
    'name': name,
    'baseline': baseline,
    'table': Table(head, rows),
    'picture': picture,
    'values': values,
    'label': label,
    'seeds': seeds,
    'outcomes': [
      (
        recipe,
        [
          (_number(x, outcome), links.get((prefix + recipe, seed), ''))
          for x, seed in zip(own, seeds, strict=True)
        ],
      )
      for recipe, own in values.items()
    ],
  }


def _digits(key: str) -> int:
  return 2 if problems.display(key.rpartition('/')[2]).percent else 4


def _number(value: float, key: str) -> str:
  return f'{value:.{_digits(key)}f}' if math.isfinite(value) else '–'


def _spread(values: Sequence[float], key: str) -> str:
  """Returns mean and standard deviation of the values that there are."""
  own = [x for x in values if math.isfinite(x)]
  if not own:
    return '–'
  text = _number(float(np.mean(own)), key)
  if len(own) > 1:
    text += f' ± {_number(float(np.std(own, ddof=1)), key)}'
  return text


def _paired(pairs: np.ndarray, key: str, same: bool) -> Cell:
  """Returns mean and deviation of paired differences."""
  own = pairs[np.isfinite(pairs)]
  if same:
    return Cell('baseline')
  if not len(own):
    return Cell('–')
  mean = float(np.mean(own))
  text = words.signed(mean, _digits(key))
  if len(own) > 1:
    text += f' ± {_number(float(np.std(own, ddof=1)), key)}'
  return Cell(text)


def _figures(
  config: Config,
  results: Mapping[str, Results],
  seeds: Sequence[int],
  finished: Sequence[Mapping[str, Any]],
  missing: int,
) -> list[tuple[str, str, str, str]]:
  """Returns the numbers on top: name, value, unit, note."""
  outcome = config.study.outcome
  means = {}
  for name, own in results.items():
    values = [x for x in _values(own, outcome, len(seeds)) if math.isfinite(x)]
    if values:
      means[name] = float(np.mean(values))
  of = f'of {len(finished) + missing}'
  text = ', '.join(map(str, seeds))
  note = f'{missing} missing' if missing else ''
  rows = [
    ('runs finished', str(len(finished)), of, note),
    ('recipes', str(len(results)), '', ''),
    ('seeds', str(len(seeds)), '', text if len(text) < 40 else ''),
  ]
  if means:
    best = max(means, key=lambda name: means[name])
    label = comparison.label(outcome)
    percent = label.endswith('(%)')
    rows.append(
      (
        f'greatest mean, {label.removesuffix(" (%)")}',
        _number(means[best], outcome),
        '%' if percent else '',
        best,
      )
    )
  seconds = [x['seconds'] for x in finished if 'seconds' in x]
  if seconds:
    rows.append(('time of all runs', words.duration(sum(seconds)), '', ''))
  return rows


def _state(workdir: pathlib.Path) -> str:
  """Returns how far an unfinished run has come."""
  names = {path.name for path in workdir.glob('*')} if workdir.exists() else ()
  rows = log.read(workdir / 'metrics.jsonl')
  if not any(not name.endswith(PARTIAL) for name in names):
    return 'not started'
  state = 'started'
  if rows:
    state = f'{rows[-1]["epoch"]} epochs of phase {rows[-1]["phase"]}'
  if lock.NAME in names:
    return f'{state}; a process works on it, or was killed'
  return f'{state}; interrupted or failed, and the same command resumes it'


def _links(
  workdir: pathlib.Path,
  output: pathlib.Path,
  summaries: Mapping[str, Sequence[Mapping[str, Any] | None]],
  seeds: Sequence[int],
) -> dict[tuple[str, int], str]:
  """Returns the relative addresses of the runs' reports.

  Reports that finished runs do not have yet are written.
  """
  links = {}
  for recipe, own in summaries.items():
    for seed, summary in zip(seeds, own, strict=True):
      place = workdir / 'runs' / recipe / f'seed{seed}'
      path = place / 'report.html'
      if summary is None or not place.exists():
        continue
      if not path.exists():
        record.attempt(lambda place=place, path=path: run.write(place, path))
      if path.exists():
        relative = os.path.relpath(path.resolve(), output.resolve().parent)
        links[recipe, seed] = urllib.parse.quote(
          pathlib.Path(relative).as_posix()
        )
  return links


def _graphs(
  workdir: pathlib.Path, recipes: Mapping[str, Sequence[Config]]
) -> dict[str, list[dict[str, Any]]]:
  """Returns the graphs of each recipe, of a run's report if there is one."""
  result = {}
  for name, configs in recipes.items():
    for path in sorted((workdir / 'runs' / name).glob(f'seed*/{record.NAME}')):
      kept = json.loads(path.read_text()).get('graphs', {MISSING: ''})
      if MISSING not in kept:
        result[name] = kept
        break
    else:
      result[name] = graphs.of_experiment(bound(configs[0]))
  return result


def _provenance(
  workdir: pathlib.Path,
  summary: Mapping[str, Any],
  finished: Sequence[Mapping[str, Any]],
) -> Sequence[tuple[str, str]]:
  """Returns where the results come from, and all commits of the runs."""
  own = [x['provenance'] for x in finished if 'provenance' in x]
  source = summary.get('provenance') or (own[0] if own else {})
  rows = list(tables.provenance({'provenance': source}, workdir))
  commits = dict.fromkeys(str(x.get('git_commit')) for x in own)
  if len(commits) > 1:
    rows.append(('the runs are of several commits', ', '.join(commits)))
  return rows
