"""Distillation and training in one call, by the engine of the command line."""

import copy
import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from jaxkd import config as configs
from jaxkd import disk, reports
from jaxkd.api import settings
from jaxkd.api.results import Result
from jaxkd.config import Config
from jaxkd.runs import programs
from jaxkd.runs.experiment import Experiment, Source, build
from jaxkd.runs.run import Run
from jaxkd.training.loop import Callback
from jaxkd.training.progress import say


def distill(
  teacher: Any,
  student: Any,
  data: Any,
  method: str | Mapping[str, Any] = 'kd',
  *,
  epochs: int | None = None,
  batch_size: int | None = None,
  seed: int | None = None,
  workdir: str | os.PathLike[str] | None = None,
  config: Config | None = None,
  callbacks: Sequence[Callback] = (),
  **others: Any,
) -> Result:
  """Trains a student that a teacher guides, or resumes its training.

  It is the run that the command line makes of `result.config`.

  Args:
    teacher: the name of an architecture, which is trained first (or taken from
      the cache); a checkpoint, as a path of a run or a file; a network of an
      earlier result; a Linen module with its variables, as a pair; or settings
      of the config's section `teacher`, as a mapping.
    student: likewise; a module alone starts at random.
    data: a data set's name, such as 'cifar100' or 'folder:my_images'; images
      and labels, as a pair of arrays, or a pair of such pairs for training and
      test, see `jaxkd.data.arrays`; a `jaxkd.data.Dataset`; or settings of the
      section `data`.
    method: its name, or its name and arguments, like {'name': 'distil',
      'objective': 'dkd'}.
    epochs: of the student's training.
    batch_size: images of a step, over all devices.
    seed: of the run.
    workdir: the folder of the run; a new temporary one by default. A folder
      with an interrupted run of the same settings is resumed.
    config: to start from; by default that of the CIFAR-100 benchmark.
    callbacks: called after each epoch with an `Epoch`; one that returns True
      ends the phase.
    **others: further sections and settings of the config, such as
      optimizer={'learning_rate': 0.1}.

  Raises:
    KeyError: an unknown name, with suggestions.
    ValueError: a setting that does not fit; a folder of another run.
  """
  others |= {'epochs': epochs, 'batch_size': batch_size, 'seed': seed}
  experiment = experiment_of(
    teacher, student, data, method, config=config, **others
  )
  return _finish(experiment, workdir, callbacks)


def train(
  network: Any,
  data: Any,
  *,
  workdir: str | os.PathLike[str] | None = None,
  callbacks: Sequence[Callback] = (),
  **others: Any,
) -> Result:
  """Trains a network from labels alone, without a teacher.

  The result calls it `student`.

  Args:
    network: see `distill`, as the other arguments.
    data: to train and to test on.
    workdir: the folder of the run.
    callbacks: called after each epoch.
    **others: further arguments of `distill`.

  Raises:
    KeyError: an unknown name, with suggestions.
    ValueError: a setting that does not fit; a folder of another run.
  """
  others = {'method': 'plain', **others}
  return distill(
    None, network, data, workdir=workdir, callbacks=callbacks, **others
  )


def experiment_of(
  teacher: Any,
  student: Any,
  data: Any,
  method: str | Mapping[str, Any] = 'kd',
  *,
  config: Config | None = None,
  **others: Any,
) -> Experiment:
  """Returns what `distill` with these arguments would run.

  Its `describe()` is a text, and nothing is computed.

  Args:
    teacher: see `distill`, as the other arguments; None leaves the section of
      the config as it is.
    student: the network that learns.
    data: to train and to test on.
    method: its name, or its name and arguments.
    config: to start from.
    **others: further sections and settings; None leaves a setting as it is.
  """
  settled: Config = copy.deepcopy(config) if config else configs.default()
  changes, dataset = settings.data(data)
  settings.put(settled, 'data', changes)
  source = Source(settled.data, dataset)
  networks = {'teacher': teacher, 'student': student}
  settings.apply(settled, networks, method, source, others)
  return build(settled, source)


def _finish(
  experiment: Experiment,
  workdir: str | os.PathLike[str] | None,
  callbacks: Sequence[Callback],
) -> Result:
  """Runs or resumes an experiment, and returns its result."""
  if workdir is None:
    workdir = tempfile.mkdtemp(prefix='jaxkd-')
  programs.keep(experiment.config.cache)
  run = Run(experiment, disk.expanded(workdir), callbacks)
  if run.summary is None:
    run.finish()
  line = reports.finished(run.workdir, run.experiment)
  if not (run.workdir / reports.NAME).exists():
    say(line)  # why there is none
  return Result(workdir, experiment.source.loaded)
