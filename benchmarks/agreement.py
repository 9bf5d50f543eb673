"""Whether a step in PyTorch is ours: `benchmarks.peer` checks that first."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks.run import Case
from benchmarks.torch_step import TorchSteps, view_numbers
from jaxkd.graph.program import predict
from jaxkd.interop.torch import to_state_dict
from jaxkd.training import state as states
from jaxkd.training.phase import Task
from jaxkd.types import Variables

# Largest differences that rounding explains. The sign of a number close to zero
# decides whether a ReLU passes a gradient, so updates differ more than logits,
# by one or two hundredths in a MobileNetV2. There is no ReLU behind the head.
TOLERANCES = {'logits': 1e-4, 'loss': 1e-4, 'head': 1e-3, 'update': 1e-1}
ONE_STEP = ('head', 'update')  # rounding grows from step to step


class Differences(NamedTuple):
  """Relative differences of two steps.

  logits: the largest of the teacher's and the student's in eval mode, over the
    largest logit.
  loss: of the first step.
  head: the norm of the difference of the last layer's parameters after the
    first call, over the norm of their change.
  update: the same of all parameters.
  """

  logits: float
  loss: float
  head: float
  update: float

  def check(self, steps: int) -> None:
    """Checks that both steps are the same.

    Args:
      steps: in a call; after several, updates are not checked.

    Raises:
      ValueError: they differ by more than rounding.
    """
    large = [
      f'{name} by {value:.1e}, at most {TOLERANCES[name]:.0e} expected'
      for name, value in self._asdict().items()
      if not value <= TOLERANCES[name] and (steps == 1 or name not in ONE_STEP)
    ]
    if large:
      raise ValueError(
        f"PyTorch's step differs from ours: {'; '.join(large)}. Their times"
        ' cannot be compared'
      )


def variables_of(task: Task, state: states.State) -> dict[str, Variables]:
  """Returns copies of a state's networks; a step donates the state."""
  return jax.tree.map(np.array, states.variables_of(task.program, state))


def compare(
  task: Task, ours: Case, peers: Sequence[TorchSteps]
) -> list[Differences]:
  """Makes the first call of each case and returns the differences from ours.

  Args:
    task: of the step.
    ours: our steps, before the first one.
    peers: PyTorch's, with the same weights and batches.
  """
  before = variables_of(task, ours.state)
  logits = _logits(task, before, peers)
  for case in (ours, *peers):
    case.call()
  loss = float(np.asarray(ours.metrics['loss'])[0])
  name = ours.pair.partition(':')[2]
  old, new = (
    to_state_dict(name, x['student'])
    for x in (before, variables_of(task, ours.state))
  )
  return [
    Differences(
      logits=apart,
      loss=abs(float(peer.losses[0]) / loss - 1),
      head=_update(old, new, [*peer.student.named_parameters()][-2:]),
      update=_update(old, new, [*peer.student.named_parameters()]),
    )
    for apart, peer in zip(logits, peers, strict=True)
  ]


def _logits(
  task: Task,
  variables: Mapping[str, Variables],
  peers: Sequence[TorchSteps],
  examples: int = 8,
) -> list[float]:
  """Returns the largest difference of the first images' logits of each peer."""
  index, epoch = np.arange(examples, dtype=np.int32), jnp.int32(0)
  raw = {name: x[:examples] for name, x in task.dataset.train.arrays.items()}
  view = task.dataset.view

  @jax.jit
  def logits(variables, raw):
    image = task.problem.train_view(raw, epoch, task.seed, view)['image']
    return {
      name: predict(task.program.modules[name], x, image).logits
      for name, x in variables.items()
    }

  ours = logits(variables, {**raw, 'index': index})
  numbers = view_numbers(index, 0, task.seed, view)
  differences = []
  for peer in peers:
    theirs = peer.predict(peer.images(index, numbers)[0])
    relative = [
      np.abs(theirs[name] - x).max() / np.abs(x).max()
      for name, x in ours.items()
    ]
    differences.append(float(max(relative)))
  return differences


def _update(
  old: Mapping[str, np.ndarray],
  new: Mapping[str, np.ndarray],
  parameters: Sequence[tuple[str, torch.Tensor]],
) -> float:
  """Returns the difference of parameters over their change, in norms.

  Args:
    old: arrays before the update, by PyTorch's names.
    new: ours after it.
    parameters: PyTorch's after it, with their names.
  """
  apart, moved = 0.0, 0.0
  for name, x in parameters:
    theirs = x.detach().cpu().numpy().astype(np.float64)
    apart += float(np.sum((theirs - new[name]) ** 2))
    moved += float(np.sum((theirs - old[name]) ** 2))
  return (apart / moved) ** 0.5
