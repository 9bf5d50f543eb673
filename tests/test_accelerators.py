"""What training programs for H100 and TPU v5e consist of.

Small networks show the same as large ones: kernels, layouts and copies are
those of an operation, whatever its size. The split has the size of CIFAR-100.

Most assertions have failed on earlier code or on a break made on purpose: those
are listed in docs/notes.md, "Accelerators that are not there".
"""

import collections
import functools
import importlib.metadata
import math

import pytest

from benchmarks.compiled import EXAMPLES, Case, compile_case
from benchmarks.hlo import COLLECTIVES

pytestmark = [pytest.mark.slow, pytest.mark.accelerator]

PAIR = 'resnet14:resnet8'
STEPS = 50
PIXELS = 32 * 32 * 3
METHODS = ('kd', 'gpd', 'slkd', 'crd')
MiB = 2**20

# Of a method and a number of devices: kernels of a step, as often as they run,
# which may grow by 3 %; temporary MiB on each device, by 10 %; all-reduces and
# all-gathers of a step, exactly. The teacher runs on ten batches at once, whose
# outputs are kept. CRD draws in a loop of its own, and gathers the vectors that
# each device writes to its bank.
H100 = {
  ('kd', 1): (166, 68.3, 0, 0),
  ('kd', 4): (224, 17.6, 24, 0),
  ('gpd', 1): (503, 81.2, 0, 0),
  ('gpd', 4): (627, 28.1, 47, 0),
  ('slkd', 1): (670, 111.0, 0, 0),
  ('slkd', 4): (903, 35.1, 102, 0),
  ('crd', 1): (339, 109.1, 0, 0),
  ('crd', 4): (406, 73.9, 25, 1),
}
# Temporary MiB on one TPU v5e, which may grow by 10 %.
V5E = {'kd': 44.5, 'gpd': 117.8, 'slkd': 141.1, 'crd': 177.0}


WHEELS = {'h100': 'jax-cuda12-pjrt', 'v5e': 'libtpu'}


@functools.cache
def program_of(method, chip, devices=1):
  try:
    importlib.metadata.version(WHEELS[chip])
  except importlib.metadata.PackageNotFoundError:
    pytest.skip(
      f'{WHEELS[chip]}, which compiles for {chip}, is not installed: `make'
      ' test-accelerators` makes an environment that has it'
    )
  branches = 6 if method == 'gpd' else 1
  case = Case(PAIR, method, 64, 'bfloat16', STEPS, branches)
  return compile_case(case, chip, devices)


@pytest.fixture(params=sorted(H100), ids=lambda x: f'{x[0]}-{x[1]}')
def on_gpu(request):
  """A method's call on H100s, and its figures in the table."""
  method, devices = request.param
  return program_of(method, 'h100', devices), H100[request.param]


@pytest.fixture(params=METHODS)
def on_tpu(request):
  """A method's call on one TPU v5e, and its temporary memory in MiB."""
  return program_of(request.param, 'v5e'), V5E[request.param]


def check_call(compiled):
  """What is the same for all devices: nothing is copied that need not be."""
  program = compiled.program
  # No device waits for the host between two steps.
  assert program.loops
  assert not any(program.everywhere('infeed'))
  assert not any(program.everywhere('outfeed'))
  assert not any(program.everywhere('send'))
  # Every array of the state is updated where it is.
  assert program.aliases == compiled.leaves
  # No copy, transpose or conversion of the whole split.
  assert program.large(EXAMPLES * PIXELS) == []


def test_a_gpu_call_is_a_loop_of_few_kernels(on_gpu):
  compiled, (kernels, mib, reduces, gathers) = on_gpu
  check_call(compiled)
  program = compiled.program
  every = program.in_loops()
  # A known number of steps: else the host would read a flag after each.
  assert STEPS in {times for times, *_ in every}
  assert sum(times for times, *_ in every) / STEPS <= 1.03 * kernels
  assert compiled.temporary <= 1.1 * mib * MiB
  counts = collections.Counter()
  for times, _, x in every:
    counts[x.opcode.removesuffix('-start')] += times
  assert {kind: counts[kind] / STEPS for kind in COLLECTIVES} == {
    'all-reduce': reduces,
    'all-gather': gathers,
    'reduce-scatter': 0,
    'all-to-all': 0,
  }


def test_gpu_convolutions_are_cudnn_calls_in_bfloat16_and_nhwc(on_gpu):
  program = on_gpu[0].program
  assert not any(program.everywhere('convolution'))
  calls = program.calls('__cudnn$conv')
  assert len(calls) > 20
  lines = program.computations
  for computation, call in program.kernels(program.body):
    if call not in calls:
      continue
    image, kernel, result = (
      call.attribute('dim_labels').replace('->', '_').split('_')
    )
    assert (image, kernel, result) == ('b01f', 'o01i', 'b01f')
    operands = [lines[computation][name] for name in call.operands]
    types = [x.arrays[0][0] for x in (*operands, call)]
    assert set(types) <= {'bf16', 'f32'} and types[:2] == ['bf16', 'bf16']


def test_a_tpu_call_neither_copies_the_split_nor_gathers_pixels(on_tpu):
  compiled, mib = on_tpu
  check_call(compiled)
  program = compiled.program
  assert compiled.temporary <= 1.1 * mib * MiB
  for gather in program.everywhere('gather'):
    dtype, dims = gather.arrays[0]
    if dtype == 'u8':
      sizes = gather.attribute('slice_sizes').strip('{}').split(',')
      row = math.prod(map(int, sizes))
      assert math.prod(dims) // row <= 64  # one row for each image


def test_tpu_convolutions_are_in_bfloat16(on_tpu):
  program = on_tpu[0].program
  count = 0
  for lines in program.computations.values():
    for x in lines.values():
      # Products of matrices are convolutions, too: those of a crop, and those
      # that merge the branches of a kernel, in float32.
      name = x.attribute('op_name')
      if x.opcode == 'convolution' and 'conv_general_dilated' in name:
        count += 1
        types = {lines[name].arrays[0][0] for name in x.operands}
        assert types == {'bf16'}, x
  assert count > 20
