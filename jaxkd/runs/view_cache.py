"""Which frozen networks have their outputs cached, and where.

`teacher.cache` is for all frozen networks of a run, since a view cache is exact
(in float32) and only saves time. 'auto' takes those for which it is certain to.
"""

import dataclasses
from collections.abc import Collection, Mapping

import jax

from jaxkd import models, problems
from jaxkd.catalog import lookup
from jaxkd.config import Config
from jaxkd.data import augment
from jaxkd.graph import Frozen
from jaxkd.graph.program import Program
from jaxkd.graph.reads import taps_read
from jaxkd.runs import layout
from jaxkd.stores import DTYPES
from jaxkd.training import mesh as meshes
from jaxkd.training import precomputed, tables
from jaxkd.training.guides import POOLED
from jaxkd.training.phase import Task
from jaxkd.training.precomputed import CACHES, Caching, Source
from jaxkd.types import Batch

# How 'auto' decides, for each frozen network. A miss costs a few per cent of a
# step more than the network inside of the step does, so hits have to be
# frequent, and the network has to be more than its overhead.
HITS = 0.125  # expected part of the outputs that the cache has, at least
MACS = 1_000_000  # of the network for one image, at least
# MACs that hits save in the whole training, at least: the program of the cache
# is compiled beside that of the step, which takes seconds.
SAVED_ON_CPU, SAVED = 1e12, 1e14
MEMORY = 0.25  # part of the memory that a table may take, at most

MODES = {
  'auto': 'where it is certain to save time, in memory',
  'off': 'frozen networks run in each step',
  'device': 'in the memory of the devices',
  'host': "in the host's memory",
  'disk': 'in files, which later runs and other processes share',
}


def caching_of(config: Config) -> Caching | None:
  """Returns where a run's frozen networks are cached; None for 'off'.

  Raises:
    KeyError: no such mode or type, with suggestions.
  """
  section = config.teacher
  lookup('view cache (teacher.cache)', MODES, section.cache)
  lookup('type of cached outputs (cache_dtype)', DTYPES, section.cache_dtype)
  if section.cache == 'off':
    return None
  return Caching(
    mode=section.cache,
    folder=layout.cache_folder(config.cache) / CACHES,
    dtype=section.cache_dtype,
    budget=round(section.cache_gigabytes * 1e9),
  )


def split(
  sources: Mapping[str, Source], names: Collection[str]
) -> tuple[dict[str, Source], dict[str, Source]]:
  """Returns the sources of some networks: decided ones, and those for 'auto'.

  Args:
    sources: by network; not all networks have one.
    names: of the networks.
  """
  own = {n: sources[n] for n in names if n in sources}
  auto = {n: x for n, x in own.items() if x.cache and x.cache.mode == 'auto'}
  return {n: x for n, x in own.items() if n not in auto}, auto


def with_taps(
  program: Program, sources: Mapping[str, Source], spec: Batch, epochs: int
) -> Program:
  """Returns a program in which cached networks are not run.

  Their logits come with each batch, and `pooled` where an objective reads it.
  An objective that reads more finds it missing when objectives are checked.

  Args:
    program: of a phase.
    sources: of networks that are cached, by name; others are left out.
    spec: shapes and types of a batch.
    epochs: length of the phase.
  """
  cached = {n for n, x in sources.items() if x.cache and not x.card}
  if not cached:
    return program
  others = {n: x for n, x in program.precomputed.items() if n not in cached}
  program = dataclasses.replace(program, precomputed=others)
  read = taps_read(program, spec, epochs)
  taps = {
    name: (POOLED,) if read.get(name) == {POOLED} else () for name in cached
  }
  return dataclasses.replace(program, precomputed={**others, **taps})


def choose(task: Task, candidates: Mapping[str, Source]) -> Task:
  """Returns a task in which outputs are cached as far as that saves time.

  Args:
    task: of a phase.
    candidates: of its frozen networks, those that 'auto' may cache.
  """
  chosen = {
    name: source
    for name, source in candidates.items()
    if name not in task.sources and _worthwhile(task, name)
  }
  if not chosen:
    return task
  dataset, program = task.dataset, task.program
  spec = task.problem.batch_spec(program.input_shape, 2, dataset.num_classes)
  read = taps_read(program, spec, task.length)
  chosen = {n: x for n, x in chosen.items() if read.get(n, set()) <= {POOLED}}
  taps = {n: tuple(read.get(n, ())) for n in chosen}
  program = dataclasses.replace(
    program, precomputed={**program.precomputed, **taps}
  )
  mode = 'host' if jax.default_backend() == 'cpu' else 'device'
  sources = {}
  for name, source in chosen.items():
    assert source.cache is not None
    cache = source.cache._replace(mode=mode)
    source = dataclasses.replace(source, cache=cache)
    shapes = precomputed.output_shapes(program, name)
    header = tables.cache_header(dataset, source, shapes, {})
    memory = meshes.memory_bytes()
    if header.size <= min(cache.budget, MEMORY * memory or cache.budget):
      sources[name] = source
  if not sources:
    return task
  kept = {n: x for n, x in taps.items() if n in sources}
  program = dataclasses.replace(
    program, precomputed={**task.program.precomputed, **kept}
  )
  return dataclasses.replace(
    task, program=program, sources={**task.sources, **sources}
  )


def _worthwhile(task: Task, name: str) -> bool:
  """Returns whether a network's outputs can be cached, and often repeat."""
  dataset, program = task.dataset, task.program
  network = program.graph.networks[name]
  if not isinstance(network, Frozen) or dataset.train.load is not None:
    return False
  views = precomputed.views_of(task.sources)
  slots = augment.view_count(dataset.view)
  hits = tables.expected_hits(
    min(slots, views.count) if views else slots, task.epochs
  )
  known = task.problem in problems.CATALOG.values()  # whose views are numbered
  if not known or hits < HITS:
    return False
  macs = models.macs(program.modules[name], program.input_shape)
  saved = hits * task.epochs * len(dataset.train) * macs
  on_cpu = jax.default_backend() == 'cpu'
  return macs >= MACS and saved >= (SAVED_ON_CPU if on_cpu else SAVED)
