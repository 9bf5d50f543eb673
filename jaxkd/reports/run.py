"""The report of a run: what is in it, and its pictures as files."""

import json
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxkd import plots, problems
from jaxkd.catalog import lookup
from jaxkd.checkpoints.load import RESULTS
from jaxkd.plots.chart import PALETTE, Chart, chart_svg, charts_png
from jaxkd.plots.squares import Point, reliability_svg, scatter_svg
from jaxkd.problems import Problem
from jaxkd.reports import (
  curves,
  graphs,
  page,
  record,
  tables,
  thumbnails,
  words,
)
from jaxkd.reports.record import MISSING
from jaxkd.runs import folder, layout
from jaxkd.runs.experiment import Experiment
from jaxkd.training import log

# Pictures of `jaxkd pictures`, where they were drawn: file -> caption.
PICTURES = {
  'tsne.png': 'Features in front of the classifier, by t-SNE.',
  'correlation.png': 'How far the correlations between the logits of two'
  " classes are from the teacher's.",
}


def write(
  workdir: pathlib.Path,
  output: pathlib.Path,
  experiment: Experiment | None = None,
) -> None:
  """Writes the report of a finished run, and its pictures into the run.

  Args:
    workdir: of the run.
    output: the file of the report; its folder exists.
    experiment: of the run, if it is at hand.

  Raises:
    FileNotFoundError: the run is not finished.
  """
  context = contents(workdir, experiment)
  context['undrawn'] = draw(workdir, context)
  output.write_text(page.render('run.html.j2', **context), encoding='utf-8')


def contents(
  workdir: pathlib.Path, experiment: Experiment | None = None
) -> dict[str, Any]:
  """Returns the values that the template of a run needs.

  Args:
    workdir: see `write`.
    experiment: likewise.

  Raises:
    FileNotFoundError: the run is not finished.
  """
  summary = folder.read_summary(workdir)
  if summary is None:
    raise FileNotFoundError(
      f'no finished run in {workdir}: {layout.SUMMARY} is missing. The same'
      ' command resumes an interrupted run, and writes its report in the end'
    )
  kept = record.of_run(workdir, experiment)
  name = summary.get('problem', 'classification')
  problem = lookup('problem', problems.CATALOG, name)
  networks = summary['networks']
  result = next(x for x in (*RESULTS, *networks) if x in networks)
  predictions = kept['predictions']
  teacher = _teacher(summary, predictions, result)
  config = folder.read_config(workdir / layout.CONFIG)
  return {
    'name': workdir.resolve().name,
    'summary': summary,
    'problem': problem,
    'result': result,
    'teacher': teacher,
    'figures': tables.figures(
      summary, problem, result, teacher, predictions.get('agreement')
    ),
    'graphs': kept['graphs'],
    'table': tables.results(summary, problem, result, teacher),
    'charts': record.attempt(
      lambda: _charts(workdir, summary, problem, result)
    ),
    'predictions': predictions,
    'pictures': _pictures(workdir),
    'phases': tables.cost_of_phases(summary),
    'sizes': tables.cost_of_networks(summary, workdir),
    'cost': _cost(summary, workdir),
    'settings': tables.settings(config),
    'config': json.dumps(config, indent=2),
    'provenance': tables.provenance(summary, workdir),
    'changes': _changes(workdir),
    **FUNCTIONS,
  }


def _teacher(
  summary: Mapping[str, Any], predictions: Mapping[str, Any], result: str
) -> str:
  """Returns the network that the result is compared with; '' without one."""
  networks = summary['networks']
  frozen = [
    name for phase in summary['phases'].values() for name in phase['frozen']
  ]
  names = (predictions.get('other', ''), tables.TEACHER, *frozen)
  return next((x for x in names if x in networks and x != result), '')


def _charts(
  workdir: pathlib.Path,
  summary: Mapping[str, Any],
  problem: Problem,
  result: str,
) -> list[Chart]:
  rows = log.read(workdir / 'metrics.jsonl')
  if not rows:
    raise ValueError('no epoch is in metrics.jsonl, as of a run from the cache')
  networks, phases = list(summary['networks']), summary['phases']
  return curves.of_run(rows, phases, networks, result, problem)


