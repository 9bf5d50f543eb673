"""Stored outputs: a teacher's logits for the training images, in one file."""

import os
import pathlib
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from jaxkd import config as configs
from jaxkd import text
from jaxkd.checkpoints import Card
from jaxkd.config import Config
from jaxkd.data import batches
from jaxkd.disk import PARTIAL
from jaxkd.runs import cost, sources
from jaxkd.runs.cache import Cache, settings_of
from jaxkd.runs.experiment import Experiment, bound
from jaxkd.runs.phases import ResolvedPhase
from jaxkd.runs.pretrained import check_results, load_pretrained
from jaxkd.stores import Header, Rows, Store, check_space, create
from jaxkd.training import mesh as meshes
from jaxkd.training import precomputed
from jaxkd.training.evaluation import BATCH, Evaluator
from jaxkd.training.guides import Live
from jaxkd.training.initial import module_variables
from jaxkd.training.phase import Task
from jaxkd.training.progress import say
from jaxkd.types import Variables

TEACHER = sources.TEACHER


class Teacher(NamedTuple):
  """The teacher whose outputs are stored.

  task: of the phase in which it is frozen.
  source: a function, or the network itself.
  variables: of the network; {} of a function.
  card: with its test results.
  network: all that its logits depend on besides the images, as JSON values.
  """

  task: Task
  source: precomputed.Source
  variables: Variables
  card: Card
  network: dict[str, Any]


def run(config: Config, output: pathlib.Path) -> str:
  """Writes a teacher's logits for views of all training images.

  An interrupted command is resumed by itself: until the file is complete, it
  has another name.

  Args:
    config: checked; its teacher, data and `store` count.
    output: the file to write.

  Returns:
    What was written, as text.

  Raises:
    FileExistsError: there is such a file.
    OSError: the disk has too little space.
    ValueError: there is no trained teacher; the file was begun with other
      settings, or another process writes it.
  """
  if output.exists():
    raise FileExistsError(
      f'{output} exists already: remove it, or name another file'
    )
  teacher = _teacher(config)
  header = _header(config, teacher)
  print(f'{output}: {_cost(header)}', flush=True)
  partial = output.with_name(output.name + PARTIAL)
  done = partial.stat().st_blocks * 512 if partial.exists() else 0
  check_space(output, max(0, header.size - done))
  store = create(partial, header)
  store.lock()
  try:
    _fill(store, teacher, config.store.seed)
  finally:
    store.close()
  os.replace(partial, output)
  return (
    f'Stored. --config.teacher.outputs={output} trains with it, epoch e on view'
    f' e mod {header.slots} of each image, without the teacher.'
  )


def _teacher(config: Config) -> Teacher:
  """Returns the trained teacher of a config.

  Raises:
    ValueError: it has not been trained, is no better than guessing, or is
      stored outputs itself.
  """
  if config.teacher.outputs:
    raise ValueError(
      f'teacher.outputs={config.teacher.outputs!r} is stored already: set it to'
      " '', and teacher.checkpoint to the teacher"
    )
  # By any method: this one has a frozen teacher, and needs only its logits.
  config = configs.of_tree({**config.to_dict(), 'method': {'name': 'kd'}})
  config.teacher.cache = 'off'
  config.baseline = config.kd_baseline = False
  config.student.checkpoint = ''
  experiment = bound(config)
  phase = experiment.phases[-1]
  networks = load_pretrained(experiment)
  if TEACHER not in networks:
    networks |= _cached(experiment)
  network, task = networks[TEACHER], phase.task(experiment.dataset)
  dataset, source = task.dataset, phase.sources.get(TEACHER)
  test = Evaluator(dataset.test, dataset.view, task.problem, task.mesh)
  model = phase.models[TEACHER]
  if source:
    variables, identity = {}, dict(source.network)
    results = sources.evaluate(source, task.problem, test)
  else:
    # Of a network, which the step would run otherwise.
    interface = phase.interfaces.get(TEACHER)
    source = sources.network_source(config, model, interface)
    initial = {TEACHER: network.variables}
    variables = module_variables(task.program, initial, task.seed)[TEACHER]
    results = test(task.program.modules[TEACHER], variables)
    identity = {**source.network, 'variables': network.card.params_sha256}
  check_results(experiment, TEACHER, phase, results)
  params, macs = cost.sizes(task.program, TEACHER)
  card = network.card.with_results(results)
  card = card.replace(network=TEACHER, params=params, macs=macs)
  return Teacher(task, source, variables, card, identity)


