"""Outputs of frozen networks that the train step does not run.

They come from a store, from a function that is not a network here, or from the
network itself by way of the view cache; `guides` reads them.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxkd.data import augment
from jaxkd.data.base import Dataset
from jaxkd.graph.program import Program, only
from jaxkd.problems import Problem
from jaxkd.stores import (
  Store,
  differing,
)
from jaxkd.training.guides import Live
from jaxkd.types import Array, Outputs

CACHES = 'outputs'  # the folder of view caches, in that of all caches


class Views(NamedTuple):
  """The training views of a store: epoch e of a run shows view e mod count.

  seed: of the views.
  count: how many of each image there are.
  """

  seed: int
  count: int


class Caching(NamedTuple):
  """Where the outputs of a frozen network are cached.

  mode: 'device', 'host' or 'disk'; or 'auto', until it is decided.
  folder: of files.
  dtype: of stored numbers.
  budget: bytes that a table may have.
  """

  mode: str
  folder: pathlib.Path
  dtype: str = 'float32'
  budget: int = 4 * 10**9


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
  """Where the logits of a frozen network come from.

  At most one of the first three is set; without any, they are those of the
  network itself.

  store: the file that has them.
  function: normalised images [B, H, W, C] -> logits [B, ...], in JAX.
  predict: the same in NumPy, on the host.
  cache: where they are cached; None: they are not.
  network: all that the logits depend on besides the images, as JSON values.
  card: the network's model card, likewise.
  data: settings of the data that views of lazily decoded images depend on.
  """

  store: Store | None = None
  function: Callable[[Array], Array] | None = None
  predict: Callable[[np.ndarray], np.ndarray] | None = None
  cache: Caching | None = None
  network: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  card: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  data: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def __str__(self) -> str:
    if self.store:
      return f'outputs stored in {self.store.path}'
    what = 'a function' if self.predict else 'a network'
    if self.predict and not self.function:
      what += ' on the host'
    return f'{what}, outputs cached' if self.cache else what


def output_shapes(program: Program, name: str) -> Outputs:
  """Returns the shapes of one image's outputs of a network.

  They are those of its logits, and of the taps that come with them.
  """
  module = program.modules[name]
  image = jax.ShapeDtypeStruct((1, *program.input_shape), np.float32)
  full, _ = jax.eval_shape(module.init_with_output, jax.random.key(0), image)
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape[1:], np.float32),
    only(full, program.precomputed.get(name, ())),
  )


def live(
  source: Source,
  program: Program,
  name: str,
  variables: Any,
  *,
  dataset: Dataset,
  problem: Problem,
  mesh: Mesh,
  seed: int,
) -> Live:
  """Returns what computes the outputs of a source.

  Args:
    source: a function, or the network itself.
    program: in which the network is frozen.
    name: of the network.
    variables: its arrays, if it has any.
    dataset, problem, mesh, seed: see `Live`.
  """

  running = dataclasses.replace(program, precomputed={})

  def network(variables, image):
    params, stats = ({name: variables[k]} for k in ('params', 'batch_stats'))
    outputs, _ = running.forward(params, stats, image, {name})
    return only(outputs[name], program.precomputed.get(name, ()))

  def function(variables, image):
    del variables
    assert source.function is not None
    return Outputs(source.function(image), {})

  is_network = source.predict is None
  forward = function if source.function else network if is_network else None
  return Live(
    output_shapes(program, name),
    forward,
    {'batch_stats': {}, **variables} if is_network else {},
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


def check_cacheable(dataset: Dataset, problem: Problem, mode: str) -> None:
  """Checks that training views of the data are numbered.

  Args:
    dataset: to train on.
    problem: that it poses.
    mode: of the cache, for the message.

  Raises:
    ValueError: images are decoded as they are read, or the problem has views of
      its own.
  """
  if dataset.train.load is not None:
    raise ValueError(
      f'teacher.cache={mode!r} needs images in memory, whose views are'
      f' numbered, but {dataset.name} is decoded as it is read: set it to'
      " 'off', or store the outputs by --mode=store"
    )
  some = {name: x[:8] for name, x in dataset.train.arrays.items()}
  raw = {**some, 'index': np.arange(len(some['image']), dtype=np.int32)}
  want = augment.train_view(
    raw['image'], raw['index'], 0, seed=0, view=dataset.view
  )
  got = problem.train_view(raw, jnp.int32(0), 0, dataset.view)['image']
  if got.shape != want.shape or not np.allclose(got, want, atol=1e-5):
    raise ValueError(
      f'teacher.cache={mode!r} needs views that are numbered, and those of the'
      f" problem {problem.name} are not: set it to 'off', or store the outputs"
      ' by --mode=store'
    )
