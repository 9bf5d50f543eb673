"""The protocol of an objective: two pure functions and a name."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from jaxkd.types import Array, Batch, Outputs, Tree


class Init(Protocol):
  """Makes what an objective owns; traced, so it must not look at values."""

  def __call__(
    self, key: Array, guide: Outputs | None, learner: Outputs, examples: int
  ) -> tuple[Tree, Tree]:
    """Returns (params, memory), each {} where there is none.

    Args:
      key: for random initial values.
      guide: outputs of the right shapes (batch of 1); None if it is `labels`.
      learner: likewise.
      examples: size of the training set, for memory banks.
    """
    ...


class Loss(Protocol):
  """One transfer's loss on one batch."""

  def __call__(
    self,
    params: Tree,
    memory: Tree,
    guide: Outputs | None,
    learner: Outputs,
    batch: Batch,
    key: Array,
  ) -> tuple[Array, Tree]:
    """Returns (loss, memory).

    Args:
      params: this objective's own, learned with the networks.
      memory: this objective's own, never differentiated.
      guide: outputs of the guide; None if it is `labels`.
      learner: outputs of the learner.
      batch: the batch that both have seen.
      key: for this step and this transfer.

    Returns:
      The loss, [B] (then averaged over the batch's mask) or a scalar, and the
      memory for the next step.
    """
    ...


class Objective(NamedTuple):
  """A named pair of pure functions, closed over hyper-parameters.

  name: short, as in the catalogue; part of the metrics' names.
  settings: the hyper-parameters, for printing.
  matches_probabilities: the gradient at the learner's logits is the difference
    of its probabilities and the guide's (one-hot for labels), so that several
    such objectives have the weighted mean of the guides' as their target.
  """

  name: str
  settings: dict[str, object]
  init: Init
  loss: Loss
  matches_probabilities: bool = False

  def __str__(self) -> str:
    inside = ', '.join(f'{k}={v}' for k, v in self.settings.items())
    return f'{self.name}({inside})'


def pointwise(
  name: str,
  function: Callable[[Any, Outputs, Batch], Array],
  takes_labels: bool = False,
  **settings: object,
) -> Objective:
  """Returns an objective that owns nothing: a function of outputs and batch.

  Args:
    name: see `Objective`.
    function: (guide, learner, batch) -> loss, [B] or scalar.
    takes_labels: the guide may be `labels`, and is None then.
    **settings: the hyper-parameters in `function`, for printing.

  The loss raises:
    ValueError: the guide is `labels`, where it has to be a network.
  """

  def init(key, guide, learner, examples):
    del key, guide, learner, examples
    return {}, {}

  def loss(params, memory, guide, learner, batch, key):
    del params, key
    if guide is None and not takes_labels:
      raise ValueError(
        f'{name} compares the learner with a network, and the guide is'
        " 'labels': let a network be the guide, or take an objective of labels,"
        " like 'cross_entropy'"
      )
    return function(guide, learner, batch), memory

  return Objective(name, settings, init, loss)


def wrapped(loss: Loss, function: Callable[[Array], Array]) -> Loss:
  """Returns a loss that sees a function of all logits; taps and labels stay."""

  def change(outputs: Outputs) -> Outputs:
    return outputs._replace(logits=function(outputs.logits))

  def changed(params, memory, guide, learner, batch, key):
    guide = None if guide is None else change(guide)
    return loss(params, memory, guide, change(learner), batch, key)

  return changed
