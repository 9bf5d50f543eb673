"""The tables of a run's report."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxkd import config as configs
from jaxkd.problems import Display, Problem
from jaxkd.reports import words
from jaxkd.runs import describe, layout

TEACHER = 'teacher'
TWINS = ('plain_student', 'kd_student')  # of the student, trained otherwise


class Cell(NamedTuple):
  """A cell of a table: its text, and whether it is good or bad news."""

  text: str
  tone: str = ''


class Row(NamedTuple):
  """A row of a table: the first cell is a heading; a result is tinted."""

  name: str
  cells: list[Cell]
  result: bool = False


class Table(NamedTuple):
  """A table: the headings of its columns, and how many of them are text."""

  head: list[str]
  rows: list[Row]
  texts: int = 1


def results(
  summary: Mapping[str, Any], problem: Problem, result: str, teacher: str
) -> Table:
  """Returns the networks of a run with their test results and differences.

  Args:
    summary: of the run.
    problem: that its data pose.
    result: the network that the run is for.
    teacher: the network that the others are compared with; '': none.
  """
  networks, headline = summary['networks'], problem.headline
  display = problem.displays[headline]
  shown = {k: x for k, x in problem.displays.items() if x.column}
  others = references(networks, result, teacher)
  points = '\n(points)' if display.percent else ''
  head = ['network', 'model']
  for key, each in shown.items():
    head.append(each.column)
    if key == headline:
      head += [f'vs. {other}{points}' for other in others]
  head += ['parameters', 'MACs']
  rows = []
  for name, network in networks.items():
    cells = [Cell(describe.row_name(network))]
    for key, each in shown.items():
      value = network.get(key)
      cells.append(Cell(each.show(value)))
      if key == headline:
        cells += [
          _difference(network, networks[x], key, display, name == result)
          for x in others
        ]
    size = describe.size_cells(network['params'], network['macs'])
    cells += [Cell(text) for text in size]
    rows.append(Row(name, cells, name == result))
  return Table(head, rows, texts=2)


def references(
  networks: Mapping[str, Any], result: str, teacher: str
) -> list[str]:
  """Returns the networks from which differences are taken."""
  every = (teacher, *TWINS)
  return [x for x in every if x and x in networks and x != result]


def _difference(
  network: Mapping[str, Any],
  other: Mapping[str, Any],
  key: str,
  display: Display,
  tinted: bool,
) -> Cell:
  """Returns how far a network's metric is from another's."""
  if network is other:
    return Cell('')
  value, theirs = network.get(key), other.get(key)
  text = words.difference(value, theirs, display)
  if not tinted or value is None or theirs is None or value == theirs:
    return Cell(text)
  return Cell(text, 'good' if value > theirs else 'bad')


def figures(
  summary: Mapping[str, Any],
  problem: Problem,
  result: str,
  teacher: str,
  agreement: float | None,
) -> list[tuple[str, str, str, str]]:
  """Returns the numbers on top: name, value, unit, note.

  Args:
    summary: see `results`.
    problem: likewise.
    result: likewise.
    teacher: likewise.
    agreement: of the result and its teacher, a fraction; None if unknown.
  """
  networks, headline = summary['networks'], problem.headline
  display, own = problem.displays[headline], networks[result]
  best = own.get(problem.best)
  note = f'best of all epochs {display.show(best)}' if best else ''
  unit = '%' if display.percent else ''
  value = display.show(own[headline]).removesuffix(' %')
  rows = [(f'{result}, test {display.label}', value, unit, note)]
  unit = 'points' if display.percent else ''
  for other in references(networks, result, teacher):
    theirs = networks[other].get(headline)
    value = words.difference(own[headline], theirs, display)
    note = f'which has {display.show(theirs)}'
    rows.append((f'{result} vs. {other}', value, unit, note))
  if agreement is not None:
    note = 'same answer on test images'
    if problem.sigmoid:
      note = 'same decisions on test images'
    value = f'{100 * agreement:.1f}'
    rows.append((f'agreement with {teacher}', value, '%', note))
  theirs = networks.get(teacher) or {}
  for key, name in (('params', 'parameters'), ('macs', 'MACs per image')):
    note = ''
    if theirs.get(key) and own[key]:
      quotient = theirs[key] / own[key]
      fewer = 'fewer' if quotient >= 1 else 'more'
      factor = words.ratio(quotient if quotient >= 1 else 1 / quotient)
      note = f'{factor} times {fewer} than {teacher}'
    rows.append((f'{name} of {result}', words.count(own[key]), '', note))
  speed = summary.get('images_per_second')
  note = f'{speed:,.0f} images/s in the last phase' if speed else ''
  rows.append(('time', words.duration(summary['seconds']), '', note))
  return rows


def cost_of_phases(summary: Mapping[str, Any]) -> Table:
  """Returns what each phase has cost."""
  head = ['phase', 'epochs', 'time', 'in training steps', 'images/s']
  rows = []
  for name, phase in summary['phases'].items():
    if 'cached' in phase:
      rows.append(Row(name, [Cell('from the cache'), *[Cell('–')] * 3]))
      continue
    epochs = str(phase.get('epochs', '–'))
    if phase.get('stopped_by_callback'):
      epochs += ', stopped by a callback'
    steps, speed = map(phase.get, ('training_seconds', 'images_per_second'))
    rows.append(
      Row(
        name,
        [
          Cell(epochs),
          Cell(words.duration(phase['seconds'])),
          Cell('–' if steps is None else words.duration(steps)),
          Cell('–' if speed is None else f'{speed:,.0f}'),
        ],
      )
    )
  return Table(head, rows)


def cost_of_networks(
  summary: Mapping[str, Any], workdir: pathlib.Path
) -> Table:
  """Returns the size of each network, in memory and on disk."""
  head = ['network', 'parameters', 'MACs per image', 'on disk']
  rows = []
  for name, network in summary['networks'].items():
    place = layout.network(workdir, name)
    disk = words.size(words.bytes_below(place)) if place.exists() else '–'
    size = describe.size_cells(network['params'], network['macs'])
    rows.append(Row(name, [*map(Cell, size), Cell(disk)]))
  return Table(head, rows)


def settings(config: Mapping[str, Any]) -> Table:
  """Returns the settings of a config that differ from the defaults."""
  default = dict(configs.flat(configs.as_json(configs.default().to_dict())))
  rows = [
    Row(key, [Cell(_text(value)), Cell(_text(default.get(key, '')))])
    for key, value in configs.flat(config)
    if default.get(key) != value
  ]
  return Table(['setting', 'value', 'default'], rows, texts=3)


def _text(value: Any) -> str:
  return value if isinstance(value, str) else repr(value)


def provenance(
  summary: Mapping[str, Any], workdir: pathlib.Path
) -> Sequence[tuple[str, str]]:
  """Returns where a result comes from, name and text."""
  rows = [('finished', words.written(workdir / layout.SUMMARY))]
  for key, value in summary['provenance'].items():
    if isinstance(value, Mapping):
      value = ', '.join(f'{name} {x}' for name, x in value.items())
    elif isinstance(value, list):
      value = (' ' if key == 'command' else ', ').join(map(str, value))
    rows.append((key.replace('_', ' '), '–' if value in (None, '') else value))
  return rows
