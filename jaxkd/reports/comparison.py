"""Recipes side by side over seeds: the numbers, and as text, CSV and LaTeX.

Runs are grouped by `runs.recipes`. Differences are taken between runs of one
seed, which start from the same values and see the same batches.
"""

import dataclasses
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from jaxkd import disk, problems
from jaxkd.catalog import UnknownNameError, suggestion
from jaxkd.metrics import seeds
from jaxkd.metrics.seeds import Difference, Spread
from jaxkd.reports import comparison_text
from jaxkd.reports.beside import Beside, beside
from jaxkd.runs import recipes, records
from jaxkd.runs.recipes import Group, Recipe
from jaxkd.runs.records import Record

Path = str | os.PathLike[str]


@dataclasses.dataclass(frozen=True)
class Row:
  """A recipe in a table.

  label: the settings that tell it from the others.
  settings: those that differ in the table, by name.
  runs: by seed.
  values: of the metric, by seed, as it is stored: accuracies are fractions.
    One that is not finite is NaN.
  spread: of the values over the seeds.
  difference: from the baseline's values, over the seeds that both have; None
    for the baseline itself.
  interval: Student's confidence interval of the mean, or None for one seed.
  published: figures of the same method and pair.
  """

  label: str
  settings: Mapping[str, Any]
  runs: Mapping[str, Record]
  values: Mapping[str, float]
  spread: Spread
  difference: Difference | None
  interval: tuple[float, float] | None
  published: tuple[Beside, ...]

  @property
  def commits(self) -> tuple[str, ...]:
    """The commits of the runs, shortened; 'unknown' if not recorded."""
    names = (run.commit or 'unknown' for run in self.runs.values())
    return tuple(dict.fromkeys(names))


@dataclasses.dataclass(frozen=True)
class Table:
  """Recipes that were tested on the same images.

  metric: NETWORK/METRIC.
  test: what chooses the test images.
  baseline: the label of a row.
  rows: one for each recipe.
  """

  metric: str
  test: Mapping[str, Any]
  baseline: str
  rows: tuple[Row, ...]

  @property
  def display(self) -> problems.Display:
    """How the metric is shown."""
    return problems.display(self.metric.rpartition('/')[2])

  @property
  def factor(self) -> int:
    """What values are multiplied by to be shown."""
    return 100 if self.display.percent else 1

  @property
  def data(self) -> str:
    """The test images in words."""
    number, name = self.test.get('test images'), self.test['data.name']
    return f'{number:,} test images of {name}' if number else f'test: {name}'

  @property
  def commits(self) -> tuple[str, ...]:
    """The commits of all runs."""
    return tuple(dict.fromkeys(x for row in self.rows for x in row.commits))

  @property
  def differing(self) -> tuple[str, ...]:
    """The names of the settings that differ."""
    return tuple(self.rows[0].settings)


@dataclasses.dataclass(frozen=True, repr=False)
class Comparison:
  """Finished runs, compared over seeds. Made by `compare`.

  tables: one for each set of test images.
  left_out: why runs are not compared, by their folders.
  """

  tables: tuple[Table, ...]
  left_out: Mapping[pathlib.Path, str]

  def table(self) -> str:
    """Returns the comparison as text."""
    return comparison_text.text(self)

  def to_csv(self, path: Path | None = None, per_seed: bool = False) -> str:
    """Returns the comparison as comma-separated values.

    Values have all their digits, and are not in per cent, except published
    figures, which are as printed.

    Args:
      path: a file that is written, too.
      per_seed: a line for each run with all its metrics, in place of one for
        each recipe.
    """
    return _written(comparison_text.csv_text(self, per_seed), path)

  def to_latex(self, path: Path | None = None) -> str:
    """Returns the comparison as LaTeX tables, which need booktabs.

    Args:
      path: a file that is written, too.
    """
    return _written(comparison_text.latex(self), path)

  def to_html(self, path: Path | None = None) -> str:
    """Returns the comparison as a page that loads nothing else.

    Args:
      path: a file that is written, too.
    """
    from jaxkd.reports import comparison_page

    return _written(comparison_page.page(self), path)

  def __repr__(self) -> str:
    return self.table()


