r"""Compares a training step with what the hardware allows.

  python -m benchmarks.roofline --pair=resnet32x4:resnet8x4 --method=kd \
    --batch=64 --dtype=bfloat16 --chip=h100 --json

Three bounds in milliseconds per step:

* arithmetic: the floating-point operations of all convolutions and matrix
  products of the step's jaxpr, at the chip's peak;
* memory: the operands and results of these products alone, at the bandwidth
  of its memory;
* kernels: the sum over the kernels of the program that XLA has compiled for the
  chip, of the time for their bytes, of that for their products, or of a launch,
  whichever is longest. It needs the wheels of `make test-accelerators`, and is
  for GPUs: the fusions of TPUs keep data on the chip.

Where such a chip is there, the step is timed, too, and the largest bound
divided by its time is the fraction of the possible speed.
"""

import argparse
import dataclasses
import json
import math
import statistics
import sys
from collections.abc import Iterator
from typing import Any

import jax
from jax.extend.core import Jaxpr, JaxprEqn, jaxprs_in_params

from benchmarks import hlo
from benchmarks.compiled import (
  CHIPS,
  Case,
  Chip,
  compiled,
  described_mesh,
  lowered,
  state_of,
)
from benchmarks.run import Case as Timed
from benchmarks.run import Sizes, measure, positive
from jaxkd.models.cost import PRODUCTS
from jaxkd.text import table
from jaxkd.training.phase import feed_of

ROUNDS = 7  # timed calls, if there is a device


def products(program: Jaxpr) -> Iterator[tuple[JaxprEqn, int]]:
  """Yields each product of a jaxpr, and how often it is computed.

  Of the branches for different platforms, the last one counts, which is not
  the CPU's.
  """
  for equation in program.eqns:
    if equation.primitive.name in PRODUCTS:
      yield equation, 1
    inner = list(jaxprs_in_params(equation.params))
    if equation.primitive.name == 'cond':
      inner = inner[-1:]
    times = equation.params.get('length', 1)
    for each in inner:
      yield from ((e, n * times) for e, n in products(each))


def counts(case: Case) -> dict[str, float]:
  """Returns 'flops' and 'bytes' of the products of a step, from its jaxpr."""
  task = case.task()
  feed = feed_of(task, 1)
  traced = feed.trace(task.mesh, state_of(task), 1, case.batch)
  flops = moved = 0
  for equation, times in products(traced.jaxpr.jaxpr):
    flops += 2 * times * PRODUCTS[equation.primitive.name](equation)
    values: list[Any] = [*equation.invars, *equation.outvars]
    sizes = [v.aval.size * v.aval.dtype.itemsize for v in values]
    moved += times * sum(sizes)
  return {'flops': flops, 'bytes': moved}


def of_kernels(
  program: hlo.Program, steps: int, chip: Chip, dtype: str
) -> dict[str, float]:
  """Returns the kernels of a step, their bytes, and their bound.

  Args:
    program: of a GPU.
    steps: that it makes. A kernel of frozen networks that runs for several of
      them counts a part.
    chip: whose peaks count.
    dtype: of the products.

  Returns:
    'kernels', 'kernel_bytes', 'kernel_ms'.
  """
  seconds = every = number = 0.0
  alone = [(steps, *kernel) for kernel in program.kernels(program.entry)]
  for times, computation, x in program.in_loops() or alone:
    moved, part = program.moved(computation, x), times / steps
    number += part
    every += part * moved
    seconds += part * max(
      moved / chip.bandwidth,
      _flops(program, computation, x) / chip.flops[dtype],
      chip.launch,
    )
  return {
    'kernels': number,
    'kernel_bytes': every,
    'kernel_ms': 1e3 * seconds,
  }


def _flops(program: hlo.Program, computation: str, x: hlo.Instruction) -> float:
  """Returns the floating-point operations of the products in a kernel."""
  inner = program.computations.get(x.attribute('calls'), {})
  dots = [y for y in inner.values() if y.opcode == 'dot']
  if dots:
    return sum(_of_matrices(inner, y) for y in dots)
  lines = program.computations[computation]
  target = x.attribute('custom_call_target')
  if target.startswith('__cublas'):
    return _of_matrices(lines, x)
  if not target.startswith('__cudnn$conv'):
    return 0.0
  first, second = (lines[name] for name in x.operands[:2])
  # Image, kernel and result of the forward convolution, or two of them and the
  # gradient of the third.
  kernel, result = {
    '__cudnn$convBackwardFilter': (x, second),
    '__cudnn$convBackwardInput': (second, first),
  }.get(target, (second, x))
  labels = x.attribute('dim_labels').split('_')[1].split('-')[0]
  features = kernel.arrays[0][1][labels.index('o')]
  return 2.0 * result.size * kernel.size / features


