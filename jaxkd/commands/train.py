"""Training: a run or a study, from its config to its results."""

import pathlib
from typing import Any

from jaxkd import reports
from jaxkd.config import Config
from jaxkd.runs import layout
from jaxkd.runs.experiment import Experiment, build
from jaxkd.runs.lock import LockedError
from jaxkd.runs.results import result_table
from jaxkd.runs.run import Run
from jaxkd.runs.study import Study, is_study


def run(config: Config, workdir: pathlib.Path) -> None:
  """Runs or resumes a run, or a study, and prints its results.

  Args:
    config: checked.
    workdir: the folder of the run or the study.
  """
  if is_study(config):
    _run_study(config, workdir)
  else:
    _run_one(config, workdir)


def _run_one(config: Config, workdir: pathlib.Path) -> None:
  run = Run(build(config), workdir)
  summary = _finish(run, 'run')
  print(result_table(summary))
  picture = run.draw()
  if picture:
    print(f'\nAccuracy, loss and gap by epoch: {picture}')
  print(reports.finished(workdir, run.experiment))


def _run_study(config: Config, workdir: pathlib.Path) -> None:
  study = Study(config, workdir, after_run=_report_run)
  try:
    summary = _finish(study, 'study')
  except LockedError:
    raise
  except Exception as error:
    reports.written(workdir, failure=str(error))
    raise
  print(study.report(summary))
  picture = study.draw(summary)
  if picture:
    print(f'\nOutcome by {config.study.against}: {picture}')
  print(reports.written(workdir))


def _report_run(workdir: pathlib.Path, experiment: Experiment | None) -> None:
  """Writes the report of a study's run; prints only why there is none."""
  line = reports.finished(workdir, experiment)
  if not (workdir / reports.NAME).exists():
    print(line)


def _finish(job: Run | Study, kind: str) -> dict[str, Any]:
  """Runs or resumes a job, prints where its results are, and returns them.

  Args:
    job: to be run or resumed.
    kind: 'run' or 'study', for the message.
  """
  summary, path = job.summary, job.workdir / layout.SUMMARY
  if summary:
    print(f'This {kind} is finished: {path}\n')
  else:
    summary = job.finish(announce=lambda text: print(f'{text}\n', flush=True))
    print(f'\nFinished. Results: {path}\n')
  return summary
