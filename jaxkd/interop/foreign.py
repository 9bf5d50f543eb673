"""Programs of other tools as functions: ONNX models, and exports of JAX.

Each reader returns a function of normalised images, float32 [B, H, W, C] with
any B, that returns logits, float32 [B, K]. The file need not have a card.
"""

import pathlib
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxkd.catalog import lookup
from jaxkd.interop.export import PROGRAM, Predict, onnx_session
from jaxkd.types import Array

Shape = tuple[int, int, int]
LAYOUTS = ('NHWC', 'NCHW')
TYPES = {  # of ONNX inputs
  'tensor(float)': np.float32,
  'tensor(float16)': np.float16,
  'tensor(double)': np.float64,
}


class Program(NamedTuple):
  """A program that is a function of images.

  predict: in NumPy.
  function: in JAX, where it can be part of another program; else None.
  num_classes: K.
  """

  predict: Predict
  function: Callable[[Array], Array] | None
  num_classes: int


def onnx(
  path: pathlib.Path, image_shape: Shape, layout: str = '', output: str = ''
) -> Program:
  """Reads any ONNX model of images; it runs on the CPU, in ONNX Runtime.

  Args:
    path: of the file.
    image_shape: [H, W, C] of the images.
    layout: of its input, 'NHWC' or 'NCHW'; '' tells it from the input's shape.
    output: the name of the logits; '' takes the only output [B, K].

  Raises:
    ImportError: ONNX Runtime is absent.
    KeyError: it has no such output, with suggestions.
    ValueError: the file is corrupt; its input is not such images; it is not
      clear which output are the logits.
  """
  session = onnx_session(path)
  inputs = session.get_inputs()
  if len(inputs) != 1 or len(inputs[0].shape) != 4:
    shapes = {each.name: each.shape for each in inputs}
    raise ValueError(
      f'{path} must have one input, of images [B, H, W, C] or [B, C, H, W], got'
      f' {shapes}'
    )
  image = inputs[0]
  dtype = lookup(f'input of {path.name} of type', TYPES, image.type)
  layout = _layout(path, image.shape, image_shape, layout)
  size = image.shape[0] if isinstance(image.shape[0], int) else None
  name = _output(path, session.get_outputs(), output)

  def run(images: np.ndarray) -> np.ndarray:
    if layout == 'NCHW':
      images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return session.run([name], {image.name: images.astype(dtype)})[0]

  predict = in_batches(run, size)
  return Program(predict, None, classes_of(path.name, predict, image_shape))


def _layout(
  path: pathlib.Path, shape: list[Any], image_shape: Shape, layout: str
) -> str:
  """Returns the layout of a model's input.

  Raises:
    ValueError: the images do not fit it, or fit two layouts.
  """
  if layout and layout not in LAYOUTS:
    raise ValueError(f'layout must be NHWC or NCHW, got {layout!r}')
  height, width, channels = image_shape
  wanted = {
    'NHWC': (height, width, channels),
    'NCHW': (channels, height, width),
  }
  fits = [
    each
    for each in LAYOUTS
    if all(
      not isinstance(own, int) or own == want
      for own, want in zip(shape[1:], wanted[each], strict=True)
    )
  ]
  if layout in fits:
    return layout
  if layout or not fits:
    raise ValueError(
      f'{path} takes images of shape {shape}, which does not fit images'
      f' [H, W, C] = {list(image_shape)}'
      + (f' in layout {layout}' if layout else '')
      + ': set the image_size and channels of the teacher to its own'
    )
  if len(fits) > 1:
    raise ValueError(
      f'{path} takes images of shape {shape}, which may be [B, H, W, C] or'
      ' [B, C, H, W]: set teacher.settings.layout to NHWC or NCHW'
    )
  return fits[0]


