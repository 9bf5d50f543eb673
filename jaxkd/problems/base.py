"""The protocol of a problem: what is predicted, and by which metrics."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxkd import text
from jaxkd.data.base import Dataset, View
from jaxkd.metrics.sums import Sums
from jaxkd.types import Array, Batch, Metrics

Raw = Mapping[str, Any]  # examples as stored: 'image', 'label', 'index', ...


@dataclasses.dataclass(frozen=True)
class Display:
  """How a metric is shown to people.

  label: its name, with its unit.
  percent: whether it is a fraction that is shown in per cent.
  column: the heading of its column in the table of a run's networks; '' leaves
    it out of that table.
  optional: whether only some data sets have it.
  """

  label: str
  percent: bool = False
  column: str = ''
  optional: bool = False

  def show(self, value: float | None) -> str:
    """Returns the value as text; a dash for None."""
    return text.percent(value) if self.percent else text.number(value)


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
  """Everything that depends on the kind of labels.

  The functions that get arrays are pure and run under `jit`. Logits and labels
  may have any shape after the batch axis: classification has logits
  [B, K] and labels [B], a label for each pixel has [B, H, W, K] and [B, H, W].

  Attributes:
    name: as in `problems.CATALOG`.
    batch_spec: (image_shape [H, W, C], B, K) -> a `Batch` of
      `jax.ShapeDtypeStruct`, which is what networks and objectives see.
    train_view: (raw, epoch, seed, view) -> a batch of random training views.
      Raw are examples as stored, the epoch is an int32 scalar, the seed the
      run's. Image and label are transformed together. The mask holds the
      weights of the examples, if the data have any.
    eval_view: (raw, mask, view) -> a batch of evaluation views; mask [B] is 1
      for examples that count and 0 for padding.
    label_objective: the name of the objective against labels, unless a method
      sets another one.
    metrics: (logits, batch) -> means over the unmasked part of a batch, scalars
      by name. The headline is one of them.
    sums: (logits, batch) -> sums over the unmasked part of a batch, to be added
      up over batches; 'seen' is the number of examples.
    rows: (logits, batch) -> arrays [B, ...] by name, which `summary` needs of
      all examples of a split together, besides sums: scores that are ranked,
      for example. None if sums are enough.
    agreement: (student's logits, teacher's, batch, temperature) -> sums
      likewise, of how far two networks agree.
    summary: sums over a split, of either kind, with the `rows` of the split
      -> metrics by name.
    headline: the metric by which networks are judged. More is better, and it is
      at least 0.
    finite: metrics that are NaN or infinite only if a training has diverged.
      The first is drawn beside the headline.
    displays: metric -> how it is shown, in the order of tables.
    chance: data set -> the headline of random guesses on its test split, mean
      and standard deviation; None if that depends on more than the data.
    sigmoid: whether labels are a multi-hot matrix [B, K] and each logit is that
      of a sigmoid, so that objectives of a softmax are not defined; see
      `Objective.sigmoid`.
  """

  name: str
  batch_spec: Callable[[tuple[int, int, int], int, int], Batch]
  train_view: Callable[[Raw, Array, int | Array, View], Batch]
  eval_view: Callable[[Raw, Array, View], Batch]
  label_objective: str
  metrics: Callable[[Array, Batch], Metrics]
  sums: Callable[[Array, Batch], Sums]
  agreement: Callable[[Array, Array, Batch, float], Sums]
  summary: Callable[[Mapping[str, np.ndarray]], dict[str, float]]
  headline: str
  finite: tuple[str, ...]
  displays: Mapping[str, Display]
  chance: Callable[[Dataset], tuple[float, float]] | None = None
  rows: Callable[[Array, Batch], dict[str, Array]] | None = None
  sigmoid: bool = False

  @property
  def best(self) -> str:
    """The name of the headline's maximum over epochs, on the test split."""
    return f'best_{self.headline}_on_test'

  @property
  def reported(self) -> dict[str, Display]:
    """How metrics of a trained network are shown, with its best headline."""
    reported = {}
    for name, display in self.displays.items():
      reported[name] = display
      if name == self.headline:
        label = f'best {display.label} of all epochs'
        reported[self.best] = Display(label, display.percent)
    return reported

  def show_headline(self, metrics: Mapping[str, Any]) -> str:
    """Returns the headline as text, such as '61.90 %'."""
    return self.displays[self.headline].show(metrics[self.headline])
