"""Runs compared over their seeds, as text and as files."""

import pathlib
from collections.abc import Sequence

from jaxkd import disk
from jaxkd.reports.comparison import Comparison, compare


def run(
  runs: Sequence[str],
  *,
  baseline: str = '',
  metric: str = '',
  html: pathlib.Path | None = None,
  csv: pathlib.Path | None = None,
  latex: pathlib.Path | None = None,
  per_seed: bool = False,
) -> str:
  """Compares runs and writes files; returns the comparison as text.

  Args:
    runs: see `jaxkd.reports.comparison.compare`, as the next two.
    baseline: what differences are taken from.
    metric: that is compared.
    html: a page to write.
    csv: a file to write.
    latex: likewise.
    per_seed: the CSV has a line for each run, in place of each recipe.
  """
  for path in filter(None, (html, csv, latex)):
    disk.check_output(path)
  comparison = compare(runs, baseline=baseline, metric=metric)
  lines = [str(comparison), *_write(comparison, html, csv, latex, per_seed)]
  return '\n'.join(lines)


def _write(
  comparison: Comparison,
  html: pathlib.Path | None,
  csv: pathlib.Path | None,
  latex: pathlib.Path | None,
  per_seed: bool,
) -> list[str]:
  """Writes the files that are asked for; returns a line for each."""
  if html:
    comparison.to_html(html)
  if csv:
    comparison.to_csv(csv, per_seed)
  if latex:
    comparison.to_latex(latex)
  lines = [f'Written: {path}' for path in (html, csv, latex) if path]
  return ['', *lines] if lines else []
