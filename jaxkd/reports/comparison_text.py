"""A comparison as text, as comma-separated values and as LaTeX."""

import csv
import io
import math
import string
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from jaxkd import text as texts
from jaxkd.runs import recipes

if TYPE_CHECKING:
  from jaxkd.reports.comparison import Comparison, Row, Table

LATEX = {
  '\\': r'\textbackslash{}',
  '~': r'\textasciitilde{}',
  '^': r'\textasciicircum{}',
  '<': r'\textless{}',
  '>': r'\textgreater{}',
  **{each: f'\\{each}' for each in '&%$#_{}'},
}
ONE_SEED = 'n = 1: a single run has no standard deviation'


def number(table: 'Table', value: float | None, sign: str = '') -> str:
  """Returns a value of the metric of a table as it is shown.

  Args:
    table: whose metric it is.
    value: as stored; None is a dash.
    sign: '+' shows the sign of positive values.
  """
  if value is None:
    return '-'
  if not math.isfinite(value):
    return 'not finite'
  digits = 2 if table.display.percent else 4
  return f'{table.factor * value:{sign}.{digits}f}'


def spread(table: 'Table', row: 'Row', plus_minus: str = '±') -> str:
  """Returns the mean of a row, ± its standard deviation if it has one."""
  mean = number(table, row.spread.mean)
  if row.spread.sd is None:
    return mean
  return f'{mean} {plus_minus} {number(table, row.spread.sd)}'


def difference(table: 'Table', row: 'Row', plus_minus: str = '±') -> str:
  """Returns the mean difference of a row, ± its standard error."""
  if row.difference is None:
    return 'baseline'
  n, mean, error, *_ = row.difference
  if not n:
    return 'no seed in common'
  shown = number(table, mean, '+')
  if error is None:
    return shown
  return f'{shown} {plus_minus} {number(table, error)}'


def interval(table: 'Table', row: 'Row') -> str:
  """Returns the confidence interval of the difference of a row, or ''."""
  gap = row.difference
  if gap is None or gap.low is None:
    return ''
  return f'[{number(table, gap.low, "+")}, {number(table, gap.high, "+")}]'


def pairs(row: 'Row') -> str:
  """Returns the number of pairs of a row, '' for the baseline."""
  return '' if row.difference is None else str(row.difference.n)


def metric(table: 'Table') -> str:
  """Returns the metric of a table in words, with its unit."""
  network = table.metric.partition('/')[0].replace('_', ' ')
  unit = ' (%)' if table.display.percent else ''
  return f'{network} {table.display.label}{unit}'


def footnotes(table: 'Table') -> dict[tuple[str, ...], str]:
  """Returns a letter for each kind of difference of published trainings."""
  kinds = dict.fromkeys(
    each.differences
    for row in table.rows
    for each in row.published
    if each.differences
  )
  letters = [
    *string.ascii_lowercase,
    *(f'a{x}' for x in string.ascii_lowercase),
  ]
  return dict(zip(kinds, letters, strict=False))


def published(row: 'Row', notes: Mapping[tuple[str, ...], str]) -> str:
  """Returns the published figures of a row, with their footnotes."""
  return ', '.join(
    f'{each.figure.top1:.2f}'
    + (f' ({notes[each.differences]})' if each.differences else '')
    for each in row.published
  )


def text(comparison: 'Comparison') -> str:
  """Returns the comparison as text."""
  parts = list(map(_table_text, comparison.tables))
  if len(parts) > 1:
    parts.insert(0, several(comparison))
  if comparison.left_out:
    lines = [f'  {place}: {why}' for place, why in comparison.left_out.items()]
    parts.append('\n'.join(['Left out:', *lines]))
  return '\n\n'.join(parts)


