"""Training: a run or a study, from its config to its results."""

import pathlib

from jaxkd.config import Config
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
  summary, path = run.summary, run.workdir / 'summary.json'
  if summary:
    print(f'This run is finished: {path}\n')
  else:
    summary = run.finish()
    print(f'\nFinished. Results: {path}\n')
  print(result_table(summary))
  picture = run.draw()
  if picture:
    print(f'\nAccuracy, loss and gap by epoch: {picture}')


def _run_study(config: Config, workdir: pathlib.Path) -> None:
  study = Study(config, workdir)
  summary, path = study.summary, study.workdir / 'summary.json'
  if summary:
    print(f'This study is finished: {path}\n')
  else:
    summary = study.finish()
    print(f'\nFinished. Results: {path}\n')
  print(study.report(summary))
  picture = study.draw(summary)
  if picture:
    print(f'\nOutcome by {config.study.against}: {picture}')
