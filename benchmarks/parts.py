r"""Times a method's step against the sum of its indispensable parts.

  python -m benchmarks.parts --pair=resnet20:resnet8 --method=gpd --branches=6

The parts are a plain training step of each learner, and a forward pass of each
frozen network, on the same batches. The step and its parts take turns, call by
call. The difference between the step and the sum is the overhead of the method:
its objectives, parameter sharing and the larger optimizer state. Memory is
estimated by the compiler, per device.
"""

import argparse
import dataclasses
import functools
import json
import statistics
import sys

import jax
import jax.numpy as jnp

from benchmarks.run import (
  Sizes,
  Steps,
  add_arguments,
  calls_of,
  last_task,
  measure,
  positive,
  sizes_of,
  start,
)
from jaxkd import objectives
from jaxkd.graph import LABELS, Graph, Learner, Transfer
from jaxkd.graph.program import Program, bind, predict
from jaxkd.text import table
from jaxkd.training import mesh as meshes
from jaxkd.training.initial import initial_key
from jaxkd.training.phase import Task, feed_of


def alone(task: Task, name: str) -> Task:
  """Returns the plain training of one network of a task."""
  objective = objectives.CATALOG[task.problem.label_objective]()
  transfer = Transfer(LABELS, name, objective)
  program = bind(
    Graph({name: Learner()}, (transfer,)),
    lambda *_: task.program.modules[name],
    task.program.input_shape,
  )
  return dataclasses.replace(task, program=program)


def training(task: Task, sizes: Sizes) -> Steps:
  """Returns the training steps of a task, for timing."""
  return Steps(feed_of(task, sizes.chunk), functools.partial(start, task))


def forward(task: Task, name: str, sizes: Sizes) -> Steps:
  """Returns forward passes of a frozen network, for timing.

  Args:
    task: with the network.
    name: of the network.
    sizes: of data and batches.
  """
  program: Program = task.program

  def step(variables, batch):
    logits = predict(program.modules[name], variables, batch['image']).logits
    return variables, {'sum': jnp.sum(logits)}

  init = jax.jit(
    functools.partial(program.init_network, name),
    out_shardings=meshes.whole(task.mesh),
  )
  feed = dataclasses.replace(feed_of(task, sizes.chunk), step=step)
  return Steps(feed, lambda: init(initial_key(task.seed)))


def cases_of(task: Task, sizes: Sizes) -> dict[str, Steps]:
  """Returns 'step', the step of a task, and its parts, by name."""
  graph = task.program.graph
  return (
    {'step': training(task, sizes)}
    | {f'{n}, training': training(alone(task, n), sizes) for n in graph.trained}
    | {f'{n}, forward': forward(task, n, sizes) for n in graph.frozen}
  )


def report(
  times: dict[str, list[float]], memory: dict[str, dict[str, int]]
) -> dict:
  """Returns times and memory of the step and its parts, as in the JSON output.

  Args:
    times: milliseconds by case and round; the first case is the step.
    memory: bytes by case and kind.

  Returns:
    'ms', the medians; 'ratio', the median over rounds of step / sum of parts;
    'ratios', its minimum and maximum; 'memory_mib'.
  """
  whole, *parts = times.values()
  ratios = [w / sum(p) for w, *p in zip(whole, *parts, strict=True)]
  return {
    'ms': {name: statistics.median(x) for name, x in times.items()},
    'ratio': statistics.median(ratios),
    'ratios': [min(ratios), max(ratios)],
    'memory_mib': {
      name: {kind: size / 2**20 for kind, size in sizes.items()}
      for name, sizes in memory.items()
    },
  }


def parse(argv: list[str] | None = None) -> argparse.Namespace:
  """Returns the parsed arguments; None parses those of the process."""
  parser = argparse.ArgumentParser(
    prog='python -m benchmarks.parts', allow_abbrev=False
  )
  add_arguments(parser)
  parser.add_argument(
    '--branches',
    type=positive,
    default=1,
    help="number of branches of the student's convolutions",
  )
  return parser.parse_args(argv)


def main(arguments: argparse.Namespace) -> None:
  """Runs the command."""
  sizes = sizes_of(arguments)
  method, branches = arguments.method, arguments.branches
  task = last_task(arguments.pair, method, sizes, branches)
  cases = cases_of(task, sizes)
  for case in cases.values():
    case.compile()
  times = measure(list(cases.values()), calls_of(arguments))
  memory = {name: case.memory() for name, case in cases.items()}
  results = report(dict(zip(cases, times, strict=True)), memory)
  rows = [('', 'ms/step', 'state and data, MiB', 'temporary, MiB')]
  for name, ms in results['ms'].items():
    mib = results['memory_mib'][name]
    sizes_shown = (f'{mib["arguments"]:.1f}', f'{mib["temporary"]:.1f}')
    rows.append((name, f'{ms:.2f}', *sizes_shown))
  print(table(rows, right=(1, 2, 3)))
  low, high = results['ratios']
  print(
    f'\nstep / sum of parts: {results["ratio"]:.3f} (single rounds:'
    f' {low:.2f} to {high:.2f}), on {jax.device_count()} x'
    f' {jax.devices()[0].device_kind}'
  )
  if arguments.json:
    print(json.dumps(results))


if __name__ == '__main__':
  parsed = parse()
  meshes.use_cores(parsed.batch)
  try:
    main(parsed)
  except (KeyError, ValueError) as error:
    sys.exit(f'benchmarks: {error}')
