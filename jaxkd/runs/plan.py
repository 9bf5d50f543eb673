"""What is left of a run: the phases that will be trained, and their cost."""

import pathlib
from collections.abc import Callable, Mapping

from jaxkd import checkpoints
from jaxkd.runs import layout
from jaxkd.runs.cache import Cache, settings_of
from jaxkd.runs.experiment import Experiment
from jaxkd.training.progress import Forecast, Part

Announce = Callable[[str], object]  # gets what a run will do, as text


def done(
  experiment: Experiment, workdir: pathlib.Path, cache: Cache
) -> dict[str, str]:
  """Returns the phases that will not be trained, with the reason.

  Args:
    experiment: of the run.
    workdir: its folder.
    cache: of reusable networks.
  """
  reasons = {}
  for phase in experiment.phases:
    if layout.phase(workdir, phase.name).exists():
      reasons[phase.name] = 'finished'
    elif phase.prepares and not (workdir / 'checkpoints' / phase.name).exists():
      if checkpoints.kind_of(cache.path(settings_of(experiment, phase))):
        reasons[phase.name] = 'trained before, from the cache'
  return reasons


def forecast(
  experiment: Experiment,
  done: Mapping[str, str],
  later: Callable[[float], float] | None,
) -> Forecast:
  """Returns the forecast of a run's time.

  Args:
    experiment: of the run.
    done: see `done`.
    later: see `Forecast`.
  """
  train, test = len(experiment.dataset.train), len(experiment.dataset.test)
  parts = [
    Part(
      phase.name,
      0 if phase.name in done else phase.epochs,
      phase.steps(train),
      cost=float(max(1, phase.flops.training * train)),
      test_cost=float(max(1, phase.flops.testing * test)),
    )
    for phase in experiment.phases
  ]
  return Forecast(parts, later)
