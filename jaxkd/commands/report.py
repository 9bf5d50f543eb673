"""Reports: a run or a study as one page of HTML."""

import pathlib

from jaxkd import reports


def run(workdir: pathlib.Path, output: pathlib.Path | None = None) -> str:
  """Writes the report of a run or a study, and says where it is.

  Args:
    workdir: of a finished run, or of a study.
    output: the file; None takes report.html in the folder.
  """
  return f'Written: {reports.write(workdir, output)}'
