"""Finished runs that several test files look at; each is trained once."""

import atexit
import functools
import pathlib
import shutil
import tempfile

import tiny

from jaxkd.runs.run import Run

DATA = dict(data__settings__test_size=60)


@functools.cache
def folder() -> pathlib.Path:
  """Returns a folder that is removed when the process ends."""
  path = pathlib.Path(tempfile.mkdtemp(prefix='jaxkd-'))
  atexit.register(shutil.rmtree, path, ignore_errors=True)
  return path


@functools.cache
def run(method: str) -> pathlib.Path:
  """Returns a finished run of a method, to be read only.

  Its student is an MLP of half the width, and so is its teacher, if it has one,
  of the full width.
  """
  experiment = tiny.experiment(
    epochs=1,
    student__width=0.5,
    cache=str(folder() / 'cache'),
    method=dict(name=method),
    **DATA,
  )
  Run(experiment, folder() / method).finish()
  return folder() / method
