"""One mesh over all devices, with the batch split along its only axis.

Under `jit` with a sharded batch, BatchNorm and relations of a batch see the
global batch on any number of devices. (The PyTorch references computed
them per device.)
"""

import os
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxkd.allocation import keep_freed_memory
from jaxkd.data.base import Split
from jaxkd.data.batches import StoredSplit, stored_split

CORES = 4  # the largest number of CPU devices that was tried


def use_cores(batch_size: int) -> None:
  """Makes a CPU device for each core, as far as they can share a batch.

  XLA's CPU backend runs most of a train step on one core; with two devices on
  two cores, steps take about two thirds of the time. To be called before
  anything is computed; $JAX_NUM_CPU_DEVICES takes precedence. Other backends
  are not affected. Memory that steps free is kept, see
  `allocation.keep_freed_memory`.
  """
  keep_freed_memory()
  if 'JAX_NUM_CPU_DEVICES' not in os.environ:
    cores = min(os.cpu_count() or 1, CORES)
    devices = max(n for n in range(1, cores + 1) if batch_size % n == 0)
    jax.config.update('jax_num_cpu_devices', devices)


def check_devices() -> None:
  """Checks that JAX finds a device.

  Raises:
    ValueError: it finds none of the kind that $JAX_PLATFORMS asks for.
  """
  try:
    jax.devices()
  except (AssertionError, RuntimeError) as error:
    asked = os.environ.get('JAX_PLATFORMS', '')
    said = f' ({str(error).splitlines()[0]})' if str(error) else ''
    raise ValueError(
      f'JAX finds no device for JAX_PLATFORMS={asked}{said}: install what it'
      " needs (`pip install 'jaxkd[cuda]'` or 'jaxkd[tpu]'), check the driver,"
      ' or set JAX_PLATFORMS=cpu'
    ) from error


def make_mesh(devices: Sequence[Any] | None = None) -> Mesh:
  """Returns a mesh of one axis, 'data'.

  Args:
    devices: all of the default backend's if None.
  """
  devices = devices or jax.devices()
  # Under Explicit axes, the default, a batch times its transpose is an error.
  return jax.make_mesh(
    (len(devices),), ('data',), axis_types=(AxisType.Auto,), devices=devices
  )


def platform(mesh: Mesh) -> str:
  """Returns the kind of a mesh's devices: 'cpu', 'gpu' or 'tpu'."""
  name = mesh.devices.flat[0].platform
  return 'gpu' if name in ('cuda', 'rocm') else name


def whole(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of arrays that every device holds a copy of."""
  return NamedSharding(mesh, P())


def batch_split(mesh: Mesh, size: int, axis: int = 0) -> NamedSharding:
  """Returns the sharding of a batch: split along `axis` of length `size`.

  A batch that cannot be split evenly (the last of an epoch) is computed whole
  on every device, which gives the same numbers.
  """
  if size % mesh.size:
    return whole(mesh)
  return NamedSharding(mesh, P(*[None] * axis, 'data'))


def put_split(split: Split, mesh: Mesh) -> StoredSplit | None:
  """Copies a split to every device; None for one that is not in memory."""
  return jax.device_put(stored_split(split), whole(mesh))


def check_batch_size(mesh: Mesh, batch_size: int) -> None:
  """Raises ValueError if full batches cannot be split over the devices."""
  if batch_size < 1 or batch_size % mesh.size:
    near = max(1, round(batch_size / mesh.size)) * mesh.size
    raise ValueError(
      f'batch_size {batch_size} cannot be split over {mesh.size} devices;'
      f' use a multiple of {mesh.size}, for example --config.batch_size='
      f'{near}'
    )


def memory_bytes() -> int:
  """Returns the memory of a device, or of the machine; 0 if it is unknown."""
  stats = jax.devices()[0].memory_stats() or {}
  if 'bytes_limit' in stats:
    return stats['bytes_limit']
  try:
    return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  except (AttributeError, ValueError):  # not on Windows
    return 0
