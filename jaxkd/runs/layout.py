"""The layout of a run's folder."""

import os
import pathlib

from jaxkd import disk
from jaxkd.disk import NETWORKS

CONFIG = 'config.json'
SUMMARY = 'summary.json'  # exists when the run is finished
REPORT = 'report.html'  # for people, with all results


def is_run(workdir: pathlib.Path) -> bool:
  """Returns whether a folder holds a run or a study.

  A folder of the Hugging Face hub has a file of the same name, but is a network
  itself.
  """
  # Imported here, since `jaxkd doctor` also works where JAX does not.
  from jaxkd import checkpoints

  return (workdir / CONFIG).exists() and not checkpoints.kind_of(workdir)


def network(workdir: pathlib.Path, name: str) -> pathlib.Path:
  """Returns the folder of a trained network."""
  return workdir / NETWORKS / name


def phase(workdir: pathlib.Path, name: str) -> pathlib.Path:
  """Returns the file that marks a phase as finished."""
  folder = workdir / 'stages'  # as version 0.1 called phases
  if not folder.exists():
    folder = workdir / 'phases'
  return folder / f'{name}.json'


def cache_folder(folder: str | os.PathLike[str] | None = None) -> pathlib.Path:
  """Returns the folder of everything that runs share.

  Args:
    folder: None or '' takes $JAXKD_CACHE, or else ~/.cache/jaxkd.
  """
  value = os.fspath(folder or '')
  return disk.folder_of(value, 'JAXKD_CACHE', '~/.cache/jaxkd', 'cache')