def _pictures(workdir: pathlib.Path) -> list[tuple[str, str]]:
  """Returns the data URI and the caption of further pictures of a run."""
  return [
    (thumbnails.of_png(workdir / name), caption)
    for name, caption in PICTURES.items()
    if (workdir / name).exists()
  ]


def _changes(workdir: pathlib.Path) -> list[Mapping[str, list[str]]]:
  """Returns what differed when the run was resumed."""
  path = workdir / folder.CHANGES
  return json.loads(path.read_text()) if path.exists() else []


def _cost(
  summary: Mapping[str, Any], workdir: pathlib.Path
) -> list[tuple[str, str]]:
  provenance = summary['provenance']
  images = provenance.get('train_images'), provenance.get('test_images')
  rows = [('time of the run', words.duration(summary['seconds']))]
  rows += [
    (name, f'{value:,}')
    for name, value in zip(
      ('training images', 'test images'), images, strict=True
    )
    if value is not None
  ]
  rows.append(('the folder on disk', words.size(words.bytes_below(workdir))))
  return rows


def _legend(chart: Chart) -> list[tuple[str, str, bool]]:
  """Returns the name, the class and whether it is dashed of each curve."""
  return [
    (series.name, f's{series.colour % len(PALETTE)}', series.dashed)
    for series in chart.series
  ]


def _diagram(name: str, bins: Mapping[str, Any]) -> str:
  arrays = {
    key: _array(bins[key]) for key in ('confidence', 'accuracy', 'share')
  }
  return reliability_svg(name, arrays)


def _array(values: list[float | None]) -> np.ndarray:
  return np.array([math.nan if x is None else x for x in values])


def _classes(predictions: Mapping[str, Any]) -> str:
  """Returns the accuracies of two networks by class, as a picture."""
  own, other = predictions['network'], predictions['other']
  points = [
    Point(x['name'], x['values'][other], x['values'][own])
    for x in predictions['classes']
    if x['values'][own] is not None and x['values'][other] is not None
  ]
  return scatter_svg(points, other, own)


def _by_difference(predictions: Mapping[str, Any]) -> list[Mapping[str, Any]]:
  """Returns the classes, those first in which the result is furthest behind."""
  own, other = predictions['network'], predictions['other']

  def lead(row: Mapping[str, Any]) -> float:
    values = row['values']
    if values[own] is None:
      return math.inf
    return values[own] - (values[other] or 0 if other else 0)

  return sorted(predictions['classes'], key=lead)


FUNCTIONS: dict[str, Callable[..., Any]] = {
  'graph_svg': graphs.svg,
  'chart_svg': chart_svg,
  'legend': _legend,
  'reliability_svg': _diagram,
  'classes_svg': _classes,
  'by_difference': _by_difference,
  'signed': words.signed,
}


def draw(workdir: pathlib.Path, context: Mapping[str, Any]) -> list[str]:
  """Draws graphs, curves and calibration as PNG files, into a run's folder.

  Args:
    workdir: of the run.
    context: from `contents`.

  Returns:
    What could not be drawn, and why.
  """
  title = (
    f'{context["summary"]["method"]["name"]} on {context["summary"]["data"]}'
  )
  jobs: dict[str, Callable[[], Any]] = {}
  if MISSING not in context['graphs']:
    several = len(context['graphs']) > 1
    for graph in context['graphs']:
      name = f'graph_{graph["phase"]}.png' if several else 'graph.png'
      jobs[name] = lambda x=graph, name=name: graphs.draw(x, workdir / name)
  if MISSING not in context['charts'] and context['charts']:
    path = workdir / 'curves.png'
    jobs[path.name] = lambda p=path: charts_png(
      context['charts'], p, title=title
    )
  if bins := context['predictions'].get('reliability'):
    arrays = {
      name: {k: _array(x) for k, x in own.items() if k != 'ece'}
      for name, own in bins.items()
    }
    path = workdir / 'reliability.png'
    jobs[path.name] = lambda p=path: plots.reliability(arrays, p, title=title)
  results = {name: record.attempt(job) for name, job in jobs.items()}
  return [
    f'{name}: {why[MISSING]}'
    for name, why in results.items()
    if isinstance(why, dict)
  ]