def _of_matrices(lines: hlo.Computation, x: hlo.Instruction) -> float:
  """Returns the operations of a product of two matrices, of any layout."""
  left, right = (lines[name].size for name in x.operands[:2])
  return 2.0 * x.size * math.sqrt(left * right / x.size)


def milliseconds(case: Case) -> float | None:
  """Returns the measured time of a step; None without an accelerator."""
  if jax.default_backend() == 'cpu':
    return None
  sizes = Sizes(case.batch, 32, 100, case.steps)
  timed = Timed(case.pair, case.method, sizes, case.branches, case.dtype)
  timed.compile()
  return statistics.median(measure([timed], ROUNDS)[0])


def report(case: Case, name: str) -> dict[str, Any]:
  """Returns the bounds of a training step, as in the JSON output.

  Args:
    case: the training call.
    name: of the chip.
  """
  chip = CHIPS[name]
  work = counts(case)
  result: dict[str, Any] = {
    **dataclasses.asdict(case),
    'chip': name,
    **work,
    'arithmetic_ms': 1e3 * work['flops'] / chip.flops[case.dtype],
    'memory_ms': 1e3 * work['bytes'] / chip.bandwidth,
    'jax': jax.__version__,
  }
  if chip.topology['platform'] == 'cuda':
    try:
      mesh = described_mesh(name, 1)
    except RuntimeError as error:
      print(f'no bound by kernels: {error}', file=sys.stderr)
    else:
      program, _ = lowered(case, mesh)
      result |= of_kernels(
        compiled(program, name).program, case.steps, chip, case.dtype
      )
  bounds = ('arithmetic_ms', 'memory_ms', 'kernel_ms')
  result['bound_ms'] = max(result.get(key, 0.0) for key in bounds)
  measured = milliseconds(case)
  if measured is not None:
    result['ms_per_step'] = measured
    result['fraction'] = result['bound_ms'] / measured
    result['device'] = jax.devices()[0].device_kind
  return result


def parse(argv: list[str] | None = None) -> argparse.Namespace:
  """Returns the parsed arguments; None parses those of the process."""
  parser = argparse.ArgumentParser(
    prog='python -m benchmarks.roofline', allow_abbrev=False
  )
  add = parser.add_argument
  add('--pair', default='resnet32x4:resnet8x4', metavar='TEACHER:STUDENT')
  add('--method', default='kd', help='a method, or an objective')
  add('--batch', type=positive, default=64)
  add('--dtype', choices=('float32', 'bfloat16'), default='bfloat16')
  add('--steps', type=positive, default=50, help='in one call')
  add('--branches', type=positive, default=1, help="of the student's layers")
  add('--chip', choices=tuple(CHIPS), default='h100')
  add('--json', action='store_true', help='end with one line of JSON')
  return parser.parse_args(argv)


def main(arguments: argparse.Namespace) -> None:
  """Runs the command."""
  values = vars(arguments)
  fields = [field.name for field in dataclasses.fields(Case)]
  result = report(Case(**{k: values[k] for k in fields}), arguments.chip)
  rows = [('', '')]
  rows += [
    ('GFLOP of products', f'{result["flops"] / 1e9:.1f}'),
    ('MB of products', f'{result["bytes"] / 1e6:.1f}'),
  ]
  if 'kernels' in result:
    rows += [
      ('kernels', f'{result["kernels"]:.0f}'),
      ('MB of kernels', f'{result["kernel_bytes"] / 1e6:.1f}'),
    ]
  rows += [
    (f'{key.removesuffix("_ms")}, ms', f'{result[key]:.3f}')
    for key in ('arithmetic_ms', 'memory_ms', 'kernel_ms', 'ms_per_step')
    if key in result
  ]
  if 'fraction' in result:
    rows.append(('largest bound / measured', f'{result["fraction"]:.2f}'))
  print(f'a step on one {CHIPS[arguments.chip].name}')
  print(table(rows, right=(1,)))
  if arguments.json:
    print(json.dumps(result))


if __name__ == '__main__':
  try:
    main(parse())
  except (KeyError, ValueError) as error:
    sys.exit(f'benchmarks: {error}')
