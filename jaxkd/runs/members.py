"""The runs of a study: which there are, and what they have results of."""

import json
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

from jaxkd import config as configs
from jaxkd.config import Config
from jaxkd.problems import Display
from jaxkd.runs.experiment import Experiment

# Settings that may differ between seeds that are trained together.
TOGETHER = (
  'seed',
  'teacher.seed',
  'data.settings.seed',
  'data.hold_out_seed',
)


class Member(NamedTuple):
  """A run of a study.

  recipe: its name.
  seed: as in `study.seeds`.
  config: of the run.
  folder: where it is run.
  prepared: phase -> a key that is the same for all runs that share the network
    which the phase prepares, see `cache.prepared`.
  """

  recipe: str
  seed: int
  config: Config
  folder: pathlib.Path
  prepared: Mapping[str, str]


def check_seeds(name: str, runs: list[Experiment], together: bool) -> None:
  """Checks that seeds are different runs, which can be trained together.

  Args:
    name: of the recipe.
    runs: of its seeds.
    together: whether they are to be trained together.

  Raises:
    ValueError: two seeds are one run; settings that must not differ do.
  """
  identities = set()
  for run in runs:
    seeds = [phase.seed for phase in run.phases]
    identity = json.dumps([seeds, configs.resolved(run.config)['data']])
    if identity in identities:
      raise ValueError(
        f'recipe {name!r} has one run for several seeds: they are equal, or no'
        ' setting in study.vary makes a difference. (A run that only trains a'
        ' teacher is seeded by teacher.seed)'
      )
    identities.add(identity)
  first, *others = (configs.resolved(run.config) for run in runs)
  for other in others if together else []:
    for line in configs.differing(first, other):
      if line.partition(':')[0] not in TOGETHER:
        raise ValueError(
          'seeds that are trained together must differ in nothing but'
          f' {", ".join(TOGETHER)}; recipe {name!r} has {line}'
        )


def names(
  experiment: Experiment, together: bool
) -> tuple[set[str], dict[str, Display]]:
  """Returns the networks and the metrics that a run has results of.

  Args:
    experiment: of the run.
    together: whether its seeds are trained together.
  """
  problem = experiment.source.problem
  networks: set[str] = set()
  for phase in experiment.phases:
    networks |= set(phase.graph.networks)
    if phase.ema:
      networks |= {f'{name}_ema' for name in phase.graph.trained}
  if not together:
    return networks, problem.reported
  shown = dict(problem.displays)
  square = shown.get('posterior_square')
  train = {**shown, **({'frobenius': square} if square else {})}
  metrics = shown | {f'train_{key}': value for key, value in train.items()}
  best = {f'{name}_best' for name in networks}
  return networks | best | {'target'}, metrics