def _output(path: pathlib.Path, outputs: list[Any], output: str) -> str:
  """Returns the name of the output that is the logits."""
  if output:
    return lookup(
      f'output of {path.name}', {x.name: x for x in outputs}, output
    ).name
  vectors = [x.name for x in outputs if x.shape is None or len(x.shape) == 2]
  if len(outputs) == 1:
    return outputs[0].name
  if len(vectors) == 1:
    return vectors[0]
  raise ValueError(
    f'{path} has the outputs {[x.name for x in outputs]}: set'
    ' teacher.settings.output to the one that is the logits'
  )


def stablehlo(path: pathlib.Path, image_shape: Shape) -> Program:
  """Reads any program of `jax.export`: image -> logits.

  Args:
    path: a file of jaxkd, or of the bytes of `jax.export.Exported.serialize`.
    image_shape: [H, W, C] of the images.

  Raises:
    ValueError: the file is corrupt, or of another function, or was exported
      for other devices than there are.
  """
  try:
    if zipfile.is_zipfile(path):
      with zipfile.ZipFile(path) as file:
        data = file.read(PROGRAM)
    else:
      data = path.read_bytes()
    exported = jax.export.deserialize(bytearray(data))
  except Exception as error:  # of flatbuffers, versions, and the file
    raise ValueError(
      f'{path} is corrupt, or not a program of jax.export: {error}'
    ) from error
  backend = jax.default_backend()
  platform = {'gpu': 'cuda'}.get(backend, backend)
  if platform not in exported.platforms:
    raise ValueError(
      f'{path} was exported for {", ".join(exported.platforms)}, and runs here'
      f' on {platform}: export it with platforms=[{platform!r}, ...]'
    )
  shapes = [x.shape for x in exported.in_avals]
  if len(shapes) != 1 or len(shapes[0]) != 4 or len(exported.out_avals) != 1:
    raise ValueError(
      f'{path} must be a function of images [B, H, W, C] that returns logits'
      f' [B, K], got arguments of shape {shapes} and'
      f' {len(exported.out_avals)} results'
    )
  for own, want in zip(shapes[0][1:], image_shape, strict=True):
    if isinstance(own, int) and own != want:
      raise ValueError(
        f'{path} takes images [H, W, C] = {list(shapes[0][1:])}, the data set'
        f' has {list(image_shape)}'
      )
  dtype = exported.in_avals[0].dtype

  def function(images: Array) -> Array:
    results = exported.call(images.astype(dtype))
    (logits,) = jax.tree.leaves(results)
    return logits.astype(jnp.float32)

  jitted = jax.jit(function)
  size = shapes[0][0] if isinstance(shapes[0][0], int) else None
  predict = in_batches(lambda images: np.asarray(jitted(images)), size)
  classes = classes_of(path.name, predict, image_shape)
  # A program of one batch size cannot be a part of one for another size.
  return Program(predict, None if size else function, classes)


def in_batches(run: Predict, size: int | None) -> Predict:
  """Returns a function of any number of images, given one of `size` images.

  Args:
    run: images [size, H, W, C] -> logits [size, K].
    size: None: any.
  """

  def predict(images: np.ndarray) -> np.ndarray:
    if size is None:
      return np.asarray(run(images), np.float32)
    parts = []
    for start in range(0, len(images), size):
      part = images[start : start + size]
      padding = np.zeros((size - len(part), *images.shape[1:]), images.dtype)
      logits = run(np.concatenate([part, padding]))
      parts.append(np.asarray(logits, np.float32)[: len(part)])
    return np.concatenate(parts)

  return predict


def classes_of(name: str, predict: Predict, image_shape: Shape) -> int:
  """Returns K, by running a function on two black images.

  Raises:
    ValueError: it fails, or does not return logits [2, K].
  """
  try:
    logits = predict(np.zeros((2, *image_shape), np.float32))
  except Exception as error:  # of a user's function, or of another program
    raise ValueError(
      f'{name} fails on float32 images [2, H, W, C] ='
      f' {[2, *image_shape]}: {type(error).__name__}: {error}'
    ) from error
  if logits.ndim != 2 or len(logits) != 2:
    raise ValueError(
      f'{name} must return logits [B, K], got shape {list(logits.shape)} for'
      ' B = 2'
    )
  return logits.shape[1]
