"""Learning curves of all networks, and the gap to the student.

Distillation with teachers that learn, such as https://arxiv.org/abs/2410.04140,
aims to keep this gap small.
"""

import dataclasses
import math
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxkd.catalog import lookup
from jaxkd.plots.style import (
  COLOURS,
  INK,
  STUDENT_COLOUR,
  figure_title,
  label,
  legend,
  save,
  two_axes,
)

Rows = Sequence[Mapping[str, Any]]
Curve = dict[str, list[float]]
AVERAGE = '_ema'  # suffix of the name of a network with averaged parameters


@dataclasses.dataclass(frozen=True)
class GapMetrics:
  """The two metrics that are drawn.

  headline: the metric whose gap to the student is drawn, as in the rows.
  headline_label: its name.
  percent: whether it is a fraction that is drawn in per cent.
  loss: the other metric.
  loss_label: its name, with its unit.
  """

  headline: str = 'top1'
  headline_label: str = 'top-1'
  percent: bool = True
  loss: str = 'nll'
  loss_label: str = 'NLL (nats)'

  @property
  def scale(self) -> float:
    """The factor of the headline."""
    return 100 if self.percent else 1


CLASSIFICATION = GapMetrics()


def curves(
  rows: Rows, metrics: GapMetrics = CLASSIFICATION
) -> dict[str, Curve]:
  """Returns the test results of each network by epoch.

  A network is tested in the phase that trains it and, frozen, in the phases
  that use it. Only the last phase with test results of the network is used,
  which for a teacher is the student's. To select a phase, pass only its rows.

  Args:
    rows: one dict per epoch, as in metrics.jsonl.
    metrics: the two.

  Returns:
    Network -> 'epoch' and the two metrics by their names in the rows, lists of
    equal length. A loss that was not logged, or was not finite, is NaN.

  Raises:
    ValueError: no row has a test result of the headline.

  >>> curves([{'phase': 'distil', 'epoch': 1, 'test/student/top1': 0.5}])
  {'student': {'epoch': [1], 'top1': [0.5], 'nll': [nan]}}
  """
  by_network, phases = {}, {}
  for row in rows:
    for name in _tested(row, metrics.headline):
      if phases.get(name) != row.get('phase') or name not in by_network:
        by_network[name] = {'epoch': [], metrics.headline: [], metrics.loss: []}
        phases[name] = row.get('phase')
      loss = row.get(f'test/{name}/{metrics.loss}')
      by_network[name]['epoch'].append(row['epoch'])
      by_network[name][metrics.headline].append(
        row[f'test/{name}/{metrics.headline}']
      )
      by_network[name][metrics.loss].append(math.nan if loss is None else loss)
  if not by_network:
    raise ValueError(
      f'no test {metrics.headline_label} in {len(rows)} rows: a row must have'
      f" keys such as 'epoch' and 'test/student/{metrics.headline}', as in"
      ' metrics.jsonl'
    )
  return by_network


def _tested(row: Mapping[str, Any], headline: str) -> list[str]:
  """Returns the names of the networks with a test result in a row."""
  end = f'/{headline}'
  return [
    key.removeprefix('test/').removesuffix(end)
    for key, value in row.items()
    if key.startswith('test/') and key.endswith(end) and value is not None
  ]


def frozen(rows: Rows, headline: str = CLASSIFICATION.headline) -> set[str]:
  """Returns the networks that were frozen in the last phase that tested them.

  A phase logs the headline of each network that it trains, on its batches. If
  it logs none, no network is considered frozen.

  Args:
    rows: one dict per epoch, as in metrics.jsonl.
    headline: the metric.
  """
  start = f'train/{headline}/'
  status = {}
  for row in rows:
    trained = {key.removeprefix(start) for key in row if key.startswith(start)}
    for name in _tested(row, headline):
      status[name] = trained and name.removesuffix(AVERAGE) not in trained
  return {name for name, is_frozen in status.items() if is_frozen}


def gaps(
  curves: Mapping[str, Curve],
  student: str,
  metrics: GapMetrics = CLASSIFICATION,
) -> dict[str, Curve]:
  """Returns the gap between each other network and the student.

  Args:
    curves: from `curves`.
    student: the network that the others are compared with.
    metrics: the two, of which the headline is compared.

  Returns:
    Network -> 'epoch' and 'gap', the network's headline less the student's, in
    percentage points if it is drawn in per cent, at the epochs when both were
    tested; networks without such an epoch are left out.

  Raises:
    KeyError: the student was not tested, with suggestions.
  """
  own = lookup('tested network', curves, student)
  reference = dict(zip(own['epoch'], own[metrics.headline], strict=True))
  by_network = {}
  for name, curve in curves.items():
    both = [
      (epoch, metrics.scale * (value - reference[epoch]))
      for epoch, value in zip(
        curve['epoch'], curve[metrics.headline], strict=True
      )
      if epoch in reference
    ]
    if name != student and both:
      epochs, differences = zip(*both, strict=True)
      by_network[name] = {'epoch': list(epochs), 'gap': list(differences)}
  return by_network


