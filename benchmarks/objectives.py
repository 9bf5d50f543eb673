r"""Times a training step by each objective of the catalogue beside KD's.

  python -m benchmarks.objectives --pair=resnet32x4:resnet8x4 --only=at,crd

A step is a whole training step: augmentation, the teacher, the student, cross-
entropy and the objective from the teacher, the optimizer. `simkd`, whose
student ends in the teacher's classifier, is the method of that name. All cases
take turns, call by call, and a case is compared with KD's call of the same
round. An objective that uses no output of the teacher costs less than KD, since
unused outputs are not computed.

The teacher's arrays exist once, and are passed to the case whose turn it is.
"""

import argparse
import functools
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax

from benchmarks.run import (
  Sizes,
  Steps,
  by_objective,
  last_task,
  measure,
  positive,
  sizes_of,
)
from jaxkd import objectives
from jaxkd.catalog import lookup
from jaxkd.text import table
from jaxkd.training import mesh as meshes
from jaxkd.training import state as states
from jaxkd.training.initial import initial_key
from jaxkd.training.phase import Task, feed_of
from jaxkd.types import Variables

BASE = 'kd'
ROUNDS = 7
CLOCKS = {'wall': time.perf_counter, 'cpu': time.process_time}

# The objectives that `distil` is not used for.
METHODS = {'kd': dict(name='kd'), 'simkd': dict(name='simkd')}


def method(name: str, num_classes: int) -> dict[str, Any]:
  """Returns the method that distils by an objective, with its arguments.

  Args:
    name: of the objective.
    num_classes: K.

  Raises:
    KeyError: no such objective, with suggestions.
  """
  lookup('objective', objectives.CATALOG, name)
  return METHODS.get(name) or by_objective(name, num_classes)


class Guided(Steps):
  """Steps by one objective, with frozen networks that all cases share."""

  def __init__(
    self, task: Task, sizes: Sizes, lent: dict[str, Variables], bank: int
  ):
    """Prepares the steps; nothing is compiled.

    Args:
      task: to be timed.
      sizes: of data and batches.
      lent: variables of the frozen networks, one dict for all cases. A step
        donates its arrays, so those that it returns replace them.
      bank: examples in the objectives' memories.
    """
    self._task, self._lent, self._bank = task, lent, bank
    super().__init__(feed_of(task, sizes.chunk), self._begin)

  def compile(self) -> None:
    """Initialises the state, compiles the step and times the compilation."""
    super().compile()
    self._give_back()

  def call(self) -> int:
    """Runs one call to completion; returns the number of steps."""
    params = {name: x['params'] for name, x in self._lent.items()}
    stats = {name: x['batch_stats'] for name, x in self._lent.items()}
    self.state = self.state._replace(
      params=self.state.params | params, stats=self.state.stats | stats
    )
    steps = super().call()
    self._give_back()
    return steps

  def _begin(self) -> states.State:
    task = self._task

    @functools.partial(jax.jit, out_shardings=meshes.whole(task.mesh))
    def init(key, frozen):
      args = (task.program, task.optimizer, key, frozen)
      return states.init(*args, examples=self._bank)

    return init(initial_key(task.seed), self._lent)

  def _give_back(self) -> None:
    state = self.state
    self._lent |= {
      name: {'params': state.params[name], 'batch_stats': state.stats[name]}
      for name in self._lent
    }
    self.state = state._replace(
      params={k: x for k, x in state.params.items() if k not in self._lent},
      stats={k: x for k, x in state.stats.items() if k not in self._lent},
    )


