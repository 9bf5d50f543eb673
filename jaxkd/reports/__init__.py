"""Reports: one page for a run or a study, with everything inside of it."""

import pathlib

from jaxkd import disk
from jaxkd.reports import record, run, study
from jaxkd.reports.page import render
from jaxkd.reports.record import MISSING
from jaxkd.runs import layout
from jaxkd.runs.experiment import Experiment

NAME = layout.REPORT

__all__ = ['NAME', 'finished', 'render', 'write', 'written']


def write(
  workdir: pathlib.Path,
  output: pathlib.Path | None = None,
  experiment: Experiment | None = None,
  failure: str = '',
) -> pathlib.Path:
  """Writes the report of a run or a study, again if there is one.

  What the report needs of networks and data is computed once and kept in the
  run, see `record`. Pictures of the report are also files in the run.

  Args:
    workdir: of a finished run, or of a study.
    output: the file; None takes report.html in the folder.
    experiment: of the run, if it is at hand; its data are not read again.
    failure: why a study ended early.

  Returns:
    The path of the file.

  Raises:
    FileNotFoundError: there is no run or study, or the run is not finished.
    OSError: the file cannot be written.
  """
  path = output or workdir / NAME
  disk.check_output(path)
  is_one = experiment is not None or not record.is_study(workdir)
  path.parent.mkdir(parents=True, exist_ok=True)
  with disk.replacing(path) as partial:
    if is_one:
      run.write(workdir, partial, experiment)
    else:
      study.write(workdir, partial, failure)
  return path


def written(
  workdir: pathlib.Path,
  experiment: Experiment | None = None,
  failure: str = '',
) -> str:
  """Writes a report at the end of a run or a study; never raises an error.

  Args:
    workdir: see `write`.
    experiment: likewise.
    failure: likewise.

  Returns:
    A line that says where it is, or why there is none.
  """

  def make() -> str:
    return f'Report: {write(workdir, None, experiment, failure)}'

  line = record.attempt(make)
  return line if isinstance(line, str) else f'No report: {line[MISSING]}'


def finished(
  workdir: pathlib.Path, experiment: Experiment | None = None
) -> str:
  """Writes the report of a run that is finished, unless there is one.

  Args:
    workdir: see `write`.
    experiment: likewise.

  Returns:
    See `written`.
  """
  path = workdir / NAME
  return f'Report: {path}' if path.exists() else written(workdir, experiment)
