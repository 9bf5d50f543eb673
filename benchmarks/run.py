r"""Times the real training step: augmentation, teacher, student, update.

  python -m benchmarks.run --pair=resnet32x4:resnet8x4 --method=kd --batch=64 \
    --against=resnet32x4:resnet8x4/plain --json

Data are synthetic and frozen networks random, which affects no shapes and hence
not the time. For a method with several phases, the last one is timed. Cases
that are compared take turns, call by call, so that other load on the machine
affects all of them alike. On accelerators a call is a chunk of steps, as in
training.
"""

import argparse
import dataclasses
import functools
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax

from jaxkd import config as configs
from jaxkd import methods, models, objectives
from jaxkd.catalog import lookup
from jaxkd.runs.experiment import bound
from jaxkd.text import table
from jaxkd.training import mesh as meshes
from jaxkd.training import state as states
from jaxkd.training.feed import CHUNK, Call, Feed
from jaxkd.training.initial import initial_key
from jaxkd.training.phase import Task, feed_of
from jaxkd.types import Array

CALLS = 20  # default number of timed calls of each case
PEER = '--peer'  # the flag that selects `benchmarks.peers`
WARM_UP = 2  # calls before the first timed one


@dataclasses.dataclass(frozen=True)
class Sizes:
  """The sizes of batches and data, the same for all cases.

  batch: examples per step.
  image_size: height and width.
  num_classes: K.
  chunk: steps per call.
  """

  batch: int
  image_size: int
  num_classes: int
  chunk: int


class Timed(Protocol):
  """Something that `measure` can time."""

  def call(self) -> int:
    """Runs one call to completion; returns the number of steps."""
    ...


class Steps:
  """Steps over a feed, for timing.

  compile_seconds: time of tracing and compilation.
  metrics: of the last call.
  """

  def __init__(self, feed: Feed, start: Callable[[], Any]):
    """Prepares the steps; nothing is compiled.

    Args:
      feed: batches for a step.
      start: returns the initial state of the step.
    """
    self.compile_seconds, self.metrics = 0.0, {}
    self._feed, self._start = feed, start
    self._calls = self._endless()

  def compile(self) -> None:
    """Initialises the state, and compiles the step and times that."""
    self.state = self._start()
    jax.block_until_ready(self.state)
    start = time.perf_counter()
    self._feed.compile(self.state)
    self.compile_seconds = time.perf_counter() - start

  def memory(self) -> dict[str, int]:
    """Returns the memory of the compiled step; see `Feed.memory`."""
    return self._feed.memory()

  def call(self) -> int:
    """Runs one call to completion; returns the number of steps."""
    call = next(self._calls)
    self.state, self.metrics = call.run(self.state)
    jax.block_until_ready((self.state, self.metrics))
    return call.steps

  def _endless(self) -> Iterator[Call]:
    for epoch in itertools.count():
      yield from self._feed.calls(epoch, 0)


class Case(Steps):
  """The training of one pair of models by one method."""

  def __init__(
    self,
    pair: str,
    method: str,
    sizes: Sizes,
    branches: int = 1,
    dtype: str = 'float32',
  ):
    """Prepares the steps; nothing is compiled.

    Args:
      pair: 'TEACHER:STUDENT', two names of models.
      method: the name of a method, or of an objective.
      sizes: of data and batches.
      branches: number of branches of the student's convolutions.
      dtype: compute type of the networks.

    Raises:
      KeyError: an unknown model or method, with suggestions.
      ValueError: a malformed pair, or impossible sizes.
    """
    self.pair, self.method, self.sizes = pair, method, sizes
    task = last_task(pair, method, sizes, branches, dtype)
    super().__init__(feed_of(task, sizes.chunk), functools.partial(start, task))

  @property
  def name(self) -> str:
    """'TEACHER:STUDENT/METHOD', as an argument of --against."""
    return f'{self.pair}/{self.method}'