def cases_of(
  pair: str, names: list[str], sizes: Sizes, bank: int
) -> dict[str, Guided]:
  """Returns compiled steps by name of the objective, KD's first.

  Args:
    pair: 'TEACHER:STUDENT', two names of models.
    names: of objectives.
    sizes: of data and batches.
    bank: examples in the objectives' memories.

  Raises:
    KeyError: no such objective or model, with suggestions.
    ValueError: a pair that is not a pair; an objective that is not defined for
      it.
  """
  tasks = {
    name: last_task(pair, method(name, sizes.num_classes), sizes)
    for name in dict.fromkeys([BASE, *names])
  }
  base = tasks[BASE]
  teacher = functools.partial(base.program.init_network, 'teacher')
  teacher = jax.jit(teacher, out_shardings=meshes.whole(base.mesh))
  lent = {'teacher': teacher(initial_key(base.seed))}
  cases = {}
  for name, task in tasks.items():
    shape, classes = task.program.input_shape, task.dataset.num_classes
    spec = task.problem.batch_spec(shape, 2, classes)
    task.program.check_objectives(spec, task.length)
    cases[name] = Guided(task, sizes, lent, bank)
  for case in cases.values():
    case.compile()
  return cases


def report(
  times: dict[str, list[float]],
  compile_seconds: dict[str, float],
  temporary: dict[str, int],
) -> str:
  """Returns a row for each objective, the most expensive first.

  Args:
    times: by objective, milliseconds of a step in each round; KD's first.
    compile_seconds: by objective.
    temporary: by objective, bytes on each device that the step needs beside
      its state.
  """
  base = times[BASE]
  ratios = {
    name: sorted(x / y for x, y in zip(own, base, strict=True))
    for name, own in times.items()
  }
  middle = {name: statistics.median(x) for name, x in ratios.items()}
  rows = [
    ('objective', 'ms', 'x kd', 'of rounds', 'temporary, MiB', 'compile, s')
  ]
  rows += [
    (
      name,
      f'{statistics.median(times[name]):.1f}',
      f'{middle[name]:.2f}',
      f'{ratios[name][0]:.2f} to {ratios[name][-1]:.2f}',
      f'{temporary[name] / 2**20:.1f}',
      f'{compile_seconds[name]:.1f}',
    )
    for name in sorted(times, key=middle.__getitem__, reverse=True)
  ]
  return table(rows, right=tuple(range(1, len(rows[0]))))


def parse(argv: list[str] | None = None) -> argparse.Namespace:
  """Returns the parsed arguments; None parses those of the process."""
  parser = argparse.ArgumentParser(
    prog='python -m benchmarks.objectives',
    description='Times a step by each objective beside one by KD.',
    allow_abbrev=False,
  )
  add = parser.add_argument
  add('--pair', default='resnet32x4:resnet8x4', metavar='TEACHER:STUDENT')
  add('--only', default='', metavar='NAME,NAME', help='by default all')
  add('--batch', type=positive, default=64)
  add('--rounds', type=positive, default=ROUNDS, help='calls of each case')
  add('--bank', type=positive, default=50_000, help='examples in memories')
  add('--image_size', type=positive, default=32)
  add('--num_classes', type=positive, default=100)
  add(
    '--clock',
    choices=CLOCKS,
    default='wall',
    help="'cpu' counts the time of all cores; steadier on a busy machine",
  )
  return parser.parse_args(argv)


def main(arguments: argparse.Namespace) -> None:
  """Runs the command."""
  names = arguments.only.split(',') if arguments.only else objectives.CATALOG
  sizes = sizes_of(arguments)
  cases = cases_of(arguments.pair, list(names), sizes, arguments.bank)
  clock: Callable[[], float] = CLOCKS[arguments.clock]
  times = measure(list(cases.values()), arguments.rounds, clock)
  print(
    report(
      dict(zip(cases, times, strict=True)),
      {name: case.compile_seconds for name, case in cases.items()},
      {name: case.memory()['temporary'] for name, case in cases.items()},
    )
  )
  print(
    f'\n{arguments.pair}, batches of {sizes.batch}, {arguments.rounds} rounds,'
    f' {arguments.clock} time, on {jax.device_count()} x'
    f' {jax.devices()[0].device_kind}, jax {jax.__version__}'
  )


if __name__ == '__main__':
  arguments = parse()
  meshes.use_cores(arguments.batch)
  try:
    main(arguments)
  except (KeyError, ValueError) as error:
    sys.exit(f'benchmarks: {error}')
