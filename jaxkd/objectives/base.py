"""The protocol of an objective: two pure functions and a name."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from jaxkd.types import Array, Batch, Outputs, Tree


class Init(Protocol):
  """Initialises an objective's parameters and memory; it is traced."""

  def __call__(
    self,
    key: Array,
    *,
    learner: Outputs,
    guide: Outputs | None,
    examples: int,
  ) -> tuple[Tree, Tree]:
    """Returns (params, memory), each {} where there is none.

    An implementation names the arguments that it needs, and takes the others
    as `**_`.

    Args:
      key: for random initial values.
      learner: outputs of the right shapes (batch of 1).
      guide: likewise; None if it is `labels`.
      examples: size of the training set, for memory banks.
    """
    ...


class Loss(Protocol):
  """One transfer's loss on one batch."""

  def __call__(
    self,
    params: Tree,
    memory: Tree,
    *,
    learner: Outputs,
    guide: Outputs | None,
    batch: Batch,
    key: Array,
    epoch: Array,
    epochs: int,
  ) -> tuple[Array, Tree]:
    """Returns (loss, memory).

    An implementation names the arguments that it needs, and takes the others
    as `**_`.

    Args:
      params: this objective's own, learned with the networks.
      memory: this objective's own, never differentiated.
      learner: outputs of the learner.
      guide: outputs of the guide; None if it is `labels`.
      batch: the batch that both networks have been run on.
      key: for this step and this transfer.
      epoch: float32 scalar, continuous from 0.
      epochs: length of the phase.

    Returns:
      The loss, [B, ...] (then averaged over the batch's mask) or a scalar, and
      the memory for the next step.
    """
    ...


class Objective(NamedTuple):
  """A named pair of pure functions, closed over hyper-parameters.

  name: short, as in the catalogue; part of the metrics' names.
  settings: the hyper-parameters, for printing.
  matches_probabilities: the gradient at the learner's logits is the difference
    of its probabilities and the guide's (one-hot for labels), so that several
    such objectives have the weighted mean of the guides' as their target.
  sigmoid: it takes logits as those of one sigmoid for each class, and labels as
    a multi-hot matrix [B, K]. Others that read logits or labels are refused for
    problems where an image has several labels.
  """

  name: str
  settings: dict[str, object]
  init: Init
  loss: Loss
  matches_probabilities: bool = False
  sigmoid: bool = False

  def __str__(self) -> str:
    inside = ', '.join(f'{k}={v}' for k, v in self.settings.items())
    return f'{self.name}({inside})'


class Published(NamedTuple):
  """The published weights of an objective on CIFAR-100.

  They are those of the CIFAR-100 benchmark: RepDistiller
  (https://arxiv.org/abs/1910.10699) and, for dkd, kdsvd, ofd and reviewkd,
  mdistiller (https://arxiv.org/abs/2203.08679). Those of other objectives are
  from the code published with the paper. A module has no `PUBLISHED` if the
  weight of its objective is unknown, or if it is not used alone.

  weight: of the transfer.
  label_weight: of the cross-entropy beside it.
  """

  weight: float
  label_weight: float = 1.0


def pointwise(
  name: str,
  function: Callable[[Outputs, Any, Batch], Array],
  takes_labels: bool = False,
  **settings: object,
) -> Objective:
  """Returns an objective that owns nothing: a function of outputs and batch.

  Args:
    name: see `Objective`.
    function: (learner, guide, batch) -> loss, [B, ...] or a scalar.
    takes_labels: the guide may be `labels`, and is None then.
    **settings: the hyper-parameters in `function`, for printing.

  The loss raises:
    ValueError: the guide is `labels`, and the objective needs a network.
  """

  def init(key, **_):
    del key
    return {}, {}

  def loss(params, memory, *, learner, guide, batch, **_):
    del params
    if guide is None and not takes_labels:
      raise ValueError(
        f'{name} compares the learner with a network, and the guide is'
        " 'labels': let a network be the guide, or take an objective of labels,"
        " like 'cross_entropy'"
      )
    return function(learner, guide, batch), memory

  return Objective(name, settings, init, loss)


def with_logits(loss: Loss, function: Callable[[Array], Array]) -> Loss:
  """Returns a loss with a function applied to both networks' logits first.

  Taps and labels are unchanged.
  """

  def change(outputs: Outputs) -> Outputs:
    return outputs.replace(logits=function(outputs.logits))

  def changed(params, memory, *, learner, guide, **others):
    guide = None if guide is None else change(guide)
    return loss(params, memory, learner=change(learner), guide=guide, **others)

  return changed


def check_unit_temperature(name: str, objective: Objective) -> None:
  """Refuses an objective whose temperature a wrapper cannot set.

  Args:
    name: of the wrapper, for the message.
    objective: to be wrapped.

  Raises:
    ValueError: it has no temperature, or one other than 1.
  """
  if objective.settings.get('temperature') != 1:
    raise ValueError(
      f'{name} sets the temperature of its objective, got {objective}: take one'
      ' that has a temperature, and set it to 1.0'
    )
