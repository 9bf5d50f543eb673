"""The checks of a run that need its data and checkpoints, before it trains.

Whatever can be known before the first step is checked there, and not when the
phase begins that it concerns: a teacher may have been trained for days by then.
`experiment.build` checks what follows from the config alone.
"""

import functools
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxkd import checkpoints, disk, tree
from jaxkd.checkpoints import SavedNetwork
from jaxkd.config import BAYES
from jaxkd.data.base import Dataset
from jaxkd.runs.experiment import Experiment
from jaxkd.training import precomputed, tables
from jaxkd.training.initial import initial_key, module_variables
from jaxkd.training.mesh import memory_bytes


def check(experiment: Experiment, networks: Mapping[str, SavedNetwork]) -> None:
  """Checks a run's data and the networks that come from checkpoints.

  Args:
    experiment: of the run.
    networks: by name, as `pretrained.load_pretrained` returns them.

  Raises:
    OSError: the folder of view caches cannot be written to.
    ValueError: data that are not numbers, or fewer than a batch; a network that
      does not fit a phase, or whose arrays are not finite; a view cache over
      its budget.
  """
  check_data(experiment.dataset, experiment.config.batch_size)
  for name, network in networks.items():
    check_finite(network, f'the checkpoint of {name!r}')
  _check_fit(experiment, networks)
  _check_caches(experiment)


def _check_caches(experiment: Experiment) -> None:
  """Checks that the view caches of all phases are within their budget.

  Raises:
    OSError: the folder of their files cannot be written to.
    ValueError: the table of a network is too large.
  """
  for phase in experiment.phases:
    for name, source in phase.sources.items():
      if source.cache is not None:
        shapes = precomputed.output_shapes(phase.program, name)
        header = tables.cache_header(experiment.dataset, source, shapes, {})
        tables.check_budget(source.cache, header)
        if source.cache.mode == 'disk':
          what = 'the folder of view caches (--config.cache or JAXKD_CACHE)'
          disk.check_writable(source.cache.folder, what)


def check_data(dataset: Dataset, batch_size: int) -> None:
  """Refuses data that cannot be trained on.

  Raises:
    ValueError: fewer training images than a batch; a single class; numbers that
      are not finite.
  """
  images = len(dataset.train)
  if batch_size > images:
    raise ValueError(
      f'batch_size={batch_size} must be at most the {images:,} training images'
      f' of {dataset.name}: set --config.batch_size={images} or less'
    )
  if dataset.problem == 'classification' and dataset.num_classes < 2:
    raise ValueError(
      f'{dataset.name} has only the class {dataset.class_names[0]!r}, so that'
      ' there is nothing to learn: add images of another one'
    )
  splits = {
    'training': dataset.train,
    'test': dataset.test,
    'validation': dataset.validation,
  }
  for name, split in splits.items():
    arrays = split.arrays if split else {}
    for what, array in arrays.items():
      bad = _not_finite(array)
      if bad:
        raise ValueError(
          f'the {name} split of {dataset.name} has NaN or infinite numbers in'
          f' the {what} of {bad:,} of {len(array):,} examples: no training can'
          ' learn from them; repair the data, or leave these examples out'
        )
  view = dataset.view
  if not (np.isfinite(view.mean).all() and np.min(view.std) > 0):
    raise ValueError(
      f'the images of {dataset.name} cannot be normalised by mean {view.mean}'
      f' and deviation {view.std}: means must be finite, deviations above 0'
    )


def _not_finite(array: np.ndarray) -> int:
  """Returns in how many rows of an array there is NaN or an infinity."""
  if not np.issubdtype(array.dtype, np.inexact):
    return 0
  flat = np.asarray(array).reshape(len(array), -1)
  return int(np.sum(~np.isfinite(flat).all(axis=1)))


def check_finite(network: SavedNetwork, what: str) -> None:
  """Refuses a network with arrays that are not finite.

  A bias may be -inf, by which a network rules a class out.

  Args:
    network: as it was read.
    what: its name in the message.

  Raises:
    ValueError: with the names of the arrays.
  """
  names = [
    name
    for name, array in tree.leaves(dict(network.variables)).items()
    if not _is_sound(name, np.asarray(array, np.float32))
  ]
  if names:
    more = f' and {len(names) - 3} more' if len(names) > 3 else ''
    raise ValueError(
      f'{what} has NaN or infinite values in {", ".join(names[:3])}{more}: the'
      ' training that it comes from has diverged, or the file is damaged. Set'
      ' another checkpoint'
    )


def _is_sound(name: str, array: np.ndarray) -> bool:
  """Returns whether an array is finite, but for the -inf of a bias."""
  ruled_out = name.endswith('/bias') & np.isneginf(array)
  return bool(np.all(np.isfinite(array) | ruled_out))


def _check_fit(
  experiment: Experiment, networks: Mapping[str, SavedNetwork]
) -> None:
  """Checks that networks fit every phase that they start in, from shapes.

  Their arrays have to fit into the memory, too.
  """
  initial = {name: network.variables for name, network in networks.items()}
  shapes = jax.eval_shape(lambda x: x, initial)
  for phase in experiment.phases:
    fit = functools.partial(module_variables, phase.program, seed=phase.seed)
    jax.eval_shape(fit, shapes)
    for name in phase.program.init_modules:
      init = functools.partial(phase.program.init_network, name)
      check_memory(name, jax.eval_shape(init, initial_key(phase.seed)))
    # From then on they are what this phase has made of them.
    trained = phase.graph.trained
    shapes = {n: x for n, x in shapes.items() if n not in trained}


def check_memory(name: str, variables: Any) -> None:
  """Refuses a network that is larger than the memory of a device.

  Args:
    name: of the network.
    variables: the shapes of its arrays.

  Raises:
    ValueError: with its size, of which training needs several times as much.
  """
  memory = memory_bytes()
  needed = sum(math.prod(x.shape) * 4 for x in jax.tree.leaves(variables))
  if memory and needed > memory:
    raise ValueError(
      f'the network {name!r} has {needed / 2**30:,.1f} GiB of parameters, and'
      f' the memory is {memory / 2**30:,.1f} GiB: make it narrower, by'
      ' --config.student.width or --config.teacher.width, or choose another'
      ' model'
    )


def checkpoint_paths(experiment: Experiment) -> dict[str, str]:
  """Returns the paths of checkpoints, by the network that has one."""
  return {
    name: path
    for phase in experiment.phases
    for name, model in phase.models.items()
    if (path := model.checkpoint or model.start) and path != BAYES
  }


def check_paths(paths: Mapping[str, str], study: pathlib.Path) -> None:
  """Checks that there is a network at each path, without reading any.

  Args:
    paths: by network.
    study: its folder; an earlier run of it may have yet to write a network.

  Raises:
    FileNotFoundError: there is none.
  """
  for name, path in paths.items():
    place = disk.expanded(path).resolve()
    if study.resolve() not in place.parents and checkpoints.find(path) is None:
      raise FileNotFoundError(f'there is no checkpoint of {name!r} in {path}')
