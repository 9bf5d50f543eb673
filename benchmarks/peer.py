r"""Times a step of knowledge distillation beside the same step in PyTorch.

  python -m benchmarks.peer --pair=resnet56:resnet20 --clock=wall

One pair by one clock, in this process; `python -m benchmarks.run --peer` calls
it for several. Both have the same weights, images and views; the logits, the
loss and the updated parameters are compared before anything is timed. Their
steps take turns. PyTorch's step is timed in both layouts of maps, and ours is
compared with the faster one.
"""

import argparse
import importlib.util
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from benchmarks import run
from jaxkd import config as configs
from jaxkd import models
from jaxkd.allocation import keep_freed_memory
from jaxkd.models.cost import of_layers
from jaxkd.runs.provenance import git_commit
from jaxkd.training import mesh as meshes

# 'wall': on all cores; 'cpu': CPU time of the process, pinned to one core.
CLOCKS = {'wall': time.perf_counter, 'cpu': time.process_time}
ROUNDS = 7
OURS = 'jaxkd'
COMPILED = ', compiled'  # behind the layout, in the name of a case
SIZES = ('batch', 'rounds', 'image_size', 'num_classes', 'compile')
SIDE = 2048  # of the matrix product that measures the machine's peak


def names_of(pair: str) -> dict[str, str]:
  """Returns the models of the networks of 'TEACHER:STUDENT'."""
  return dict(zip(('teacher', 'student'), pair.split(':'), strict=True))


def cases_of(
  pair: str, sizes: run.Sizes, compiled: bool = False
) -> tuple[dict[str, Any], dict[str, float]]:
  """Returns steps by name, ours first, after a call of each.

  Args:
    pair: 'TEACHER:STUDENT', two names of models.
    sizes: of data and batches.
    compiled: whether there are also steps of compiled networks of PyTorch.

  Returns:
    The cases, and PyTorch's largest differences from ours.

  Raises:
    KeyError: no such model, with suggestions.
    ValueError: a malformed pair, a model without counterpart in PyTorch, or
      steps that differ by more than rounding.
  """
  from benchmarks import agreement, torch_networks, torch_step

  task = run.last_task(pair, 'kd', sizes)
  names = names_of(pair)
  for name in names.values():  # before anything is compiled
    torch_networks.build(name, sizes.num_classes)
  ours = run.Case(pair, 'kd', sizes)
  ours.compile()
  optimizer = configs.default().optimizer
  peers = {}
  for layout in torch_step.LAYOUTS:
    for suffix in ('', COMPILED) if compiled else ('',):
      peers[layout + suffix] = torch_step.TorchSteps(
        task.dataset,
        names,
        agreement.variables_of(task, ours.state),
        torch_step.Batches(task.dataset, sizes.batch, task.seed),
        torch_step.Sgd(
          optimizer.learning_rate, optimizer.momentum, optimizer.weight_decay
        ),
        layout=layout,
        chunk=sizes.chunk,
        device=device(),
        compiled=bool(suffix),
      )
  differences = agreement.compare(task, ours, [*peers.values()])
  for each in differences:
    each.check(sizes.chunk)
  largest = map(max, zip(*differences, strict=True))
  fields = agreement.Differences._fields
  return {OURS: ours, **peers}, dict(zip(fields, largest, strict=True))


def device() -> str:
  """Returns PyTorch's name of the kind of device that JAX uses."""
  return 'cuda' if jax.default_backend() == 'gpu' else 'cpu'


def gflop(pair: str, sizes: run.Sizes) -> float:
  """Returns the arithmetic of a step's layers, 10^9 operations.

  It is that of the definition, a product and a sum for each MAC: the teacher's
  forward pass once, the student's three times. An algorithm like Winograd's
  needs fewer.

  Args:
    pair: 'TEACHER:STUDENT'.
    sizes: of data and batches.
  """
  shape = (sizes.image_size, sizes.image_size, 3)
  teacher, student = (
    of_layers(models.build(name, sizes.num_classes), shape)
    for name in names_of(pair).values()
  )
  return 2e-9 * sizes.batch * (teacher + 3 * student)


def peak(clock: Callable[[], float], repeats: int = 7) -> float:
  """Returns the best rate of a float32 matrix product, 10^9 operations/s.

  It is the better one of JAX and PyTorch, whose library for it can be slow on
  some processors.

  Args:
    clock: returns seconds.
    repeats: number of products in each.
  """
  import torch

  a, b = torch.randn(2, SIDE, SIDE, device=device())
  x, y = jax.random.normal(jax.random.key(0), (2, SIDE, SIDE))
  dot = jax.jit(jax.numpy.dot)
  products = (
    lambda: (a @ b)[0, 0].item(),  # waits for the device
    lambda: dot(x, y).block_until_ready(),
  )
  best = float('inf')
  for product in products:
    for _ in range(repeats):
      start = clock()
      product()
      best = min(best, clock() - start)
  return 2e-9 * SIDE**3 / best


