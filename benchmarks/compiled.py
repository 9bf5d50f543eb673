"""Training calls compiled for accelerators that need not be there.

XLA compiles for H100 and TPU v5e from wheels alone: such programs cannot run,
but their kernels, memory, copies and collectives can be read. `make
test-accelerators` makes an environment with the wheels; docs/devices.md has
more about it.
"""

import contextlib
import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

from benchmarks import hlo
from benchmarks.run import Sizes, initial_state, last_task
from jaxkd.data.base import Split
from jaxkd.training import mesh as meshes
from jaxkd.training.initial import initial_key
from jaxkd.training.phase import Task, feed_of


@dataclasses.dataclass(frozen=True)
class Chip:
  """An accelerator: its peaks, and how to describe it to XLA.

  name: of the product.
  flops: element type -> floating-point operations per second of its matrix
    units, dense.
  bandwidth: of its memory, bytes per second.
  launch: seconds that the shortest kernel takes.
  topology: arguments of `topologies.get_topology_desc`; {} if there is no
    description of its own.
  """

  name: str
  flops: dict[str, float]
  bandwidth: float
  launch: float
  topology: dict[str, str]


_H100 = dict(platform='cuda', topology_name='', topology='1x1x4')
_FLOPS = {'float32': 494.7e12, 'bfloat16': 989.4e12}  # float32 by TF32
# NVIDIA's data sheets "H100" and "H200 Tensor Core GPU" (half of the figures
# with sparsity), and https://cloud.google.com/tpu/docs/v5e. A kernel of a GPU
# takes about 2 microseconds, however little it does.
CHIPS = {
  'h100': Chip('H100 SXM', _FLOPS, 3.35e12, 2e-6, _H100),
  # Compiled for an H100, which has the same cores.
  'h200': Chip('H200 SXM', _FLOPS, 4.8e12, 2e-6, _H100),
  # One pass of bfloat16 also for float32, which is the default there.
  'v5e': Chip(
    'TPU v5e',
    dict.fromkeys(_FLOPS, 197e12),
    819e9,
    0.0,
    dict(platform='tpu', topology_name='v5e:2x2'),
  ),
}
TARGET = pathlib.Path(__file__).parent / 'h100.pbtxt'
# Without them, libtpu looks for the machine's own TPUs, and for a lock.
ENVIRONMENT = {
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
  'TPU_ACCELERATOR_TYPE': 'v5litepod-4',
  'TPU_SKIP_MDS_QUERY': '1',
  'TPU_WORKER_HOSTNAMES': 'localhost',
}
EXAMPLES = 50_000  # of the split: that of CIFAR-100


def described_mesh(chip: str, devices: int) -> Mesh:
  """Returns a mesh of devices that are only described.

  Args:
    chip: a name in CHIPS.
    devices: 1 to 4.

  Raises:
    RuntimeError: the wheels are not installed, or do not load.
  """
  spec = dict(CHIPS[chip].topology)
  if spec['platform'] == 'cuda':
    spec['target_config'] = TARGET.read_text()
  else:
    for name, value in ENVIRONMENT.items():
      os.environ.setdefault(name, value)
  try:
    every = topologies.get_topology_desc(**spec).devices
  except Exception as error:  # of several types, also from the plugin
    raise RuntimeError(
      f'XLA cannot compile for {CHIPS[chip].name} here'
      f' ({str(error).splitlines()[0]}): `make test-accelerators` installs the'
      ' wheels that it needs'
    ) from error
  return meshes.make_mesh(list(every)[:devices])


@dataclasses.dataclass(frozen=True)
class Case:
  """A training call.

  pair: 'TEACHER:STUDENT', two names of models.
  method: the name of a method.
  batch: examples of a step.
  dtype: compute type of the networks.
  steps: in the call.
  branches: of the student's convolutions.
  """

  pair: str
  method: str
  batch: int = 64
  dtype: str = 'float32'
  steps: int = 50
  branches: int = 1

  def task(self) -> Task:
    """Returns the task, with a split that has only a shape."""
    sizes = Sizes(self.batch, 32, 100, self.steps)
    task = last_task(
      self.pair, self.method, sizes, self.branches, dtype=self.dtype
    )
    shape = (EXAMPLES, *task.dataset.image_shape)
    image = np.broadcast_to(np.uint8(0), shape)
    train = Split(np.zeros(EXAMPLES, np.int32), image)
    dataset = dataclasses.replace(task.dataset, train=train)
    return dataclasses.replace(task, dataset=dataset)


@dataclasses.dataclass(frozen=True, eq=False)
class Compiled:
  """A compiled call.

  program: its text, parsed.
  memory: as `memory_analysis` returns it.
  leaves: number of arrays of the state.
  """

  program: hlo.Program
  memory: Any
  leaves: int

  @property
  def temporary(self) -> int:
    """Bytes of temporary memory, on each device."""
    return self.memory.temp_size_in_bytes


def lowered(case: Case, mesh: Mesh) -> tuple[jax.stages.Lowered, Any]:
  """Returns the program of a training call, lowered, and its state's shapes."""
  task = case.task()
  feed = feed_of(task, case.steps)
  state = state_of(task)
  return feed.lower(mesh, state, case.steps, case.batch), state


def state_of(task: Task) -> Any:
  """Returns shapes and types of a training's state."""
  init = functools.partial(initial_state, task)
  return jax.eval_shape(init, initial_key(task.seed))


@contextlib.contextmanager
def quick_compilation(chip: str) -> Iterator[None]:
  """Compiles less thoroughly for TPUs, in a third of the time.

  The persistent cache is off for them: it cannot read what it writes.
  """
  if CHIPS[chip].topology['platform'] != 'tpu':
    yield
    return
  names = 'jax_optimization_level', 'jax_enable_compilation_cache'
  before = [getattr(jax.config, name) for name in names]
  try:
    for name, value in zip(names, ('O0', False), strict=True):
      jax.config.update(name, value)
    yield
  finally:
    for name, value in zip(names, before, strict=True):
      jax.config.update(name, value)


def compile_case(case: Case, chip: str, devices: int = 1) -> Compiled:
  """Returns a training call, compiled for devices that are described.

  Raises:
    RuntimeError: the wheels are not installed, or do not load.
  """
  mesh = described_mesh(chip, devices)
  program, state = lowered(case, mesh)
  return compiled(program, chip, len(jax.tree.leaves(state)))


def compiled(
  program: jax.stages.Lowered, chip: str, leaves: int = 0
) -> Compiled:
  """Returns a lowered program, compiled for a chip."""
  is_gpu = CHIPS[chip].topology['platform'] == 'cuda'
  # Algorithms are chosen by timing them, which takes a device.
  options = {'xla_gpu_autotune_level': 0} if is_gpu else {}
  with quick_compilation(chip):
    result = program.compile(compiler_options=options)
  return Compiled(hlo.parse(result.as_text()), result.memory_analysis(), leaves)