def gap(
  rows: Rows,
  path: str | os.PathLike[str],
  *,
  student: str = 'student',
  guide: str | None = None,
  title: str = '',
  metrics: GapMetrics = CLASSIFICATION,
) -> pathlib.Path:
  """Draws two test metrics, and the gap to the student, by epoch.

  Args:
    rows: one dict per epoch, as in metrics.jsonl.
    path: of the PNG; its folder exists.
    student: the network that the others are compared with.
    guide: a network that is highlighted with thick lines, as the student is.
    title: above the panels; '' for none.
    metrics: the two.

  Returns:
    The path of the PNG.

  Raises:
    ValueError: no row has a test result of the headline.
    KeyError: the student or the guide was not tested, with suggestions.
  """
  from matplotlib.figure import Figure

  tested = curves(rows, metrics)
  differences = gaps(tested, student, metrics)
  if guide is not None:
    lookup('tested network', tested, guide)
  styles = _styles(tested, student, guide, frozen(rows, metrics.headline))
  figure = Figure(figsize=(12, 4.2), layout='constrained')
  headline, loss, gap_panel = figure.subplots(1, 3)
  for name, curve in tested.items():
    scaled = [metrics.scale * x for x in curve[metrics.headline]]
    _draw(headline, curve['epoch'], scaled, styles[name])
    _draw(loss, curve['epoch'], curve[metrics.loss], styles[name])
  gap_panel.axhline(0, color=INK, linewidth=1, zorder=1)
  for name, curve in differences.items():
    _draw(gap_panel, curve['epoch'], curve['gap'], styles[name])
  epochs = [epoch for curve in tested.values() for epoch in curve['epoch']]
  losses = [x for curve in tested.values() for x in curve[metrics.loss]]
  missing = '' if any(map(math.isfinite, losses)) else 'not logged'
  alone = '' if differences else 'no other network'
  unit, points = (' (%)', ' (points)') if metrics.percent else ('', '')
  name = metrics.headline_label
  lead = f'{name[:1].upper()}{name[1:]} lead over {student}{points}'
  _decorate(headline, f'Test {name}{unit}', epochs)
  _decorate(loss, f'Test {metrics.loss_label}', epochs, missing)
  _decorate(gap_panel, lead, epochs, alone)
  legend(figure, headline)
  figure_title(figure, title)
  return save(figure, path)


def _styles(
  names: Iterable[str], student: str, guide: str | None, frozen: set[str]
) -> dict[str, dict[str, Any]]:
  """Returns the line style of each network.

  A network with averaged parameters has the colour of the network, a dotted
  line and hollow markers; a frozen network has a dashed line.
  """
  names = list(names)
  bases = dict.fromkeys(name.removesuffix(AVERAGE) for name in names)
  others = [name for name in bases if name != student.removesuffix(AVERAGE)]
  colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(others)}
  styles = {}
  for name in names:
    average = name.endswith(AVERAGE)
    styles[name] = dict(
      label=f'{name} (frozen)' if name in frozen else name,
      color=colours.get(name.removesuffix(AVERAGE), STUDENT_COLOUR),
      linestyle='--' if name in frozen else ':' if average else '-',
      markerfacecolor='white' if average else None,
      linewidth=2.6 if name in (student, guide) else 1.6,
      zorder=3 if name in (student, guide) else 2,
    )
  return styles


def _draw(
  axes: Any,
  epochs: Sequence[float],
  values: Sequence[float],
  style: dict[str, Any],
) -> None:
  """Draws one curve, with markers if it has few points."""
  is_frozen = style['linestyle'] == '--'
  if is_frozen and len(epochs) == 1:
    axes.axhline(values[0], **style)
  else:
    marker = 'o' if len(epochs) <= 12 and not is_frozen else None
    axes.plot(epochs, values, marker=marker, markersize=4.5, **style)


def _decorate(
  axes: Any, title: str, epochs: Sequence[float], empty: str = ''
) -> None:
  """Sets the title and the axes of a panel.

  Args:
    axes: the panel.
    title: above it.
    epochs: of all panels, the range of the horizontal axis.
    empty: text in a panel without curves; '' if there are curves.
  """
  from matplotlib.ticker import MaxNLocator

  label(axes, title, 'Epoch')
  first, last = min(epochs), max(epochs)
  margin = 0.04 * (last - first) or 0.5
  axes.set_xlim(first - margin, last + margin)
  axes.xaxis.set_major_locator(
    MaxNLocator(integer=True, nbins=7, min_n_ticks=1)
  )
  two_axes(axes)
  if empty:
    axes.set_yticks([])
    axes.text(
      *(0.5, 0.6),
      empty,
      transform=axes.transAxes,
      ha='center',
      fontsize=11,
      color=INK,
    )