def several(comparison: 'Comparison') -> str:
  """Returns why a comparison has several tables, '' if it has one."""
  if len(comparison.tables) < 2:
    return ''
  keys = dict.fromkeys(key for x in comparison.tables for key in x.test)
  tests = [table.test for table in comparison.tables]
  differing = [key for key in keys if len({str(x.get(key)) for x in tests}) > 1]
  return (
    f'{len(tests)} tables: results on different test images are not compared'
    f' (they differ in {", ".join(differing)}).'
  )


def _table_text(table: 'Table') -> str:
  notes = footnotes(table)
  several_commits = len(table.commits) > 1
  head = ['recipe', 'n', metric(table), 'difference', '95 % interval', 'pairs']
  if any(row.published for row in table.rows):
    head.append('published')
  if several_commits:
    head.append('commit')
  rows = [tuple(head)]
  for row in table.rows:
    cells = {
      'published': published(row, notes),
      'commit': ', '.join(row.commits),
    }
    own = [
      *(row.label, str(row.spread.n), spread(table, row)),
      *(difference(table, row), interval(table, row), pairs(row)),
    ]
    rows.append((*own, *(cells[name] for name in head[len(own) :])))
  body = texts.table(rows, right=(1, 2, 3, 4, 5))
  return '\n'.join([heading(table), '', body, *map(_wrapped, remarks(table))])


def heading(table: 'Table') -> str:
  """Returns what a table shows."""
  return (
    f'{table.data}: mean ± standard deviation over n seeds; difference from'
    f' {table.baseline}, ± standard error over pairs of runs of one seed'
  )


def _wrapped(line: str) -> str:
  return f'  {line}'


def remarks(table: 'Table') -> list[str]:
  """Returns what a reader has to know of a table, in lines."""
  lines = []
  if any(row.spread.n == 1 for row in table.rows):
    lines.append(ONE_SEED)
  lines += _seeds(table)
  for kind, letter in footnotes(table).items():
    lines.append(f'({letter}) {"; ".join(kind)}')
  sources = dict.fromkeys(
    f'{source}{f" ({note})" if (note := each.figure.note) else ""}'
    for row in table.rows
    for each in row.published
    for source in each.figure.sources
  )
  lines += [f'published: {source}' for source in sources]
  unnamed = [key for key in table.differing if not _named(table, key)]
  lines += [f'{key}: {_by_value(table, key)}' for key in unnamed]
  if len(table.commits) == 1:
    lines.append(f'commit: {table.commits[0]}')
  for row in table.rows:
    for run in row.runs.values():
      lines += [f'{run.path} {note}' for note in run.notes]
  return lines


def _by_value(table: 'Table', key: str) -> str:
  """Returns the values of a setting with their recipes, the commonest last."""
  rows: dict[str, list[str]] = {}
  for row in table.rows:
    if row.settings[key] is not None:
      rows.setdefault(recipes.show(row.settings[key]), []).append(row.label)
  *rare, (common, labels) = sorted(rows.items(), key=lambda x: len(x[1]))
  parts = [f'{value} for {" and ".join(names)}' for value, names in rare]
  others = 'the others' if len(labels) > 1 else labels[0]
  return '; '.join([*parts, f'{common} for {others}'])


def _named(table: 'Table', key: str) -> bool:
  """Returns whether the labels have a setting."""
  return any(
    recipes.phrase(key, row.settings[key]) in row.label
    for row in table.rows
    if row.settings[key] is not None
  )


def _seeds(table: 'Table') -> list[str]:
  """Returns the seeds of the rows, in a line if they are the same."""
  by_row = [sorted(row.values, key=_order) for row in table.rows]
  if all(x == by_row[0] for x in by_row):
    return [f'seeds: {", ".join(by_row[0])}']
  return [
    f'seeds of {row.label}: {", ".join(x)}'
    for row, x in zip(table.rows, by_row, strict=True)
  ]


def _order(seed: str) -> tuple[bool, int, str]:
  return (not seed.isdigit(), int(seed) if seed.isdigit() else 0, seed)