def _cached(experiment: Experiment) -> dict[str, Any]:
  """Returns the teacher that an earlier run has trained, by name."""
  phase: ResolvedPhase = experiment.phases[0]
  cache = Cache(experiment.config.cache)
  network = cache.load(settings_of(experiment, phase))
  if network is None:
    raise ValueError(
      'the teacher of this config has not been trained: train it first, by a'
      ' run of this config, or name it by --config.teacher.checkpoint'
    )
  return {TEACHER: network}


def _header(config: Config, teacher: Teacher) -> Header:
  """Returns the header of the file.

  Raises:
    ValueError: the largest logits alone are no distribution in this problem.
  """
  task, own = teacher.task, config.store
  if own.top and task.dataset.problem != 'classification':
    raise ValueError(
      f'store.top={own.top} keeps the largest logits of one softmax, which'
      f' {task.dataset.problem} does not have: set it to 0'
    )
  shapes = precomputed.output_shapes(task.program, TEACHER)
  return Header(
    rows=Rows(tuple(shapes.logits.shape), own.dtype, own.top),
    slots=own.views,
    examples=len(task.dataset.train),
    data=precomputed.data_entries(task.dataset, teacher.source),
    views={'seed': own.seed, 'count': own.views},
    network=teacher.network,
    card=teacher.card.to_json(),
  )


def _cost(header: Header) -> str:
  """Returns what a file holds and how large it is, as text."""
  rows, one = header.rows, header.rows.record.itemsize
  shape = ' x '.join(map(str, rows.shape))
  views = '1 view' if header.slots == 1 else f'{header.slots} views'
  kept = f'the {rows.top} largest of {shape}' if rows.top else shape
  return (
    f'{views} of {header.examples:,} images, {kept} logits in {rows.dtype},'
    f' {one:,} bytes for each: {header.size:,} bytes'
  )


def _fill(store: Store, teacher: Teacher, seed: int) -> None:
  """Writes the rows that a store lacks, and says how long that will take."""
  task = teacher.task
  live = precomputed.live(
    teacher.source,
    task.program,
    TEACHER,
    teacher.variables,
    dataset=task.dataset,
    problem=task.problem,
    mesh=task.mesh,
    seed=seed,
  )
  slots, examples = store.header.slots, store.header.examples
  devices = task.mesh.size
  size = min(BATCH, -(-examples // devices)) * devices
  parts = np.split(
    np.arange(examples, dtype=np.int32), range(size, examples, size)
  )
  written, began = 0, None
  for slot in range(slots):
    due = [part for part in parts if not store.present(slot, part).all()]
    written += len(parts) - len(due)
    for part, logits in _logits(live, task, slot, due, size):
      store.write(slot, part, logits)
      written += 1
      if began is None:  # the first batch is compiled, too
        began = time.monotonic(), written
      elif written == began[1] + 3:
        seconds = (time.monotonic() - began[0]) / 3
        left = seconds * (len(parts) * slots - written)
        say(f'about {text.duration(left)} left')


def _logits(
  live: Live, task: Task, slot: int, due: list[np.ndarray], size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Yields batches of examples, and their logits in a view."""
  live.start([], slot, None)
  # All of one size, so that nothing is compiled again.
  padded = [np.resize(part, size) for part in due]
  split = task.dataset.train
  stored = meshes.put_split(split, task.mesh)
  inputs: Any = padded
  if not stored:
    inputs = batches.prefetch(split, padded, live.seed, slot)
  for part, examples in zip(due, inputs, strict=True):
    logits = np.asarray(live.one(stored, examples, size).logits)
    yield part, logits[: len(part)]
