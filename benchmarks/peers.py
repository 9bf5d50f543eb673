r"""Compares the steps of several pairs with PyTorch's, each in a fresh process.

  python -m benchmarks.run --peer --pair=all --results=build/peer.jsonl --json

Each pair is timed by each clock by `benchmarks.peer`, and adds a line to the
file of results. A command that is repeated continues after the last line:
results of the same code, versions, sizes and cores are not measured again.
"""

import argparse
import hashlib
import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

from benchmarks import peer
from benchmarks.run import PEER
from jaxkd.text import table

PAIRS = (  # of the CIFAR-100 benchmark: teachers of the same family, and others
  'resnet32x4:resnet8x4',
  'resnet56:resnet20',
  'vgg13:vgg8',
  'wrn_40_2:wrn_16_2',
  'vgg13:mobilenet_v2',
  'resnet32x4:shufflenet_v2',
)
ALL = 'all'
ROOT = pathlib.Path(__file__).parents[1]
VERSIONS = ('jax', 'flax', 'torch')


def code_digest() -> str:
  """Returns a digest of what the times depend on in this checkout."""
  digest = hashlib.sha256()
  for folder in ('jaxkd', 'benchmarks'):
    for path in sorted((ROOT / folder).rglob('*.py')):
      digest.update(str(path.relative_to(ROOT)).encode() + b'\0')
      digest.update(path.read_bytes() + b'\0')
  return digest.hexdigest()[:16]


def key_of(pair: str, clock: str, arguments: argparse.Namespace) -> str:
  """Returns what a result is a result of, as a string to be compared.

  Args:
    pair: 'TEACHER:STUDENT'.
    clock: a key of `peer.CLOCKS`.
    arguments: of the command.
  """
  key = {
    **{name: getattr(arguments, name) for name in peer.SIZES},
    **{name: importlib.metadata.version(name) for name in VERSIONS},
    'pair': pair,
    'clock': clock,
    'code': code_digest(),
    'cores': len(os.sched_getaffinity(0)),
    'processor': peer.processor(),
  }
  return json.dumps(key, sort_keys=True)


def saved(path: pathlib.Path) -> dict[str, dict[str, Any]]:
  """Returns the results in a file by key; a last, cut line is left out."""
  results = {}
  if path.exists():
    for line in path.read_text().splitlines():
      try:
        row = json.loads(line)
      except json.JSONDecodeError:
        continue
      results[row['key']] = row
  return results


def measured(
  pair: str, clock: str, arguments: argparse.Namespace
) -> dict[str, Any]:
  """Returns the result of a pair, measured in a process of its own.

  Raises:
    ValueError: the process has failed; the message is the last line of its
      errors.
  """
  flags = [
    f'--{name}={getattr(arguments, name)}'
    for name in peer.SIZES
    if name != 'compile'
  ]
  flags += ['--compile'] if arguments.compile else []
  command = [sys.executable, '-m', 'benchmarks.peer']
  process = subprocess.run(
    [*command, f'--pair={pair}', f'--clock={clock}', *flags],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  if process.returncode:
    last = (process.stderr.strip().splitlines() or ['no message'])[-1]
    raise ValueError(
      f'{pair} by the {clock} clock: {last.removeprefix("benchmarks: ")}'
    )
  return json.loads(process.stdout.splitlines()[-1])


def report(rows: list[dict[str, Any]]) -> str:
  """Returns a table with a row for each pair and clock."""
  peers = [name for name in rows[0]['ms'] if name != peer.OURS]
  head = ('pair', 'clock', f'{peer.OURS}, ms', *(f'{x}, ms' for x in peers))
  head += ('ratio', 'of rounds', 'at peak, ms', 'compile, s')
  lines: list[tuple[str, ...]] = [head]
  for row in rows:
    _, low, high = row['over'][row['peer']]
    lines.append(
      (
        row['pair'],
        row['clock'],
        *(f'{row["ms"][name][0]:.0f}' for name in (peer.OURS, *peers)),
        f'{row["ratio"]:.2f}',
        f'{low:.2f} to {high:.2f}',
        f'{1e3 * row["gflop"] / row["peak_gflops"]:.0f}',
        f'{row["compile_seconds"]:.0f}',
      )
    )
  return table(lines, right=tuple(range(2, len(head))))


def parse(argv: list[str] | None = None) -> argparse.Namespace:
  """Returns the parsed arguments; None parses those of the process."""
  parser = argparse.ArgumentParser(
    prog=f'python -m benchmarks.run {PEER}',
    description='Times steps beside the same steps in PyTorch.',
    allow_abbrev=False,
  )
  add = parser.add_argument
  add(PEER, action='store_true', help='this comparison')
  add('--pair', default=ALL, help="TEACHER:STUDENT,..., or 'all' six pairs")
  add(
    '--clock',
    default=','.join(peer.CLOCKS),
    help="'wall' on all cores, 'cpu' time on one core, or both",
  )
  add('--results', type=pathlib.Path, help='file to add to and continue from')
  add('--json', action='store_true', help='end with one line of JSON')
  peer.add_sizes(parser)
  arguments = parser.parse_args(argv)
  arguments.pairs = (
    list(PAIRS) if arguments.pair == ALL else arguments.pair.split(',')
  )
  arguments.clocks = arguments.clock.split(',')
  for clock in arguments.clocks:
    if clock not in peer.CLOCKS:
      parser.error(f"--clock must be 'wall', 'cpu' or both, got {clock!r}")
  return arguments


def main(arguments: argparse.Namespace) -> int:
  """Runs the command; returns its exit status."""
  path, rows, failures = arguments.results, [], 0
  try:
    peer.check_torch()
  except ValueError as error:
    print(f'benchmarks: {error}', file=sys.stderr)
    return 1
  for pair in arguments.pairs:
    for clock in arguments.clocks:
      key = key_of(pair, clock, arguments)
      row = saved(path).get(key) if path else None
      start = time.perf_counter()
      if row is None:
        try:
          row = {**measured(pair, clock, arguments), 'key': key}
        except ValueError as error:
          failures += 1
          print(f'benchmarks: {error}', file=sys.stderr)
          continue
        if path:
          path.parent.mkdir(parents=True, exist_ok=True)
          with path.open('a') as file:
            file.write(json.dumps(row) + '\n')
      rows.append(row)
      seconds = time.perf_counter() - start
      print(
        f'{pair}, {clock}: {row["ratio"]:.2f} ({seconds:.0f} s)',
        file=sys.stderr,
      )
  if rows:
    print(report(rows))
    print(f'\n{footer(rows)}')
  if arguments.json:
    print(json.dumps({'results': rows}))
  return 1 if failures else 0


def footer(rows: list[dict[str, Any]]) -> str:
  """Returns the conditions of the results, which are those of the last row."""
  row = rows[-1]
  cores = max(x['cores'] for x in rows)
  return (
    f'ratio: {peer.OURS} over the faster layout of PyTorch, median of'
    f' {row["rounds"]} rounds; batches of {row["batch"]};'
    f' {cores} x {row["processor"]}; jax {row["jax"]}, torch {row["torch"]};'
    f' commit {(row["commit"] or "unknown")[:8]}'
  )