def csv_text(comparison: 'Comparison', per_seed: bool = False) -> str:
  """Returns the comparison as CSV, see `Comparison.to_csv`."""
  one = _per_seed if per_seed else _per_recipe
  rows = [x for table in comparison.tables for x in one(table)]
  names = dict.fromkeys(name for row in rows for name in row)
  file = io.StringIO()
  writer = csv.DictWriter(file, list(names), restval='', lineterminator='\n')
  writer.writeheader()
  writer.writerows(rows)
  return file.getvalue()


def _shared(table: 'Table', row: 'Row') -> dict[str, Any]:
  return {
    'data': table.test['data.name'],
    'test_images': table.test.get('test images') or '',
    'recipe': row.label,
  }


def _per_recipe(table: 'Table') -> Iterable[dict[str, Any]]:
  """Yields a recipe for each line of a CSV."""
  for row in table.rows:
    gap = row.difference
    low, high = row.interval or (None, None)
    yield {
      **_shared(table, row),
      'n': row.spread.n,
      'seeds': ' '.join(row.values),
      'metric': table.metric,
      'mean': row.spread.mean,
      'sd': row.spread.sd,
      'mean_low': low,
      'mean_high': high,
      'baseline': '' if gap is None else table.baseline,
      'pairs': '' if gap is None else gap.n,
      'difference': gap and gap.mean,
      'difference_error': gap and gap.error,
      'difference_low': gap and gap.low,
      'difference_high': gap and gap.high,
      'published_percent': ' '.join(str(x.figure.top1) for x in row.published),
      'published_differences': ' | '.join(
        '; '.join(x.differences) for x in row.published
      ),
      'published_sources': ' | '.join(
        str(source) for x in row.published for source in x.figure.sources
      ),
      'commits': ' '.join(row.commits),
      **row.settings,
    }


def _per_seed(table: 'Table') -> Iterable[dict[str, Any]]:
  """Yields a run for each line of a CSV."""
  for row in table.rows:
    for seed, run in row.runs.items():
      yield {
        **_shared(table, row),
        'seed': seed,
        'run': run.path,
        'commit': run.commit,
        **run.metrics,
      }


def latex(comparison: 'Comparison') -> str:
  """Returns the comparison as LaTeX tables."""
  tables = '\n'.join(map(_latex_table, comparison.tables))
  return f'% needs \\usepackage{{booktabs}}\n{tables}'


def _latex_table(table: 'Table') -> str:
  notes = footnotes(table)
  head = ['recipe', '$n$', metric(table), 'difference', r'95\,\% interval']
  with_figures = any(row.published for row in table.rows)
  cells = [head[:2] + [escaped(head[2])] + head[3:]]
  for row in table.rows:
    cells.append(
      [
        escaped(row.label),
        str(row.spread.n),
        _mathematics(spread(table, row, r'\pm')),
        _mathematics(difference(table, row, r'\pm')),
        _mathematics(interval(table, row)),
      ]
    )
  if with_figures:
    cells[0].append('published')
    for line, row in zip(cells[1:], table.rows, strict=True):
      line.append(escaped(published(row, notes)))
  first, *others = (f'  {" & ".join(line)} \\\\' for line in cells)
  columns = 'l' + 'r' * (len(cells[0]) - 1)
  comments = [f'% {line}' for line in (heading(table), *remarks(table))]
  return '\n'.join(
    [
      *comments,
      f'\\begin{{tabular}}{{{columns}}}',
      *('  \\toprule', first, '  \\midrule', *others, '  \\bottomrule'),
      '\\end{tabular}\n',
    ]
  )


def escaped(words: str) -> str:
  """Returns a text as LaTeX shows it.

  >>> escaped('50 % of wrn_40_2')
  '50 \\\\% of wrn\\\\_40\\\\_2'
  """
  return ''.join(LATEX.get(letter, letter) for letter in words)


def _mathematics(cell: str) -> str:
  """Returns a cell with numbers in mathematical mode, words as they are."""
  numeric = any(map(str.isdigit, cell))
  return f'${cell}$' if numeric else cell
