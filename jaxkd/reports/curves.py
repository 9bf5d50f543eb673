"""The curves of a run's networks, from the records of its epochs."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from jaxkd import plots
from jaxkd.plots.chart import Chart, Series
from jaxkd.problems import Problem

Rows = Sequence[Mapping[str, Any]]


def of_run(
  rows: Rows,
  phases: Mapping[str, Mapping[str, Any]],
  networks: Sequence[str],
  result: str,
  problem: Problem,
) -> list[Chart]:
  """Returns the charts of a run; those without a value are left out.

  Args:
    rows: one mapping for each epoch, as in metrics.jsonl.
    phases: their records in the summary, by name.
    networks: all of the run, by name.
    result: the network that the run is for.
    problem: that the data pose.
  """
  colours = colours_of(networks, result)
  by_phase = {name: [r for r in rows if r['phase'] == name] for name in phases}
  headline = problem.headline
  loss = problem.finite[0]
  display = problem.displays[headline]
  factor, unit = (100, ' %') if display.percent else (1, '')
  label = display.label

  def tested(title: str, metric: str, factor: float = 1, unit: str = ''):
    own = metric, headline, result, colours, factor
    return Chart(title, _tested(rows, networks, *own), unit)

  def trained(title: str, key: str, **options: Any) -> Chart:
    series = []
    for phase, own in by_phase.items():
      names = [n for n in phases[phase]['networks'] if not n.endswith('_ema')]
      colour = colours.get(names[-1] if names else '', 6)
      series.append(_series(phase, own, key, colour, bold=result in names))
    return Chart(title, [x for x in series if x.y], **options)

  charts = [
    tested(f'Test {label}', headline, factor, unit),
    tested(f'Test {problem.displays[loss].label}', loss),
    _lead(rows, result, problem, colours, factor, unit),
    _to_guides(by_phase, result, colours, factor, unit),
    trained('Training loss, by phase', 'train/loss'),
    _training_headline(rows, networks, problem, result, colours, factor, unit),
    _by_transfer(by_phase, phases),
    *_rates(by_phase, trained),
    trained('Throughput, by phase', 'images_per_second', unit=' images/s'),
  ]
  return [chart for chart in charts if chart.values]


def colours_of(networks: Sequence[str], result: str) -> dict[str, int]:
  """Returns the colour of each network; that of the result is the first.

  A network with averaged parameters has the colour of the network.
  """
  bases = dict.fromkeys(name.removesuffix(plots.AVERAGE) for name in networks)
  others = [x for x in bases if x != result.removesuffix(plots.AVERAGE)]
  colours = {name: n for n, name in enumerate(others, 1)}
  return {n: colours.get(n.removesuffix(plots.AVERAGE), 0) for n in networks}


def _series(
  name: str,
  rows: Rows,
  key: str,
  colour: int,
  factor: float = 1,
  **options: Any,
) -> Series:
  """Returns the values of a key of the rows that have it, null as NaN."""
  own = [row for row in rows if key in row]
  values = [math.nan if row[key] is None else factor * row[key] for row in own]
  epochs = [row['epoch'] for row in own]
  return Series(name, epochs, values, colour, **options)


def _tested(
  rows: Rows,
  networks: Sequence[str],
  metric: str,
  headline: str,
  result: str,
  colours: Mapping[str, int],
  factor: float,
) -> list[Series]:
  """Returns the test results of each network in the phase that trained it.

  A network that no phase trained has one value, drawn as a dashed line.
  """
  ends = [row['epoch'] for row in rows]
  series = []
  for name in networks:
    key = f'test/{name}/{metric}'
    own = [row for row in rows if key in row]
    average = name.endswith(plots.AVERAGE)
    batches = f'train/{headline}/{name.removesuffix(plots.AVERAGE)}'
    learning = [row for row in own if batches in row]
    options = dict(bold=name == result, dashed=average)
    one = _series(name, learning or own, key, colours[name], factor, **options)
    if own and not learning:
      one = Series(
        f'{name} (frozen)',
        [min(ends), max(ends)],
        [one.y[-1]] * 2,
        colours[name],
        dashed=True,
      )
    series.append(one)
  return [x for x in series if x.y]


def _lead(
  rows: Rows,
  result: str,
  problem: Problem,
  colours: Mapping[str, int],
  factor: float,
  unit: str,
) -> Chart:
  """Returns how far each other network is ahead of the result, by epoch."""
  headline = problem.headline
  metrics = plots.GapMetrics(
    headline=headline,
    headline_label=problem.displays[headline].label,
    percent=problem.displays[headline].percent,
    loss=problem.finite[0],
  )
  title = f'Gap: lead over {result}'
  if not any(f'test/{result}/{headline}' in row for row in rows):
    return Chart(title, [])
  gaps = plots.gaps(plots.curves(rows, metrics), result, metrics)
  frozen = plots.frozen(rows, headline)
  series = [
    Series(name, x['epoch'], x['gap'], colours[name], dashed=name in frozen)
    for name, x in gaps.items()
    if name in colours
  ]
  return Chart(title, series, ' points' if unit else '', zero=True)


def _to_guides(
  by_phase: Mapping[str, Rows],
  result: str,
  colours: Mapping[str, int],
  factor: float,
  unit: str,
) -> Chart:
  """Returns how far each learner is behind the best of its guides.

  Of the result alone, `_lead` shows as much.
  """
  series = [
    _series(name, rows, f'gap/{name}', colour, factor, bold=name == result)
    for rows in by_phase.values()
    for name, colour in colours.items()
  ]
  series = [x for x in series if x.y]
  others = [x for x in series if x.name != result]
  title = 'Gap of each learner to its best guide'
  points = ' points' if unit else ''
  return Chart(title, series if others else [], points, zero=True)


def _training_headline(
  rows: Rows,
  networks: Sequence[str],
  problem: Problem,
  result: str,
  colours: Mapping[str, int],
  factor: float,
  unit: str,
) -> Chart:
  label = problem.displays[problem.headline].label
  series = [
    _series(
      name,
      rows,
      f'train/{problem.headline}/{name}',
      colours[name],
      factor,
      bold=name == result,
    )
    for name in networks
  ]
  return Chart(f'Training {label}', [x for x in series if x.y], unit)


def _by_transfer(
  by_phase: Mapping[str, Rows], phases: Mapping[str, Mapping[str, Any]]
) -> Chart:
  """Returns the loss of each transfer of the last phase, if it has several."""
  last = list(phases)[-1]
  start = 'train/loss/'
  keys = dict.fromkeys(
    key for row in by_phase[last] for key in row if key.startswith(start)
  )
  series = [
    _series(key.removeprefix(start), by_phase[last], key, n)
    for n, key in enumerate(keys)
  ]
  title = f'Losses of phase {last}, unweighted'
  return Chart(title, series if len(series) > 1 else [])


def _rates(by_phase: Mapping[str, Rows], trained: Any) -> list[Chart]:
  """Returns the learning rates, where they were logged."""
  start = 'learning_rate'
  keys = dict.fromkeys(
    key
    for rows in by_phase.values()
    for row in rows
    for key in row
    if key == start or key.startswith(f'{start}/')
  )
  return [
    trained(
      f'Learning rate{key.removeprefix(start).replace("/", " of ")}, by phase',
      key,
      logarithmic=True,
    )
    for key in keys
  ]