def row_of(
  pair: str, clock: str, sizes: run.Sizes, rounds: int, compiled: bool = False
) -> dict[str, Any]:
  """Compares, times, and returns the results, as in the JSON output.

  Args:
    pair: 'TEACHER:STUDENT'.
    clock: a key of `CLOCKS`.
    sizes: of data and batches.
    rounds: number of timed calls of each case.
    compiled: whether to time compiled networks of PyTorch as well.

  Raises:
    KeyError, ValueError: see `cases_of`.
  """
  import torch

  cores = len(os.sched_getaffinity(0))
  torch.set_num_threads(cores)
  cases, differences = cases_of(pair, sizes, compiled)
  tick = CLOCKS[clock]
  times = run.measure([*cases.values()], rounds, tick, warm_up=1)
  return {
    'pair': pair,
    'clock': clock,
    **ratios(dict(zip(cases, times, strict=True))),
    'differences': differences,
    'gflop': gflop(pair, sizes),
    'peak_gflops': peak(tick),
    'compile_seconds': cases[OURS].compile_seconds,
    'temporary_mib': cases[OURS].memory()['temporary'] / 2**20,
    'batch': sizes.batch,
    'image_size': sizes.image_size,
    'num_classes': sizes.num_classes,
    'cores': cores,
    'device': jax.devices()[0].device_kind,
    'devices': jax.device_count(),
    'processor': processor(),
    'commit': git_commit(),
    'jax': jax.__version__,
    'torch': torch.__version__,
  }


def ratios(times: Mapping[str, list[float]]) -> dict[str, Any]:
  """Compares our times with those of each case of PyTorch.

  Args:
    times: milliseconds by case and round.

  Returns:
    'ms': by case, median, minimum and maximum; 'over': by case of PyTorch, the
    same of ours / its in the same round; 'peer': the case with the smallest
    median among those that are not compiled; 'ratio': the median of 'over' for
    that case; 'rounds'.
  """
  ours = times[OURS]
  ratios = {
    name: [x / y for x, y in zip(ours, each, strict=True)]
    for name, each in times.items()
    if name != OURS
  }
  ms = {name: _spread(x) for name, x in times.items()}
  over = {name: _spread(x) for name, x in ratios.items()}
  eager = [name for name in over if not name.endswith(COMPILED)]
  peer = min(eager, key=lambda name: ms[name][0])
  return {
    'ms': ms,
    'over': over,
    'peer': peer,
    'ratio': over[peer][0],
    'rounds': len(ours),
  }


def _spread(values: list[float]) -> list[float]:
  """Returns median, minimum and maximum."""
  return [statistics.median(values), min(values), max(values)]


def processor() -> str:
  """Returns the processor's name."""
  try:
    with open('/proc/cpuinfo') as file:
      lines = [x for x in file if x.startswith('model name')]
  except OSError:
    lines = []
  return lines[0].partition(':')[2].strip() if lines else platform.processor()


def pin() -> None:
  """Confines this process to one core and one device.

  Raises:
    ValueError: the system cannot confine processes.
  """
  if not hasattr(os, 'sched_setaffinity'):
    raise ValueError(
      f'--clock=cpu confines the process to one core, which {platform.system()}'
      ' cannot do: use --clock=wall'
    )
  keep_freed_memory()  # as `use_cores` does
  os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
  jax.config.update('jax_num_cpu_devices', 1)


def check_torch() -> None:
  """Raises ValueError if PyTorch is not installed."""
  if importlib.util.find_spec('torch') is None:
    raise ValueError(
      "PyTorch is not installed: pip install 'jaxkd[torch]', or in a checkout"
      " pip install -e '.[torch]'"
    )


def add_sizes(parser: argparse.ArgumentParser) -> None:
  """Adds the arguments that are the same for all pairs and clocks."""
  add = parser.add_argument
  add('--batch', type=run.positive, default=64)
  add('--rounds', type=run.positive, default=ROUNDS, help='steps of each case')
  add('--image_size', type=run.positive, default=32)
  add('--num_classes', type=run.positive, default=100)
  add(
    '--compile',
    action='store_true',
    help='also time torch.compile, which takes minutes to compile',
  )


def parse(argv: list[str] | None = None) -> argparse.Namespace:
  """Returns the parsed arguments; None parses those of the process."""
  parser = argparse.ArgumentParser(
    prog='python -m benchmarks.peer',
    description='Times a step beside the same step in PyTorch; ends with JSON.',
    allow_abbrev=False,
  )
  parser.add_argument('--pair', required=True, metavar='TEACHER:STUDENT')
  parser.add_argument('--clock', choices=CLOCKS, default='wall')
  add_sizes(parser)
  return parser.parse_args(argv)


def main(arguments: argparse.Namespace) -> int:
  """Runs the command; returns its exit status."""
  try:
    check_torch()
    if arguments.clock == 'cpu':
      pin()
    else:
      meshes.use_cores(arguments.batch)
    sizes = run.sizes_of(arguments)
    args = arguments.rounds, arguments.compile
    row = row_of(arguments.pair, arguments.clock, sizes, *args)
  except (KeyError, ValueError) as error:
    print(f'benchmarks: {error.args[0]}', file=sys.stderr)
    return 1
  print(json.dumps(row))
  return 0


if __name__ == '__main__':
  sys.exit(main(parse()))
