"""The table of a view cache: what it depends on, how large it is, where."""

import functools
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxkd import sharing
from jaxkd.data import augment
from jaxkd.data.base import Dataset
from jaxkd.stores import Header, Memory, Rows, check_space, create
from jaxkd.training.cached import Cache, Cached, DeviceTable, Number, OnDevice
from jaxkd.training.guides import POOLED, Live
from jaxkd.training.precomputed import Caching, Source, data_entries
from jaxkd.types import Outputs


def cache_header(
  dataset: Dataset,
  source: Source,
  shapes: Outputs,
  identity: Mapping[str, Any],
) -> Header:
  """Returns the header of a network's view cache.

  Args:
    dataset: whose training views they are.
    source: of the outputs.
    shapes: of the outputs of one image.
    identity: all that the outputs depend on besides the images, as JSON values.
  """
  assert source.cache is not None
  pooled = shapes.taps[POOLED].shape[0] if POOLED in shapes.taps else 0
  logits = tuple(shapes.logits.shape)
  return Header(
    rows=Rows(logits, source.cache.dtype, pooled=pooled),
    slots=augment.view_count(dataset.view),
    examples=len(dataset.train),
    data=data_entries(dataset, source),
    views={'numbered': True},
    network=identity,
    card={},
  )


def computed_by(cache: Caching, mesh: Mesh, size: int) -> dict[str, Any]:
  """Returns what the last bits of outputs depend on, as JSON values.

  Tables in float32 are not shared between runs that would compute other bits;
  those in 16 bits are.

  Args:
    cache: with the type of stored numbers.
    mesh: the devices.
    size: examples of a full batch.
  """
  if cache.dtype != 'float32':
    return {}
  return {
    'batch size': size,
    'devices': mesh.size,
    'backend': jax.default_backend(),
    'jax': jax.__version__,
  }


def open_cache(
  source: Source,
  header: Header,
  live: Live,
  epochs: int,
  size: int,
  number: Number,
) -> Cache:
  """Returns the view cache of a network, new or filled by earlier runs.

  Args:
    source: with the kind of cache.
    header: of its table.
    live: computes outputs.
    epochs: of the training, which tell how much a file may grow.
    size: examples of a full batch.
    number: of views.

  Raises:
    OSError: a file may grow by more than the disk has space.
    ValueError: the table is larger than its budget, or than positions of 32
      bits on a device; it would be on a device, for a function on the host.
  """
  cache = source.cache
  assert cache is not None
  check_budget(cache, header)
  text = json.dumps(header.as_json(), sort_keys=True)
  digest = hashlib.sha256(text.encode()).hexdigest()[:20]
  if cache.mode == 'disk':
    path = cache.folder / f'{digest}.store'
    if not path.exists():
      check_space(path, round(filled(header.slots, epochs) * header.size))
    return Cached(live, number, create(path, header), size)
  share = functools.partial(
    sharing.shared, 'outputs', size=header.size, limit=cache.budget
  )
  if cache.mode == 'host':
    memory = share(f'host {digest}', lambda: Memory(header))
    return Cached(live, number, memory, size)
  if source.predict and not source.function:
    raise ValueError(
      "teacher.cache='device' needs a teacher that JAX runs, and this one is a"
      " function on the host: set it to 'host' or 'disk'"
    )
  split = header.size * live.mesh.size > cache.budget
  table = share(
    f'device {digest} {live.mesh.devices.size}',
    lambda: DeviceTable(header, live, split),
  )
  return OnDevice(live, number, table, size)


def check_budget(cache: Caching, header: Header) -> None:
  """Checks that a table is not larger than it may be.

  Raises:
    ValueError: it is larger than its budget, or than 32 bits can count.
  """
  rows = header.slots * header.examples
  if header.size > cache.budget:
    raise ValueError(
      f'teacher.cache={cache.mode!r} needs {header.size:,} bytes for'
      f' {header.slots} views of {header.examples:,} images, and may have'
      f' {cache.budget:,}: set teacher.cache_gigabytes to'
      f' {math.ceil(header.size / 1e8) / 10:g}, teacher.cache_dtype to'
      " 'float16', or teacher.cache to 'off'"
    )
  if cache.mode == 'device' and rows >= 2**31:
    raise ValueError(
      f"teacher.cache='device' can have {2**31 - 1:,} rows, and this data set"
      f" has {rows:,} views: set it to 'host' or 'disk'"
    )


def filled(slots: int, epochs: int) -> float:
  """Returns the part of all views that so many epochs are expected to show."""
  return 1 - (1 - 1 / slots) ** epochs


def expected_hits(slots: int, epochs: int) -> float:
  """Returns the expected part of an image's views that were shown before.

  Args:
    slots: V, how many views an image has, of which each epoch draws one.
    epochs: E. The expectation is 1 - V (1 - (1 - 1/V)^E) / E.
  """
  return 1 - slots * filled(slots, epochs) / max(1, epochs)


def numbers(dataset: Dataset, seed: int) -> Number:
  """Returns (indices [N], epoch) -> the number of each example's view."""
  one = jax.jit(functools.partial(augment.view_number, view=dataset.view))

  def number(index: np.ndarray, epoch: int) -> np.ndarray:
    numbers = one(index, np.int32(epoch), seed=np.uint32(seed))
    return np.asarray(numbers, np.int64)

  return number
