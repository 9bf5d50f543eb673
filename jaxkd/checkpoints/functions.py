"""Networks that are functions here: of Python, or programs in files.

They are run forward only, and cannot be trained.
"""

import functools
import hashlib
import json
import os
import pathlib
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxkd import disk, models
from jaxkd.catalog import call
from jaxkd.checkpoints.card import Card
from jaxkd.checkpoints.load import Kind, kind_of, load_card
from jaxkd.interop import foreign
from jaxkd.interop.export import Predict
from jaxkd.types import Array

PREFIX = 'function:'
READERS = {'.onnx': foreign.onnx, '.stablehlo': foreign.stablehlo}
Shape = tuple[int, int, int]


class Function(NamedTuple):
  """A function of normalised images, float32 [B, H, W, C], with its card.

  predict: in NumPy; returns logits [B, K].
  function: the same in JAX, where it can be traced; else None.
  card: with the digest of the function or file as `params_sha256`.
  """

  predict: Predict
  function: Callable[[Array], Array] | None
  card: Card


def is_function(name: str, checkpoint: str = '') -> bool:
  """Returns whether a network is a function, from its name and checkpoint."""
  if name.startswith(PREFIX):
    return True
  return bool(checkpoint) and kind_of(disk.expanded(checkpoint)) is Kind.PROGRAM


def read(
  name: str, checkpoint: str, image_shape: Shape, settings: Mapping[str, Any]
) -> Function:
  """Returns a function of images.

  Args:
    name: 'function:package.module:attribute'; of a file, its card's model.
    checkpoint: the file of a program; '' for a function of Python.
    image_shape: [H, W, C] of the images.
    settings: arguments of the function; or, for a file of another tool,
      'layout' and 'output', see `interop.foreign.onnx`.

  Raises:
    ImportError: a library is needed and absent.
    KeyError: the module has no such attribute, with suggestions.
    ValueError: it is no function of such images that returns logits.
  """
  if checkpoint:
    return _of_file(disk.expanded(checkpoint), image_shape, settings)
  return _of_python(name, image_shape, settings)


def _of_file(
  path: pathlib.Path, image_shape: Shape, settings: Mapping[str, Any]
) -> Function:
  card = card_of_file(path)
  read, own = _reader(path), settings
  if card:
    own = {'layout': card.layout} if read is foreign.onnx else {}
  reader = functools.partial(read, path, image_shape)
  program = call(f'the file {path.name}', reader, dict(own))
  sha = hashlib.sha256(path.read_bytes())
  sha.update(json.dumps(dict(own), sort_keys=True).encode())
  card = (card or Card(PREFIX + path.name)).replace(
    num_classes=program.num_classes,
    image_shape=image_shape,
    params_sha256=sha.hexdigest(),
  )
  return Function(program.predict, program.function, card)


def _reader(path: pathlib.Path) -> Callable[..., foreign.Program]:
  """Returns the reader of a program, by its suffix or else its content."""
  if path.suffix in READERS:
    return READERS[path.suffix]
  with path.open('rb') as file:
    is_stablehlo = b'StableHLO' in file.read(1 << 16)
  if is_stablehlo or zipfile.is_zipfile(path):
    return foreign.stablehlo
  return foreign.onnx


def card_of_file(path: str | os.PathLike[str]) -> Card | None:
  """Returns the card in the file of a program; None if it has none."""
  try:
    return load_card(path)
  except ValueError:
    return None


def _of_python(
  name: str, image_shape: Shape, settings: Mapping[str, Any]
) -> Function:
  """Returns a function at an import path.

  One that JAX can trace becomes a part of compiled programs; any other one gets
  NumPy arrays on the host.
  """
  where = name.removeprefix(PREFIX)
  attribute = models.import_attribute(where)
  settings = dict(settings)
  host = settings.pop('host', None)
  if host is not None and not isinstance(host, bool):
    raise ValueError(
      f'settings.host of {name} must be True or False, got {host!r}'
    )
  make = functools.partial(attribute, **settings)

  def function(images: Array) -> Array:
    return jnp.asarray(make(images), jnp.float32)

  jitted = jax.jit(function)
  traced = not host and (host is False or _traces(function, image_shape))

  def predict(images: np.ndarray) -> np.ndarray:
    # A copy: arrays of JAX are read-only, which PyTorch warns of.
    logits = jitted(images) if traced else make(np.array(images))
    return np.asarray(logits, np.float32)

  sha = hashlib.sha256(models.source_digest(where).encode())
  sha.update(json.dumps([where, settings], sort_keys=True).encode())
  card = Card(
    name,
    num_classes=foreign.classes_of(name, predict, image_shape),
    image_shape=image_shape,
    params_sha256=sha.hexdigest(),
    settings=settings,
  )
  return Function(predict, function if traced else None, card)


def _traces(function: Callable[[Array], Array], image_shape: Shape) -> bool:
  """Returns whether JAX can trace a function of images."""
  image = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
  try:
    jax.eval_shape(function, image)
  except Exception:  # whatever the libraries raise that it calls
    return False
  return True
