r"""Times training steps with a live teacher, a view cache, and stored outputs.

  python -m benchmarks.outputs --pair=resnet32x4:resnet8x4 --method=kd

The cases take turns, an epoch of few steps at a time: the teacher runs in the
step; its outputs are computed and written to an empty view cache; they are all
in the cache, in memory, on the devices or on disk; they are read from stored
outputs. Times are those of the processors, so that other load on the machine
counts less. See `benchmarks.run` for data and networks.
"""

import argparse
import dataclasses
import functools
import itertools
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator

import numpy as np

from benchmarks import run
from jaxkd.stores import Header, Rows, create
from jaxkd.text import table
from jaxkd.training import mesh as meshes
from jaxkd.training import state as states
from jaxkd.training.feed import Call, Feed
from jaxkd.training.phase import Task, feed_of
from jaxkd.training.precomputed import Caching, Source, data_entries

TEACHER = 'teacher'


class Steps(run.Steps):
  """Epochs of a feed, or its first epoch again and again.

  Args:
    feed: batches for a step.
    task: of the feed.
    chunk: steps of a call.
    again: whether all steps are those of the first epoch.
  """

  def __init__(self, feed: Feed, task: Task, chunk: int, again: bool = False):
    self._again, self._chunk, self._calls_of_epoch = again, chunk, 0
    super().__init__(feed, functools.partial(run.start, task))

  def call(self) -> int:
    """Runs an epoch to its end; returns the number of steps.

    What a cache lacks is computed at the beginning of an epoch.
    """
    return sum(super(Steps, self).call() for _ in range(self._calls_of_epoch))

  def compile(self) -> None:
    """See `benchmarks.run.Steps`."""
    super().compile()
    self._calls_of_epoch = self._feed.steps_per_epoch // self._chunk

  def _endless(self) -> Iterator[Call]:
    for epoch in itertools.count():
      yield from self._feed.calls(0 if self._again else epoch, 0)


def cases(
  pair: str, method: str, sizes: run.Sizes, folder: pathlib.Path, dtype: str
) -> dict[str, Steps]:
  """Returns the cases by name.

  Args:
    pair: 'TEACHER:STUDENT', two names of models.
    method: by logits of the teacher.
    sizes: of data and batches.
    folder: of the files.
    dtype: of stored logits.
  """
  live = run.last_task(pair, method, sizes)
  program = dataclasses.replace(live.program, precomputed={TEACHER: ()})
  state = run.start(live)
  initial = {TEACHER: states.variables_of(live.program, state)[TEACHER]}

  def precomputed(source: Source) -> Task:
    return dataclasses.replace(live, program=program, sources={TEACHER: source})

  def steps(task: Task, again: bool = False) -> Steps:
    feed = feed_of(task, sizes.chunk, initial)
    return Steps(feed, task, sizes.chunk, again)

  def cached(mode: str) -> Task:
    return precomputed(Source(cache=Caching(mode, folder / mode, dtype)))

  return {
    'live teacher': steps(live),
    'empty cache': steps(cached('host')),
    'full, in memory': steps(cached('host'), again=True),
    'full, on the devices': steps(cached('device'), again=True),
    'full, on disk': steps(cached('disk'), again=True),
    'stored outputs': steps(
      precomputed(_stored(live, folder / 'stored', sizes, dtype))
    ),
  }


def _stored(
  task: Task, path: pathlib.Path, sizes: run.Sizes, dtype: str
) -> Source:
  """Returns stored outputs, whose values do not matter for the time."""
  examples, source = len(task.dataset.train), Source()
  store = create(
    path,
    Header(
      rows=Rows((sizes.num_classes,), dtype),
      slots=1,
      examples=examples,
      data=data_entries(task.dataset, source),
      views={'seed': 0, 'count': 1},
      network={},
      card={},
    ),
  )
  logits = np.random.default_rng(0).normal(size=(examples, sizes.num_classes))
  store.write(0, np.arange(examples), logits.astype(np.float32))
  return dataclasses.replace(source, store=store)


def main(arguments: argparse.Namespace) -> int:
  """Runs the command; returns its exit status."""
  sizes = run.sizes_of(arguments)
  with tempfile.TemporaryDirectory() as folder:
    named = cases(
      arguments.pair,
      arguments.method,
      sizes,
      pathlib.Path(folder),
      arguments.dtype,
    )
    for case in named.values():
      case.compile()
    times = run.measure(
      [*named.values()], run.calls_of(arguments), time.process_time
    )
  medians = [statistics.median(each) for each in times]
  rows: list[tuple[str, ...]] = [('case', 'CPU ms/step', 'min', 'max', 'ratio')]
  for name, median, each in zip(named, medians, times, strict=True):
    numbers = median, min(each), max(each)
    cells = (f'{x:.1f}' for x in numbers)
    rows.append((name, *cells, f'{median / medians[0]:.2f}'))
  print(table(rows, right=(1, 2, 3, 4)))
  return 0


def parse(argv: list[str] | None = None) -> argparse.Namespace:
  """Returns the parsed arguments; None parses those of the process."""
  parser = argparse.ArgumentParser(
    prog='python -m benchmarks.outputs',
    description='Times steps with a live teacher and with its outputs on disk.',
    allow_abbrev=False,
  )
  run.add_arguments(parser)
  parser.add_argument('--dtype', default='float32', help='of stored logits')
  return parser.parse_args(argv)


if __name__ == '__main__':
  parsed = parse()
  meshes.use_cores(parsed.batch)
  sys.exit(main(parsed))