def last_task(
  pair: str,
  method: str | Mapping[str, Any],
  sizes: Sizes,
  branches: int = 1,
  dtype: str = 'float32',
  settings: Mapping[str, Any] | None = None,
) -> Task:
  """Returns the task of the last phase of a method, on all devices.

  Args:
    pair: 'TEACHER:STUDENT', two names of models.
    method: its name or that of an objective, or a mapping of 'name' and
      arguments.
    sizes: of data and batches.
    branches: number of branches of the student's convolutions.
    dtype: compute type of the networks.
    settings: others of the config, by name with dots.
  """
  teacher, colon, student = pair.partition(':')
  if not colon:
    raise ValueError(
      f'--pair must be TEACHER:STUDENT, got {pair!r}: use for example'
      f' resnet32x4:resnet8x4'
    )
  for name in (teacher, student):  # even if the method uses only one of them
    lookup('model', models.CATALOG, name)
  examples = sizes.batch * sizes.chunk  # of a call
  config = configs.default()
  config.batch_size = sizes.batch
  config.compute_dtype = dtype
  config.teacher.name = teacher
  config.student.name = student
  config.student.branches = branches
  if isinstance(method, str):
    method = method_of(method, sizes.num_classes)
  config.method = method
  config.data.name = 'synthetic'
  config.data.image_size = sizes.image_size
  config.data.settings = dict(
    num_classes=sizes.num_classes,
    # An epoch is a whole number of calls and contains all classes.
    train_size=examples * -(-sizes.num_classes // examples),
    test_size=1,
  )
  config.update_from_flattened_dict(settings or {})
  experiment = bound(config)
  meshes.check_batch_size(meshes.make_mesh(), sizes.batch)
  return experiment.phases[-1].task(experiment.dataset)


def method_of(name: str, num_classes: int) -> dict[str, Any]:
  """Returns a method by its name, or the one that distils by an objective.

  Args:
    name: of a method, or of an objective.
    num_classes: K.
  """
  if name in methods.CATALOG or name not in objectives.CATALOG:
    return dict(name=name)
  return by_objective(name, num_classes)


def by_objective(name: str, num_classes: int) -> dict[str, Any]:
  """Returns the method that distils by an objective, at its weight."""
  published = objectives.PUBLISHED.get(name)
  return dict(
    name='distil',
    objective=objectives.example(name, num_classes),
    guide_weight=published.weight if published else 1.0,
  )


def start(task: Task) -> states.State:
  """Returns the state before the first step, with random frozen networks."""

  init = jax.jit(
    functools.partial(initial_state, task),
    out_shardings=meshes.whole(task.mesh),
  )
  return init(initial_key(task.seed))


def initial_state(task: Task, key: Array) -> states.State:
  """Returns this state; to be jitted."""
  frozen = {
    name: task.program.init_network(name, key)
    for name in task.program.graph.frozen
  }
  return states.init(
    task.program,
    task.optimizer,
    key,
    frozen,
    examples=len(task.dataset.train),
  )


def measure(
  cases: Sequence[Timed],
  calls: int,
  clock: Callable[[], float] = time.perf_counter,
  warm_up: int = WARM_UP,
) -> list[list[float]]:
  """Returns the milliseconds per step, for each case and call.

  Args:
    cases: which take turns.
    calls: number of timed calls of each case.
    clock: returns seconds.
    warm_up: number of calls of each case before the first timed one.
  """
  for _, case in itertools.product(range(warm_up), cases):
    case.call()
  milliseconds = [[] for _ in cases]
  for _ in range(calls):
    for case, times in zip(cases, milliseconds, strict=True):
      start = clock()
      steps = case.call()
      times.append(1e3 * (clock() - start) / steps)
  return milliseconds


def result(case: Case, milliseconds: list[float]) -> dict[str, Any]:
  """Returns the results of a case, as in the JSON output."""
  median = statistics.median(milliseconds)
  return {
    'ms_per_step': median,
    'min_ms_per_step': min(milliseconds),
    'max_ms_per_step': max(milliseconds),
    'images_per_second': 1e3 * case.sizes.batch / median,
    'compile_seconds': case.compile_seconds,
    'pair': case.pair,
    'method': case.method,
    'batch': case.sizes.batch,
    'steps': len(milliseconds) * case.sizes.chunk,
    'image_size': case.sizes.image_size,
    'num_classes': case.sizes.num_classes,
    'device': jax.devices()[0].device_kind,
    'devices': jax.device_count(),
    'jax': jax.__version__,
  }


def results_table(results: list[dict[str, Any]]) -> str:
  """Returns a table with a row per case; the last column compares medians."""
  head = ('case', 'ms/step', 'min', 'max', 'images/s', 'compile', 'ratio')
  rows: list[tuple[str, ...]] = [head]
  for case in results:
    rows.append(
      (
        f'{case["pair"]}/{case["method"]}',
        f'{case["ms_per_step"]:.2f}',
        f'{case["min_ms_per_step"]:.2f}',
        f'{case["max_ms_per_step"]:.2f}',
        f'{case["images_per_second"]:.0f}',
        f'{case["compile_seconds"]:.1f} s',
        f'{case["ms_per_step"] / results[0]["ms_per_step"]:.2f}',
      )
    )
  return table(rows, right=tuple(range(1, len(head))))


def positive(text: str) -> int:
  number = int(text)
  if number < 1:
    raise ValueError(f'{number} is below 1')
  return number


def parse(argv: list[str] | None = None) -> argparse.Namespace:
  """Returns the parsed arguments; None parses those of the process."""
  parser = argparse.ArgumentParser(
    prog='python -m benchmarks.run',
    description='Times the real training step, compilation excluded.',
    allow_abbrev=False,
  )
  add_arguments(parser)
  parser.add_argument(
    '--against',
    action='append',
    default=[],
    metavar='TEACHER:STUDENT/METHOD',
    help='a case to compare with, timed in turns; repeatable',
  )
  parser.add_argument(
    PEER,
    action='store_true',
    help='compare with PyTorch instead, see --peer --help',
  )
  return parser.parse_args(argv)


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the arguments that define the training and its timing."""
  add = parser.add_argument
  add('--pair', required=True, metavar='TEACHER:STUDENT')
  add('--method', required=True, help="'plain' trains the student alone")
  add('--batch', type=positive, default=64)
  add('--steps', type=positive, help='timed steps of each case')
  add('--image_size', type=positive, default=32)
  add('--num_classes', type=positive, default=100)
  add('--json', action='store_true', help='end with one line of JSON')


def sizes_of(arguments: argparse.Namespace) -> Sizes:
  """Returns the sizes that a command's arguments define."""
  return Sizes(
    batch=arguments.batch,
    image_size=arguments.image_size,
    num_classes=arguments.num_classes,
    chunk=1 if jax.default_backend() == 'cpu' else CHUNK,
  )


def calls_of(arguments: argparse.Namespace) -> int:
  """Returns the number of timed calls of each case."""
  if not arguments.steps:
    return CALLS
  return -(-arguments.steps // sizes_of(arguments).chunk)


def _cases(arguments: argparse.Namespace) -> list[Case]:
  """Returns the first case and those it is compared with."""
  sizes = sizes_of(arguments)
  names = [(arguments.pair, arguments.method)]
  for case in arguments.against:
    pair, slash, method = case.rpartition('/')
    if not slash:
      raise ValueError(
        f'--against must be TEACHER:STUDENT/METHOD, got {case!r}: use for'
        f' example {arguments.pair}/plain'
      )
    names.append((pair, method))
  return [Case(pair, method, sizes) for pair, method in names]


def main(arguments: argparse.Namespace) -> int:
  """Runs the command; returns its exit status."""
  try:
    cases = _cases(arguments)
  except (KeyError, ValueError) as error:
    print(f'benchmarks: {error}', file=sys.stderr)
    return 1
  for case in cases:
    case.compile()
  calls = calls_of(arguments)
  results = [
    result(case, milliseconds)
    for case, milliseconds in zip(cases, measure(cases, calls), strict=True)
  ]
  print(results_table(results))
  print(f'\non {results[0]["devices"]} x {results[0]["device"]}')
  if arguments.json:
    all_cases = {'cases': results} if len(results) > 1 else {}
    print(json.dumps({**results[0], **all_cases}))
  return 0


if __name__ == '__main__':
  if PEER in sys.argv:
    from benchmarks import peers

    sys.exit(peers.main(peers.parse()))
  parsed = parse()
  meshes.use_cores(parsed.batch)
  sys.exit(main(parsed))
