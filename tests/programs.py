"""Functions as networks, and ONNX Runtime."""

from typing import Any

import flax.linen as nn
import pytest

from jaxkd.types import Outputs


class Wrapped(nn.Module):
  """A network without parameters that does what a function does."""

  function: Any

  def __call__(self, image, train=False):
    """Returns function(image) in the logits' place."""
    return Outputs(self.function(image), {})


def run(model, image):
  """The logits of an image by ONNX Runtime."""
  runtime = pytest.importorskip('onnxruntime')
  session = runtime.InferenceSession(model)
  (logits,) = session.run(['logits'], {'image': image})
  return logits
