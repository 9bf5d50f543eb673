r"""Compares a short training on the digits before and after a change.

  python -m benchmarks.check COMMIT
  python -m benchmarks.check COMMIT epochs=6 student.name=resnet8x4

A change that is meant to affect nothing but the time still changes roundings,
which a training amplifies. So the code of the commit is run twice, the second
time on another number of CPU devices, which changes roundings alone: the new
code, by default that of this checkout, should differ from the old one by as
little as these two runs differ from each other.
"""

import argparse
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from jaxkd.text import table

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = 'kd_digits'
# Of the config: fewer epochs, and no student without a teacher.
SETTINGS = ('epochs=3', 'baseline=False')
DEVICES = 'JAX_NUM_CPU_DEVICES'

Records = dict[tuple[str, int], dict[str, float]]


@contextlib.contextmanager
def checkout(commit: str) -> Iterator[pathlib.Path]:
  """Gives a folder with the code of a commit; '': this checkout.

  Raises:
    ValueError: no such commit.
  """
  if not commit:
    yield ROOT
    return
  git = ['git', '-C', str(ROOT), 'worktree']
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / 'code'
    added = subprocess.run(
      [*git, 'add', '--detach', str(path), commit],
      capture_output=True,
      text=True,
    )
    if added.returncode:
      raise ValueError(f'no code of {commit!r}: {added.stderr.strip()}')
    try:
      yield path
    finally:
      subprocess.run([*git, 'remove', '--force', str(path)], check=True)


def trained(
  code: pathlib.Path, settings: list[str], devices: int, name: str
) -> Records:
  """Returns the metrics of a run by phase and epoch.

  Args:
    code: a checkout.
    settings: KEY=VALUE, that differ from the config's.
    devices: number of CPU devices.
    name: of the run, for messages.

  Raises:
    ValueError: the run has failed.
  """
  print(f'{name}: training on {devices} CPU devices', file=sys.stderr)
  with tempfile.TemporaryDirectory() as folder:
    run = pathlib.Path(folder) / 'run'
    process = subprocess.run(
      [
        *(sys.executable, '-m', 'jaxkd.cli', 'train', CONFIG),
        *(f'--workdir={run}', *SETTINGS, *settings),
      ],
      cwd=code,  # whose package is imported
      env={**os.environ, 'JAXKD_CACHE': folder, DEVICES: str(devices)},
      capture_output=True,
      text=True,
    )
    if process.returncode:
      last = (process.stderr.strip().splitlines() or ['no message'])[-1]
      raise ValueError(f'the training by {name} has failed: {last}')
    return records((run / 'metrics.jsonl').read_text())


def records(lines: str) -> Records:
  """Returns the compared metrics of a run's log by phase and epoch.

  They are the loss in training, and NLL and top-1 of each network.

  Args:
    lines: one JSON object each.
  """
  rows = {}
  for line in lines.splitlines():
    row: dict[str, Any] = json.loads(line)
    rows[row['phase'], row['epoch']] = {
      metric: value
      for metric, value in row.items()
      if metric == 'train/loss' or metric.endswith(('/nll', '/top1'))
    }
  return rows


def differences(one: Records, other: Records) -> dict[str, float]:
  """Returns the largest difference of each metric over phases and epochs.

  Raises:
    ValueError: the runs have other phases, epochs or metrics.
  """
  names = [{k: sorted(x) for k, x in run.items()} for run in (one, other)]
  if names[0] != names[1]:
    raise ValueError(
      f'the runs have other metrics: {names[0]} and {names[1]}. Compare commits'
      ' with the same ones'
    )
  largest: dict[str, float] = {}
  for key, row in one.items():
    for metric, value in row.items():
      apart = abs(value - other[key][metric])
      largest[metric] = max(largest.get(metric, 0.0), apart)
  return largest


def report(runs: Mapping[str, Records]) -> str:
  """Returns the metrics of each epoch, and the largest differences.

  Args:
    runs: by name: the old code, the old code with other roundings, the new.
  """
  old, again, new = runs.values()
  rows: list[tuple[str, ...]] = [('phase', 'epoch', 'metric', *runs)]
  for (phase, epoch), row in old.items():
    for metric in row:
      values = (f'{x[phase, epoch][metric]:.6f}' for x in (old, again, new))
      rows.append((phase, str(epoch), metric, *values))
  rounding, change = differences(old, again), differences(old, new)
  largest: list[tuple[str, ...]] = [
    ('largest difference', 'by rounding', 'by the change')
  ]
  largest += [
    (metric, f'{rounding[metric]:.1e}', f'{change[metric]:.1e}')
    for metric in rounding
  ]
  return '\n\n'.join(
    [table(rows, right=(1, 3, 4, 5)), table(largest, right=(1, 2))]
  )


def parse(argv: list[str] | None = None) -> argparse.Namespace:
  """Returns the parsed arguments; None parses those of the process."""
  parser = argparse.ArgumentParser(
    prog='python -m benchmarks.check',
    description='Compares a training on the digits before and after a change.',
    allow_abbrev=False,
  )
  parser.add_argument('commit', help='of the code before the change')
  parser.add_argument(
    '--new', default='', metavar='COMMIT', help='by default, this checkout'
  )
  parser.add_argument(
    'settings', nargs='*', metavar='KEY=VALUE', help=f'of {CONFIG}'
  )
  return parser.parse_intermixed_args(argv)


def main(arguments: argparse.Namespace) -> int:
  """Runs the command; returns its exit status."""
  devices = int(os.environ.get(DEVICES, min(os.cpu_count() or 1, 2)))
  other = 1 if devices > 1 else 2
  settings = arguments.settings
  name = arguments.new or 'this checkout'
  try:
    with checkout(arguments.commit) as old:
      runs = {
        arguments.commit: trained(old, settings, devices, arguments.commit),
        'rounding': trained(old, settings, other, arguments.commit),
      }
    with checkout(arguments.new) as new:
      runs[name] = trained(new, settings, devices, name)
    print(report(runs))
  except ValueError as error:
    print(f'benchmarks: {error}', file=sys.stderr)
    return 1
  return 0


if __name__ == '__main__':
  sys.exit(main(parse()))
