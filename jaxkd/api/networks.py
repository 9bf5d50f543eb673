"""Networks as people use them: images in, logits or probabilities out."""

import functools
import os
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxkd import checkpoints, disk
from jaxkd.data.base import Dataset
from jaxkd.types import Variables

BATCH = 256  # images at a time


class Network:
  """A trained network: a function of images, with its card.

  Attributes:
    path: of the network.
    card: its model card.
    metrics: on the test split after its training, by name.
    predict: the function of normalised images, float32 [B, H, W, C], that
      returns logits, float32 [B, K].
    dataset: the data that it was trained on, if they are in memory.
  """

  def __init__(
    self,
    path: str | os.PathLike[str],
    metrics: Mapping[str, float | None] | None = None,
    dataset: Dataset | None = None,
  ):
    """Reads a network; see `load_network`.

    Args:
      path: of the network.
      metrics: on the test split, where they are newer than those on the card.
      dataset: the data that it was trained on, if they are in memory.
    """
    self.path = disk.expanded(path)
    self.predict, self.card = checkpoints.load_function(self.path)
    self.metrics = {**self.card.results, **(metrics or {})}
    self.dataset = dataset

  def __call__(self, images: Any) -> np.ndarray:
    """Returns logits, float32 [B, K], of images as files have them.

    Args:
      images: [B, H, W, C], or [H, W, C] for one image, whose logits are then
        [K]. Bytes (uint8) from 0 to 255, or real numbers from 0 to 1; they are
        normalised as on the network's card. A network of real-valued data takes
        those, in their own unit.

    Raises:
      ValueError: another shape than the card's, or real numbers that look like
        bytes.
    """
    images = np.asarray(images)
    if images.ndim == len(self.card.image_shape):
      return self(images[None])[0]
    batch = self._normalised(images)
    parts = range(0, len(batch), BATCH)
    return np.concatenate([self.predict(batch[i : i + BATCH]) for i in parts])

  def probabilities(self, images: Any) -> np.ndarray:
    """Returns probabilities, float32 [B, K]; see `__call__`."""
    return np.asarray(jax.nn.softmax(jnp.asarray(self(images))))

  def classes(self, images: Any) -> list[str]:
    """Returns the name of the most probable class of each image."""
    best = np.atleast_1d(np.argmax(self(images), axis=-1))
    names = self.card.class_names
    return [names[k] if names else str(k) for k in best]

  def _normalised(self, images: np.ndarray) -> np.ndarray:
    """Returns a batch as the module takes it, float32 [B, H, W, C]."""
    card = self.card
    if images.shape[1:] != tuple(card.image_shape):
      raise ValueError(
        f'{card.name} takes images [B, {", ".join(map(str, card.image_shape))}]'
        f' or one of them, got {list(images.shape)}; resize them first'
      )
    scale = 255.0 if card.scale is None else card.scale
    if scale == 255 and not np.issubdtype(images.dtype, np.integer):
      if images.size and images.max() > 2:
        raise ValueError(
          f'real-valued images must be from 0 to 1, got {images.max():g}: pass'
          ' uint8 from 0 to 255, or divide by 255'
        )
      scale = 1.0
    image = images.astype(np.float32) / scale
    if not card.mean:
      return image
    mean, std = (np.asarray(x, np.float32) for x in (card.mean, card.std))
    return (image - mean) / std

  @property
  def top1(self) -> float:
    """Accuracy on the test split, a fraction.

    Raises:
      AttributeError: the network was not evaluated, or is no classifier.
    """
    value = self.metrics.get('top1')
    if value is None:
      raise AttributeError(
        f'{self.card.name} has no top1: its metrics are {sorted(self.metrics)}'
      )
    return value

  @functools.cached_property
  def _saved(self) -> checkpoints.SavedNetwork:
    return checkpoints.load(self.path)

  @property
  def module(self) -> nn.Module:
    """The Flax module."""
    return self.card.module()

  @property
  def variables(self) -> Variables:
    """The module's arrays: 'params' and 'batch_stats'."""
    return self._saved.module_variables()

  def __repr__(self) -> str:
    card, top1 = self.card, self.metrics.get('top1')
    shown = '' if top1 is None else f', top-1 {100 * top1:.2f} %'
    return f'<{card.name}: {card.model_name}{shown}, {self.path}>'


def load_network(path: str | os.PathLike[str]) -> Network:
  """Reads a network, in any format that jaxkd writes.

  Args:
    path: of a run, whose student (or else teacher) is taken; of a network's
      folder; or of a file: .npz, .safetensors, .pth, .stablehlo, .onnx.

  Raises:
    FileNotFoundError: there is no network.
    ImportError: the format needs a library that is absent.
    ValueError: the file is corrupt, or has no card.
  """
  return Network(path)