def _written(content: str, path: Path | None) -> str:
  if path is not None:
    file = disk.expanded(path)
    disk.check_output(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    with disk.replacing(file) as partial:
      partial.write_text(content, encoding='utf-8')
  return content


def compare(
  runs: Sequence[Any] | Path, *, baseline: str = '', metric: str = ''
) -> Comparison:
  """Compares finished runs: recipes over their seeds.

  Runs with equal settings are one recipe, whatever their seed, their places on
  disk, and what cannot change a result: how often a state is saved
  (`save_every_steps`), twins of the student (`baseline`, `kd_baseline`), and
  the sections `study` and `store`. Checkpoints are compared by their content.
  Runs that were tested on other images are in tables of their own.

  Args:
    runs: folders of runs or of studies, folders in which runs are, patterns
      such as 'runs/*', or results with a `workdir`, as `jaxkd.distill` returns.
    baseline: that differences are taken from: a recipe's label, or settings or
      words in it that no other label has; or the folder of one of its runs. ''
      is the first recipe of each table.
    metric: NETWORK/METRIC, such as 'student/nll'; by default the headline, such
      as the accuracy, of the student, or else of the teacher.

  Raises:
    FileNotFoundError: there is no run in a path, or no finished one at all.
    KeyError: no run has that metric, or no recipe fits the baseline.
    ValueError: several recipes fit the baseline.
  """
  own = [runs] if isinstance(runs, str | os.PathLike) else list(runs)
  names = [getattr(each, 'workdir', each) for each in own]
  finished, left_out = records.find(names)
  if not finished:
    lines = ''.join(f'\n  {x}: {why}' for x, why in left_out.items())
    raise FileNotFoundError(f'no finished run among those of {names}:{lines}')
  groups, repeated = recipes.group(finished)
  chosen = [_baseline(group, baseline) for group in groups]
  if all(each is None for each in chosen):
    labels = [recipe.label for group in groups for recipe in group.recipes]
    raise UnknownNameError(
      f'no recipe fits --baseline={baseline}. {suggestion(baseline, labels)}'
    )
  tables = [
    _table(group, first or group.recipes[0], metric)
    for group, first in zip(groups, chosen, strict=True)
  ]
  return Comparison(tuple(tables), {**left_out, **repeated})


def _baseline(group: Group, name: str) -> Recipe | None:
  """Returns the recipe of a table that fits a name; None if none does."""
  if not name:
    return group.recipes[0]
  exact = [x for x in group.recipes if name == x.label]
  fits = exact or [
    x for x in group.recipes if _has_run(x, name) or _contains(x.label, name)
  ]
  if len(fits) > 1:
    labels = '\n  '.join(x.label for x in fits)
    raise ValueError(f'--baseline={name} fits several recipes:\n  {labels}')
  return fits[0] if fits else None


def _contains(label: str, name: str) -> bool:
  """Returns whether a label has all parts of a name, as whole words."""

  def parts(text: str) -> list[str]:
    spaced = text.replace('=', ' ').replace('_', ' ').split(',')
    return [' '.join(part.split()) for part in spaced]

  own = ' , '.join(parts(label))
  return all(f' {part} ' in f' {own} ' for part in parts(name))


def _has_run(recipe: Recipe, name: str) -> bool:
  place = pathlib.Path(name).expanduser().resolve()
  return any(run.path.resolve() == place for run in recipe.runs.values())


def _table(group: Group, baseline: Recipe, metric: str) -> Table:
  """Returns the table of recipes that were tested on the same images."""
  first = next(iter(group.recipes[0].runs.values()))
  metric = metric or f'{first.network}/{first.problem.headline}'
  base = _values(baseline, metric)
  rows = []
  for n, recipe in enumerate(group.recipes):
    values = _values(recipe, metric)
    run = next(iter(recipe.runs.values()))
    own = recipe is not baseline
    rows.append(
      Row(
        label=recipe.label,
        settings={key: x[n] for key, x in group.differing.items()},
        runs=recipe.runs,
        values=values,
        spread=seeds.spread(list(values.values())),
        difference=seeds.difference(values, base) if own else None,
        interval=seeds.interval(list(values.values())),
        published=beside(metric, run.settings),
      )
    )
  return Table(metric, group.test, baseline.label, tuple(rows))


def _values(recipe: Recipe, metric: str) -> dict[str, float]:
  """Returns the metric of a recipe's runs, by seed."""
  values = {}
  for seed, run in recipe.runs.items():
    try:
      value = run.value(metric)
    except UnknownNameError as error:
      raise UnknownNameError(f'{run.path}: {error}') from error
    values[seed] = math.nan if value is None else value
  return values
