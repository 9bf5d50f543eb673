"""Learning curves of all networks, and the accuracy gap to the student.

Distillation with teachers that learn, such as https://arxiv.org/abs/2410.04140,
aims to keep this gap small.
"""

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
TOP1 = '/top1'
AVERAGE = '_ema'  # suffix of the name of a network with averaged parameters


def curves(rows: Rows) -> dict[str, Curve]:
  """Returns the test results of each network by epoch.

  A network is tested in the phase that trains it and, frozen, in the phases
  that use it. Only the last phase with test results of the network is used,
  which for a teacher is the student's. To select a phase, pass only its rows.

  Args:
    rows: one dict per epoch, as in metrics.jsonl.

  Returns:
    Network -> 'epoch', 'top1' (fractions) and 'nll' (nats), lists of equal
    length. An NLL that was not logged, or was not finite, is NaN.

  Raises:
    ValueError: no row has a test accuracy.

  >>> curves([{'phase': 'distil', 'epoch': 1, 'test/student/top1': 0.5}])
  {'student': {'epoch': [1], 'top1': [0.5], 'nll': [nan]}}
  """
  by_network, phases = {}, {}
  for row in rows:
    for name in _tested(row):
      if phases.get(name) != row.get('phase') or name not in by_network:
        by_network[name] = {'epoch': [], 'top1': [], 'nll': []}
        phases[name] = row.get('phase')
      nll = row.get(f'test/{name}/nll')
      by_network[name]['epoch'].append(row['epoch'])
      by_network[name]['top1'].append(row[f'test/{name}{TOP1}'])
      by_network[name]['nll'].append(math.nan if nll is None else nll)
  if not by_network:
    raise ValueError(
      f'no test accuracy in {len(rows)} rows: a row must have keys such as'
      f" 'epoch' and 'test/student{TOP1}', as in metrics.jsonl"
    )
  return by_network


def _tested(row: Mapping[str, Any]) -> list[str]:
  """Returns the names of the networks with a test accuracy in a row."""
  return [
    key.removeprefix('test/').removesuffix(TOP1)
    for key, value in row.items()
    if key.startswith('test/') and key.endswith(TOP1) and value is not None
  ]


def frozen(rows: Rows) -> set[str]:
  """Returns the networks that were frozen in the last phase that tested them.

  A phase logs the training accuracy of each network that it trains. If it logs
  no training accuracy, no network is considered frozen.
  """
  status = {}
  for row in rows:
    trained = {
      key.removeprefix('train/top1/')
      for key in row
      if key.startswith('train/top1/')
    }
    for name in _tested(row):
      status[name] = trained and name.removesuffix(AVERAGE) not in trained
  return {name for name, is_frozen in status.items() if is_frozen}


def gaps(curves: Mapping[str, Curve], student: str) -> dict[str, Curve]:
  """Returns the gap in top-1 between each other network and the student.

  Args:
    curves: from `curves`.
    student: the network that the others are compared with.

  Returns:
    Network -> 'epoch' and 'gap', 100 (its top-1 - the student's top-1) in
    percentage points, at the epochs when both were tested; networks without
    such an epoch are left out.

  Raises:
    KeyError: the student was not tested, with suggestions.
  """
  own = lookup('tested network', curves, student)
  reference = dict(zip(own['epoch'], own['top1'], strict=True))
  by_network = {}
  for name, curve in curves.items():
    both = [
      (epoch, 100 * (top1 - reference[epoch]))
      for epoch, top1 in zip(curve['epoch'], curve['top1'], strict=True)
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
) -> pathlib.Path:
  """Draws test top-1, test NLL and the top-1 gap to the student by epoch.

  Args:
    rows: one dict per epoch, as in metrics.jsonl.
    path: of the PNG; its folder exists.
    student: the network that the others are compared with.
    guide: a network that is highlighted with thick lines, as the student is.
    title: above the panels; '' for none.

  Returns:
    The path of the PNG.

  Raises:
    ValueError: no row has a test accuracy.
    KeyError: the student or the guide was not tested, with suggestions.
  """
  from matplotlib.figure import Figure

  tested = curves(rows)
  differences = gaps(tested, student)
  if guide is not None:
    lookup('tested network', tested, guide)
  styles = _styles(tested, student, guide, frozen(rows))
  figure = Figure(figsize=(12, 4.2), layout='constrained')
  top1, nll, gap_panel = figure.subplots(1, 3)
  for name, curve in tested.items():
    percent = [100 * x for x in curve['top1']]
    _draw(top1, curve['epoch'], percent, styles[name])
    _draw(nll, curve['epoch'], curve['nll'], styles[name])
  gap_panel.axhline(0, color=INK, linewidth=1, zorder=1)
  for name, curve in differences.items():
    _draw(gap_panel, curve['epoch'], curve['gap'], styles[name])
  logged = any(math.isfinite(x) for c in tested.values() for x in c['nll'])
  epochs = [epoch for curve in tested.values() for epoch in curve['epoch']]
  _decorate(top1, 'Test top-1 (%)', epochs)
  _decorate(nll, 'Test NLL (nats)', epochs, '' if logged else 'not logged')
  _decorate(
    gap_panel,
    f'Top-1 lead over {student} (points)',
    epochs,
    '' if differences else 'no other network',
  )
  legend(figure, top1)
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
