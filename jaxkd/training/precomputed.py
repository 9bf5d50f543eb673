"""Logits of frozen networks that the train step does not run.

They come from a store, from a function that is not a network here, or from the
network itself by way of the view cache; `guides` reads them.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxkd.data import augment
from jaxkd.data.base import Dataset
from jaxkd.graph.program import predict
from jaxkd.problems import Problem
from jaxkd.stores import Header, Rows, Store, check_space, create, differing
from jaxkd.training.guides import Live
from jaxkd.types import Array

CACHES = 'outputs'  # the folder of view caches, in that of all caches


class Views(NamedTuple):
  """The training views of a store: epoch e of a run shows view e mod count.

  seed: of the views.
  count: how many of each image there are.
  """

  seed: int
  count: int


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
  """Where the logits of a frozen network come from.

  At most one of the first three is set; without any, they are those of the
  network itself.

  store: the file that has them.
  function: normalised images [B, H, W, C] -> logits [B, ...], in JAX.
  predict: the same in NumPy, on the host.
  cache: the folder of view caches; None: they are not cached.
  dtype, top: of cached logits, see `stores.Rows`.
  network: all that the logits depend on besides the images, as JSON values.
  card: the network's model card, likewise.
  data: settings of the data that views of lazily decoded images depend on.
  """

  store: Store | None = None
  function: Callable[[Array], Array] | None = None
  predict: Callable[[np.ndarray], np.ndarray] | None = None
  cache: pathlib.Path | None = None
  dtype: str = 'float16'
  top: int = 0
  network: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  card: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  data: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def __str__(self) -> str:
    if self.store:
      return f'outputs stored in {self.store.path}'
    what = 'a function' if self.predict else 'a network'
    if self.predict and not self.function:
      what += ' on the host'
    return f'{what}, outputs cached' if self.cache is not None else what


def live(
  source: Source,
  module: Any,
  variables: Any,
  *,
  dataset: Dataset,
  problem: Problem,
  mesh: Mesh,
  seed: int,
) -> Live:
  """Returns what computes the logits of a source.

  Args:
    source: a function, or the network itself.
    module: the network, if it is one.
    variables: its arrays.
    dataset, problem, mesh, seed: see `Live`.
  """

  def network(variables, image):
    return predict(module, variables, image).logits

  def function(variables, image):
    del variables
    assert source.function is not None
    return source.function(image)

  is_network = source.predict is None
  forward = function if source.function else network if is_network else None
  return Live(
    forward,
    variables if is_network else {},
    None if forward else source.predict,
    dataset=dataset,
    problem=problem,
    mesh=mesh,
    seed=seed,
  )


def data_entries(dataset: Dataset, source: Source) -> dict[str, Any]:
  """Returns all of the data that training views depend on, as JSON values."""
  view = dataset.view
  entries = {
    'data fingerprint': dataset.fingerprint,
    'images': len(dataset.train),
    'image shape': list(dataset.image_shape),
    'mean': list(view.mean),
    'std': list(view.std),
    'scale': view.scale,
    'pad': view.pad,
    'flip': view.flip,
    'problem': dataset.problem,
  }
  if dataset.train.load is not None:  # which augments what it decodes
    entries['settings'] = dict(source.data)
  return json.loads(json.dumps(entries))


def check_store(store: Store, dataset: Dataset, source: Source) -> None:
  """Checks that a store has logits of these training images.

  Raises:
    ValueError: with every entry that differs; a store with missing rows.
  """
  lines = differing(store.header.data, data_entries(dataset, source))
  if lines:
    text = '\n'.join(f'  {line}' for line in lines)
    raise ValueError(
      f'the outputs in {store.path} are those of other images than this run'
      f' trains on (stored -> of this run):\n{text}\nTrain with the settings of'
      ' the stored outputs, or store them again with --mode=store'
    )
  if not store.complete():
    raise ValueError(
      f'{store.path} is incomplete: the --mode=store command that began it'
      ' finishes it'
    )


def views_of(sources: Mapping[str, Source]) -> Views | None:
  """Returns the views that the stores of a phase have; None without stores.

  Raises:
    ValueError: two stores have different views.
  """
  views = {
    name: Views(**source.store.header.views)
    for name, source in sources.items()
    if source.store
  }
  for name, own in views.items():
    first = next(iter(views))
    if own != views[first]:
      raise ValueError(
        f'the stored outputs of {first} and {name} are those of different'
        f' views: {views[first]} and {own}. Store both with the same store.seed'
        ' and store.views'
      )
  return next(iter(views.values()), None)


def check_cacheable(dataset: Dataset, problem: Problem) -> None:
  """Checks that training views of the data are numbered.

  Raises:
    ValueError: images are decoded as they are read, or the problem has views of
      its own.
  """
  if dataset.train.load is not None:
    raise ValueError(
      'teacher.cache_outputs=True needs images in memory, whose views are'
      f' numbered, but {dataset.name} is decoded as it is read: set it to'
      ' False, or store the outputs by --mode=store'
    )
  some = {name: x[:8] for name, x in dataset.train.arrays.items()}
  raw = {**some, 'index': np.arange(len(some['image']), dtype=np.int32)}
  want = augment.train_view(
    raw['image'], raw['index'], 0, seed=0, view=dataset.view
  )
  got = problem.train_view(raw, jnp.int32(0), 0, dataset.view)['image']
  if got.shape != want.shape or not np.allclose(got, want, atol=1e-5):
    raise ValueError(
      'teacher.cache_outputs=True needs views that are numbered, and those of'
      f' the problem {problem.name} are not: set it to False, or store the'
      ' outputs by --mode=store'
    )


def cache_header(
  dataset: Dataset,
  source: Source,
  shape: tuple[int, ...],
  identity: Mapping[str, Any],
) -> Header:
  """Returns the header of a network's view cache.

  Args:
    dataset: whose training views they are.
    source: of the logits.
    shape: of the logits of one image.
    identity: all that the logits depend on besides the images, as JSON values.
  """
  return Header(
    rows=Rows(shape, source.dtype, source.top),
    slots=augment.view_count(dataset.view),
    examples=len(dataset.train),
    data=data_entries(dataset, source),
    views={'numbered': True},
    network=identity,
    card={},
  )


def open_cache(folder: pathlib.Path, header: Header, epochs: int) -> Store:
  """Returns the view cache with this header, new or filled by earlier runs.

  Args:
    folder: of all view caches.
    header: of the cache.
    epochs: of the training, which tell how much it may grow.

  Raises:
    OSError: it may grow by more than the disk has space.
  """
  text = json.dumps(header.as_json(), sort_keys=True)
  path = folder / f'{hashlib.sha256(text.encode()).hexdigest()[:20]}.store'
  if not path.exists():
    part = 1 - (1 - 1 / header.slots) ** epochs
    check_space(path, round(part * header.size))
  return create(path, header)


def numbers(dataset: Dataset, seed: int) -> Callable[[Any, int], np.ndarray]:
  """Returns (indices [N], epoch) -> the number of each example's view."""
  one = jax.jit(partial(augment.view_number, seed=seed, view=dataset.view))
  return lambda index, epoch: np.asarray(one(index, np.int32(epoch)), np.int64)
