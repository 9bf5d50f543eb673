r"""All that is worth knowing from a GPU that is at hand for a short time.

  python -m benchmarks.on_gpu --out=on_gpu.json --data=FOLDER_OF_CIFAR100

In this order, each part as a process of its own, within `--minutes`:

1. core tests of the suite, on the GPU;
2. training steps of kd, gpd, slkd and crd, the most important cases first, for
   their share of the time;
3. the same steps in PyTorch, if PyTorch and `benchmarks.peers` are there;
4. a KD run on CIFAR-100 of as many epochs as fit, if `--data` has it.

The file is written after each case, so that nothing is lost when the time is
up. `--dry` does the same with an MLP on small images, in about a minute on a
CPU.
"""

import argparse
import dataclasses
import functools
import importlib.util
import json
import os
import pathlib
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax

from benchmarks import run
from jaxkd import config as configs
from jaxkd.training.initial import initial_key
from jaxkd.training.phase import feed_of

PAIR = 'resnet32x4:resnet8x4'
STEPS_OF_EPOCH = 782  # of CIFAR-100 in batches of 64
# Shares of the time after which a part begins nothing new.
TESTS, STEPS, PEER = 0.2, 0.7, 0.78
CORE = (
  'tests/test_losses_distillation.py',
  'tests/test_data_augment.py',
  'tests/test_train.py',
  'tests/test_methods.py',
)
# They need four devices.
DESELECTED = 'not sharding and not four_devices and not indivisible'


@dataclasses.dataclass(frozen=True)
class Point:
  """A case of the benchmark.

  method: or an objective.
  dtype, batch, chunk: of the steps.
  at_once: batches that the frozen networks run on together; None: automatic.
  cache: the setting `teacher.cache`; '' leaves it alone.
  """

  method: str = 'kd'
  dtype: str = 'bfloat16'
  batch: int = 64
  chunk: int = 50
  at_once: int | None = None
  cache: str = ''


def points() -> list[Point]:
  """Returns all cases, the most important ones first, each once."""
  methods, dtypes = ('kd', 'gpd', 'slkd', 'crd'), ('bfloat16', 'float32')
  first = [Point(m, t) for t in dtypes for m in methods]
  switches = [Point(at_once=1), Point(cache='off'), Point(cache='device')]
  chunks = [Point(chunk=n) for n in (1, 200, 10)]
  large = [Point(m, t, 512) for t in dtypes for m in methods]
  rest = [
    Point(m, t, batch, chunk)
    for chunk in (1, 200, 10)
    for m in methods
    for t in dtypes
    for batch in (64, 512)
  ]
  return list(dict.fromkeys([*first, *switches, *chunks, *large, *rest]))


class Report:
  """The JSON file, and the time that is left."""

  def __init__(self, path: pathlib.Path, minutes: float):
    """Starts the clock."""
    self.path, self.seconds = path, 60 * minutes
    self.start = time.monotonic()
    self.parts: dict[str, Any] = {}

  def left(self, share: float = 1.0) -> float:
    """Returns the seconds until this share of the time is over."""
    return self.seconds * share - (time.monotonic() - self.start)

  def put(self, name: str, value: Any) -> None:
    """Writes a result."""
    self.parts[name] = value
    self.parts['seconds'] = time.monotonic() - self.start
    self.path.write_text(json.dumps(self.parts, indent=1) + '\n')
    print(f'{self.parts["seconds"]:.0f} s: {name}: {value}', flush=True)


def lines_of(
  command: list[str], seconds: float, **environment: str
) -> Iterator[str]:
  """Yields the lines of a process, which is killed after so many seconds."""
  with subprocess.Popen(
    command,
    env={**os.environ, **environment},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  ) as process:
    watch = threading.Timer(max(seconds, 1.0), process.kill)
    watch.start()
    assert process.stdout is not None
    yield from (line.rstrip('\n') for line in process.stdout)
    watch.cancel()
  yield f'exit status {process.returncode}'


def tests(report: Report) -> None:
  """Runs core tests."""
  command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:xdist']
  command += ['--durations=0', '-m', 'not slow', '-k', DESELECTED, *CORE]
  lines = list(
    lines_of(
      command,
      report.left(TESTS),
      JAX_PLATFORMS=platform(),
      JAX_DEFAULT_MATMUL_PRECISION='highest',
      XLA_PYTHON_CLIENT_PREALLOCATE='false',
    )
  )
  failed = [line for line in lines if line.startswith(('FAILED', 'ERROR'))]
  report.put('tests', {'failed': failed, 'end': lines[-3:]})


def platform() -> str:
  """Returns $JAX_PLATFORMS, or that of GPUs."""
  return os.environ.get('JAX_PLATFORMS', 'cuda')


def steps(report: Report, dry: bool) -> None:
  """Times training steps, in a process that compiles them."""
  command = [sys.executable, '-m', 'benchmarks.on_gpu', '--steps_only']
  command += [f'--minutes={report.left(STEPS) / 60}'] + ['--dry'] * dry
  results = []
  for line in lines_of(command, report.left(STEPS) + 30):
    if line.startswith('{'):
      results.append(json.loads(line))
      report.put('steps', results)
    elif 'exit status' in line or 'Error' in line:
      report.put('end of steps', line)


