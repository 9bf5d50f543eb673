"""The step of knowledge distillation in plain PyTorch, for `benchmarks.peer`.

It is what `benchmarks.run` times, in the way of PyTorch: images as bytes on the
device, one gather for crop and flip, normalisation, the teacher in eval mode
without gradients, the student in train mode, 0.1 cross-entropy + 0.9 T² KL at
T = 4, fused SGD. Metrics, which jaxkd's step returns, are left out.
"""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import torch_networks
from jaxkd.data import augment, batches
from jaxkd.data.base import Dataset, View
from jaxkd.interop.torch import to_state_dict
from jaxkd.types import Variables

LAYOUTS = {
  'channels first': torch.contiguous_format,
  'channels last': torch.channels_last,
}


class Loss(NamedTuple):
  """KD's hyper-parameters."""

  temperature: float = 4.0
  label_weight: float = 0.1
  guide_weight: float = 0.9

  def __call__(self, student: Tensor, teacher: Tensor, label: Tensor) -> Tensor:
    """Returns the loss of logits [B, K], a scalar."""
    t = self.temperature
    divergence = F.kl_div(
      F.log_softmax(student / t, dim=1),
      F.log_softmax(teacher / t, dim=1),
      reduction='batchmean',
      log_target=True,
    )
    labels = F.cross_entropy(student, label)
    return self.label_weight * labels + self.guide_weight * t**2 * divergence


class Sgd(NamedTuple):
  """The optimizer's hyper-parameters."""

  learning_rate: float
  momentum: float
  weight_decay: float


def network(name: str, variables: Variables, num_classes: int) -> nn.Module:
  """Returns a network with the weights of one of ours.

  Args:
    name: a key of `models.CATALOG`.
    variables: 'params' and 'batch_stats'.
    num_classes: K.
  """
  arrays = to_state_dict(name, variables)
  net = torch_networks.build(name, num_classes)
  net.load_state_dict({k: torch.from_numpy(x) for k, x in arrays.items()})
  return net


class Images:
  """A training split on a device, from which views are taken."""

  def __init__(
    self, dataset: Dataset, device: str, layout: torch.memory_format
  ):
    """Copies the split, padded with zeros.

    Args:
      dataset: whose training split is copied.
      device: of PyTorch.
      layout: of the maps.
    """
    arrays, self._view = dataset.train.arrays, dataset.view
    pad = self._view.pad
    around = ((0, 0), (pad, pad), (pad, pad), (0, 0))
    self._padded = torch.from_numpy(np.pad(arrays['image'], around)).to(device)
    self._label = torch.from_numpy(np.array(arrays['label'], np.int64))
    self._label = self._label.to(device)
    height, width = dataset.image_shape[:2]
    self._rows = torch.arange(height, device=device)
    self._columns = torch.arange(width, device=device)
    self._mean, self._std = (
      torch.tensor(x, device=device) for x in (self._view.mean, self._view.std)
    )
    self._device, self._layout = device, layout

  def __call__(
    self, index: np.ndarray, number: np.ndarray
  ) -> tuple[Tensor, Tensor]:
    """Returns normalised views [B, C, H, W] and labels [B].

    Args:
      index: int [B], positions in the split.
      number: int [B], of the views; see `augment.view_number`.
    """
    chosen, view = (
      torch.from_numpy(np.array(x, np.int64)).to(self._device)
      for x in (index, number)
    )
    side = 2 * self._view.pad + 1
    dy, dx = view // side % side, view % side
    flip = (view >= side**2)[:, None]
    rows = dy[:, None] + self._rows
    columns = torch.where(flip, self._columns.flip(0), self._columns)
    columns = dx[:, None] + columns
    # In bytes, which are a quarter of the memory.
    image = self._padded[
      chosen[:, None, None], rows[:, :, None], columns[:, None, :]
    ]
    image = (image.float() / self._view.scale - self._mean) / self._std
    image = image.permute(0, 3, 1, 2).contiguous(memory_format=self._layout)
    return image, self._label[chosen]


