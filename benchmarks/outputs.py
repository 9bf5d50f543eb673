r"""Times training steps with a live teacher, a view cache, and stored outputs.

  python -m benchmarks.outputs --pair=resnet32x4:resnet8x4 --method=kd

Four cases take turns: the teacher runs in the step; its outputs are computed
and written to an empty view cache; they are all in the cache; they are read
from stored outputs. Times are those of the processors, so that other load on
the machine counts less. See `benchmarks.run` for data and networks.
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
from jaxkd.training.precomputed import Source, data_entries

TEACHER = 'teacher'


class Steps(run.Steps):
  """Steps over the epochs of a feed, or over its first epoch again and again.

  Args:
    feed: batches for a step.
    task: of the feed.
    again: whether all steps are those of the first epoch.
  """

  def __init__(self, feed: Feed, task: Task, again: bool = False):
    self._again = again
    super().__init__(feed, functools.partial(run.start, task))

  def _endless(self) -> Iterator[Call]:
    for epoch in itertools.count():
      yield from self._feed.calls(0 if self._again else epoch, 0)


def cases(
  pair: str, method: str, sizes: run.Sizes, folder: pathlib.Path, dtype: str
) -> dict[str, Steps]:
  """Returns the four cases by name.

  Args:
    pair: 'TEACHER:STUDENT', two names of models.
    method: by logits of the teacher.
    sizes: of data and batches.
    folder: of the files.
    dtype: of stored logits.
  """
  live = run.last_task(pair, method, sizes)
  names = frozenset({TEACHER})
  program = dataclasses.replace(live.program, precomputed=names)
  state = run.start(live)
  initial = {TEACHER: states.variables_of(live.program, state)[TEACHER]}

  def precomputed(source: Source) -> Task:
    return dataclasses.replace(live, program=program, sources={TEACHER: source})

  caches = [
    precomputed(Source(cache=folder / name, dtype=dtype))
    for name in ('empty', 'full')
  ]
  stored = precomputed(_stored(live, folder / 'stored', sizes, dtype))
  empty, full = (feed_of(task, sizes.chunk, initial) for task in caches)
  return {
    'live teacher': Steps(feed_of(live, sizes.chunk), live),
    'empty cache': Steps(empty, caches[0]),
    'full cache': Steps(full, caches[1], again=True),
    'stored outputs': Steps(feed_of(stored, sizes.chunk), stored),
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
  parser.add_argument('--dtype', default='float16', help='of stored logits')
  return parser.parse_args(argv)


if __name__ == '__main__':
  parsed = parse()
  meshes.use_cores(parsed.batch)
  sys.exit(main(parsed))
