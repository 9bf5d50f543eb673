"""Networks as files that run without jaxkd: StableHLO and ONNX.

Either is a function of normalised images, float32 [B, H, W, C] with any B, that
returns logits, float32 [B, K], as the network's read-out gives them: their
softmax is the probabilities. The parameters are inside. The precision of matrix
products is the platform's default.
"""

import json
import pathlib
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxkd.disk import CARD, json_text
from jaxkd.types import Array, Variables

PLATFORMS = ('cpu', 'cuda', 'tpu')
PROGRAM = 'network.jax_export'  # beside the card, in a .stablehlo file

Predict = Callable[[np.ndarray], np.ndarray]  # images -> logits


def stablehlo(
  net: nn.Module, variables: Variables, image_shape: tuple[int, int, int]
) -> bytes:
  """Returns a network as a program that `jax.export.deserialize` reads.

  It runs on CPUs, NVIDIA GPUs and TPUs, in any version of JAX of the next six
  months at least (https://docs.jax.dev/en/latest/export/export.html).

  Args:
    net: any network; its eval mode is exported.
    variables: its arrays.
    image_shape: (H, W, C).
  """
  (batch,) = jax.export.symbolic_shape('batch')
  image = jax.ShapeDtypeStruct((batch, *image_shape), jnp.float32)
  apply = jax.jit(partial(_logits, net, variables))
  return bytes(jax.export.export(apply, platforms=PLATFORMS)(image).serialize())


def onnx(
  net: nn.Module,
  variables: Variables,
  image_shape: tuple[int, int, int],
  texts: Mapping[str, str] | None = None,
) -> bytes:
  """Returns a network as an ONNX model, input 'image' and output 'logits'.

  Args:
    net: a network of the operators in `onnx_primitives`; all of the catalogue
      are. Its eval mode is exported.
    variables: its arrays.
    image_shape: (H, W, C).
    texts: the model's metadata, by key.

  Raises:
    ImportError: the library is absent.
    ValueError: the network has an operation without a translation to ONNX.
  """
  library()
  from onnx import helper

  from jaxkd.interop import onnx_model

  model = onnx_model.model(partial(_logits, net), variables, image_shape)
  helper.set_model_props(model, dict(texts or {}))
  return model.SerializeToString()


def _logits(net: nn.Module, variables: Variables, image: Array) -> Array:
  outputs: Any = net.apply(variables, image)
  return outputs.logits


def library() -> Any:
  """Returns the module of ONNX Runtime.

  Raises:
    ImportError: ONNX or ONNX Runtime is absent.
  """
  try:
    import onnx  # noqa: F401
    import onnxruntime
  except ImportError as error:
    raise ImportError(
      'ONNX files are made with onnx and run with onnxruntime: pip install'
      " 'jaxkd[onnx]'. Or write a .stablehlo file, which needs neither"
    ) from error
  return onnxruntime


def write_stablehlo(
  path: pathlib.Path,
  net: nn.Module,
  variables: Variables,
  card: Mapping[str, Any],
) -> None:
  """Writes a network and its card: a zip of the program and 'network.json'.

  Args:
    path: of the file.
    net: see `stablehlo`.
    variables: its arrays.
    card: JSON-able, with 'image_shape'.
  """
  program = stablehlo(net, variables, tuple(card['image_shape']))
  with zipfile.ZipFile(path, 'w') as file:
    file.writestr(PROGRAM, program)
    file.writestr(CARD, json_text(card, indent=2))


def read_stablehlo(path: pathlib.Path) -> tuple[Predict, dict[str, Any]]:
  """Reads a file of `write_stablehlo`: returns a function and the card.

  Raises:
    ValueError: the file is corrupt, or of another kind.
  """
  try:
    with zipfile.ZipFile(path) as file:
      program = jax.export.deserialize(bytearray(file.read(PROGRAM)))
      card = json.loads(file.read(CARD))
  except (KeyError, zipfile.BadZipFile) as error:
    raise ValueError(
      f'{path} is corrupt, or not a .stablehlo file of jaxkd'
    ) from error
  call = jax.jit(program.call)
  return lambda image: np.asarray(call(image)), card


def write_onnx(
  path: pathlib.Path,
  net: nn.Module,
  variables: Variables,
  card: Mapping[str, Any],
) -> None:
  """Writes a network with its card in the model's metadata.

  The keys are 'network.json' and, for programs that read single entries,
  'class_names', 'mean', 'std' and 'scale'; each value is JSON.

  Args:
    path: of the file.
    net: see `onnx`.
    variables: its arrays.
    card: JSON-able, with 'image_shape'.
  """
  single = ('class_names', 'mean', 'std', 'scale')
  texts = {key: json_text(card[key]) for key in single if key in card}
  texts[CARD] = json_text(card)
  path.write_bytes(onnx(net, variables, tuple(card['image_shape']), texts))


def onnx_session(path: pathlib.Path) -> Any:
  """Returns an ONNX model, to be run on the CPU by ONNX Runtime.

  Raises:
    ImportError: the library is absent.
    ValueError: the file is corrupt, or of another kind.
  """
  runtime = library()
  try:
    return runtime.InferenceSession(path, providers=['CPUExecutionProvider'])
  except Exception as error:  # its errors have no class in common
    raise ValueError(
      f'{path} is corrupt, or not an .onnx file: {error}'
    ) from error


def read_onnx(path: pathlib.Path) -> tuple[Predict, dict[str, Any]]:
  """Reads a file of `write_onnx`: returns a function, on the CPU, and the card.

  Raises:
    ImportError: the library is absent.
    ValueError: the file is corrupt, or of another kind.
  """
  session = onnx_session(path)
  texts = session.get_modelmeta().custom_metadata_map
  if CARD not in texts:
    raise ValueError(
      f'{path} has no {CARD} in its metadata: jaxkd did not write it'
    )

  def predict(image: np.ndarray) -> np.ndarray:
    return session.run(['logits'], {'image': image})[0]

  return predict, json.loads(texts[CARD])