class Batches:
  """The batches and views of jaxkd's feed, step by step."""

  def __init__(self, dataset: Dataset, batch: int, seed: int):
    """Prepares the batches.

    Args:
      dataset: whose training split they are of; a whole number of batches.
      batch: B.
      seed: of order and views.
    """
    self._size, self._view = len(dataset.train), dataset.view
    self._batch, self._seed = batch, seed

  def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields indices and numbers of views, int32 [B] each."""
    for epoch in itertools.count():
      index, _ = batches.train_batches(
        self._size, self._batch, self._seed, epoch
      )
      numbers = view_numbers(index, epoch, self._seed, self._view)
      yield from zip(index, numbers, strict=True)


def view_numbers(
  index: np.ndarray, epoch: int, seed: int, view: View
) -> np.ndarray:
  """Returns the numbers of views, for indices of any shape, in an epoch."""
  flat = jnp.asarray(index.ravel())
  drawn = augment.view_number(flat, epoch, seed=seed, view=view)
  return np.asarray(drawn).reshape(index.shape)


class TorchSteps:
  """Steps of PyTorch, for `benchmarks.run.measure`.

  teacher: the frozen network.
  student: the learner.
  images: the data.
  losses: of the steps of the last call, scalars.
  """

  def __init__(
    self,
    dataset: Dataset,
    names: Mapping[str, str],
    variables: Mapping[str, Variables],
    feed: Batches,
    sgd: Sgd,
    *,
    layout: str,
    chunk: int = 1,
    device: str = 'cpu',
    compiled: bool = False,
  ):
    """Prepares the steps.

    Args:
      dataset: on which the student is trained.
      names: of the models 'teacher' and 'student'.
      variables: of these networks, as in jaxkd.
      feed: batches.
      sgd: of the optimizer.
      layout: a key of `LAYOUTS`.
      chunk: steps in a call.
      device: of PyTorch.
      compiled: whether the networks are compiled.
    """
    form = LAYOUTS[layout]
    self.teacher, self.student = (
      network(names[n], variables[n], dataset.num_classes).to(
        device=device, memory_format=form
      )
      for n in ('teacher', 'student')
    )
    self.teacher.eval().requires_grad_(False)
    self.student.train()
    self._forward: tuple[Any, Any] = self.teacher, self.student
    if compiled:
      self._forward = torch.compile(self.teacher), torch.compile(self.student)
    self.images = Images(dataset, device, form)
    self._batches, self._loss = iter(feed), Loss()
    self._chunk, self._device = chunk, device
    self._optimizer = torch.optim.SGD(
      self.student.parameters(),
      lr=sgd.learning_rate,
      momentum=sgd.momentum,
      weight_decay=sgd.weight_decay,
      fused=True,
    )
    self.losses: list[Tensor] = []

  def call(self) -> int:
    """Runs some steps to completion; returns their number."""
    self.losses = [self._step(*next(self._batches)) for _ in range(self._chunk)]
    if self._device == 'cuda':
      torch.cuda.synchronize()
    return self._chunk

  def predict(self, image: Tensor) -> dict[str, np.ndarray]:
    """Returns logits [B, K] of both networks in eval mode, by name."""
    with torch.inference_mode():
      logits = {
        'teacher': self.teacher(image),
        'student': self.student.eval()(image),
      }
    self.student.train()
    return {name: x.cpu().numpy() for name, x in logits.items()}

  def _step(self, index: np.ndarray, number: np.ndarray) -> Tensor:
    image, label = self.images(index, number)
    teacher, student = self._forward
    with torch.inference_mode():
      guide = teacher(image)
    # A tensor of the inference mode cannot be part of a graph.
    loss = self._loss(student(image), guide.clone(), label)
    self._optimizer.zero_grad(set_to_none=True)
    loss.backward()
    self._optimizer.step()
    return loss.detach()
