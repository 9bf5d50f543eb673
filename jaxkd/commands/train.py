"""Training: a run or a study, from its config to its results."""

import pathlib
from typing import Any

from jaxkd.config import Config
from jaxkd.runs import layout
from jaxkd.runs.experiment import build
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
  _name_report(workdir)


def _run_study(config: Config, workdir: pathlib.Path) -> None:
  study = Study(config, workdir)
  summary = _finish(study, 'study')
  print(study.report(summary))
  picture = study.draw(summary)
  if picture:
    print(f'\nOutcome by {config.study.against}: {picture}')
  _name_report(workdir)


def _name_report(workdir: pathlib.Path) -> None:
  """Prints where the report is, if there is one."""
  path = workdir / layout.REPORT
  if path.exists():
    print(f'\nReport: {path}')


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