def peer(report: Report) -> None:
  """Times the same steps in PyTorch."""
  here = all(
    importlib.util.find_spec(name) for name in ('torch', 'benchmarks.peers')
  )
  if not here:
    report.put('peer', 'PyTorch or benchmarks.peers is not there')
    return
  command = [sys.executable, '-m', 'benchmarks.run', '--peer', '--json']
  lines = list(lines_of(command, report.left(PEER)))
  report.put('peer', lines[-12:])


def train(report: Report, data: pathlib.Path | None, dry: bool) -> None:
  """Trains by KD for as long as there is time."""
  if data is None and not dry:
    report.put('run', 'no --data')
    return
  workdir = report.path.with_suffix('.run')
  epochs = epochs_in(report) if not dry else 1
  settings = [f'epochs={epochs}', f'cache={workdir}/cache']
  settings += ['teacher.epochs=1'] if dry else [f'data.dir={data}']
  config = 'kd_digits' if dry else 'kd_cifar'
  if not dry:
    # Random weights take the time of trained ones.
    settings += [f'teacher.epochs={max(1, epochs // 10)}']
  command = [sys.executable, '-m', 'jaxkd.cli', 'train', config]
  command += [f'--workdir={workdir}', *settings]
  began = time.monotonic()
  lines = list(lines_of(command, report.left() - 5))
  summary = workdir / 'summary.json'
  report.put(
    'run',
    {
      'command': command[1:],
      'seconds': time.monotonic() - began,
      'end': lines[-6:],
      'summary': json.loads(summary.read_text()) if summary.exists() else None,
    },
  )


def epochs_in(report: Report) -> int:
  """Returns how many epochs fit in the time that is left."""
  own = [
    case['ms_per_step']
    for case in report.parts.get('steps', [])
    if case['method'] == 'kd' and case['batch'] == 64 and 'ms_per_step' in case
  ]
  epoch = STEPS_OF_EPOCH * min(own, default=5.0) / 1e3
  # Compiling, the teacher's epochs, evaluation and saves take their time.
  return max(1, int((report.left() - 45) / (2 * epoch + 0.5)))


def measure_points(minutes: float, dry: bool) -> None:
  """Times the cases, and prints a line of JSON for each."""
  end = time.monotonic() + 60 * minutes
  for point in points():
    if time.monotonic() > end:
      break
    began = time.monotonic()
    try:
      result = measured(dry_point(point) if dry else point, dry)
    except Exception as error:  # the next case may be fine
      result = {'error': f'{type(error).__name__}: {str(error)[:300]}'}
    result['seconds'] = time.monotonic() - began
    print(json.dumps({**dataclasses.asdict(point), **result}), flush=True)


def dry_point(point: Point) -> Point:
  """Returns a small case in place of one."""
  chunk = min(point.chunk, 3)
  return dataclasses.replace(point, batch=point.batch // 8, chunk=chunk)


def measured(point: Point, dry: bool) -> dict[str, Any]:
  """Returns the time of a step, and its compilation and memory."""
  settings = {'teacher.cache': point.cache} if point.cache else {}
  if settings and 'cache' not in configs.default().teacher:
    return {'skipped': 'this version has no teacher.cache'}
  task = run.last_task(
    'mlp:mlp' if dry else PAIR,
    point.method,
    run.Sizes(point.batch, 8 if dry else 32, 5 if dry else 100, point.chunk),
    dtype=point.dtype,
    settings=settings,
  )
  init, key = task.program.init_network, initial_key(task.seed)
  initial = {name: init(name, key) for name in task.sources}
  feed = feed_of(task, point.chunk, initial)
  if point.at_once is not None:
    if not hasattr(feed, 'at_once'):
      return {'skipped': 'this version has no teacher in bulk'}
    feed = dataclasses.replace(feed, at_once=point.at_once)
  case = run.Steps(feed, functools.partial(run.start, task))
  case.compile()
  times = run.measure([case], 2 if dry else max(5, 400 // point.chunk))[0]
  return {
    'ms_per_step': statistics.median(times),
    'min_ms_per_step': min(times),
    'compile_seconds': case.compile_seconds,
    'device': jax.devices()[0].device_kind,
    **case.memory(),
  }


def parse(argv: list[str] | None = None) -> argparse.Namespace:
  """Returns the parsed arguments; None parses those of the process."""
  parser = argparse.ArgumentParser(
    prog='python -m benchmarks.on_gpu', allow_abbrev=False
  )
  add = parser.add_argument
  add('--out', type=pathlib.Path, default=pathlib.Path('on_gpu.json'))
  add('--data', type=pathlib.Path, help='the folder of CIFAR-100')
  add('--minutes', type=float, default=7.5)
  add('--dry', action='store_true', help='small sizes, also on a CPU')
  add('--steps_only', action='store_true', help='part 2 alone, to stdout')
  return parser.parse_args(argv)


def main(arguments: argparse.Namespace) -> None:
  """Runs all parts."""
  if arguments.steps_only:
    measure_points(arguments.minutes, arguments.dry)
    return
  report = Report(arguments.out, arguments.minutes)
  tests(report)
  steps(report, arguments.dry)
  peer(report)
  train(report, arguments.data, arguments.dry)


if __name__ == '__main__':
  main(parse())
