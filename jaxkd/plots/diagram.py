"""Diagrams of boxes and labelled arrows, as SVG and as PNG.

Ink of the SVG is the colour of the text around it, so that it fits light and
dark pages. See `layout` for what is where.
"""

import os
import pathlib
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from xml.sax.saxutils import escape, quoteattr

from jaxkd.plots.layout import Edge, Layout, Line, Size, layout
from jaxkd.plots.style import COLOURS, INK, STUDENT_COLOUR, save

# The fill and the dashes of outlines of boxes, by kind.
KINDS = {
  'labels': ('none', ''),
  'frozen': (COLOURS[5], ''),
  'learns': (STUDENT_COLOUR, ''),
  'shares': (STUDENT_COLOUR, '5 3'),
}
FILL = 0.18  # the opacity of a box
TEXT, SMALL, LINE = 13, 11.5, 16  # sizes of text, and the height of a line
MARGIN, PADDING = 4, 9
WIDE = 0.6  # the width of a character, at most, of the average text
HEAD = 8  # the length of an arrow's head
LONGEST = 26  # characters in a line of an arrow's label


class Box(NamedTuple):
  """A box of the diagram.

  name: the first line of its text.
  notes: the lines below it.
  kind: a key of `KINDS`.
  """

  name: str
  notes: Sequence[str]
  kind: str


class Arrow(NamedTuple):
  """An arrow of the diagram.

  starts: the names of the boxes that it comes from.
  end: the name of the box that it leads to.
  labels: its text, one or several.
  details: a longer text, shown by the mouse.
  both_ways: has a head at each end.
  dashed: its line is.
  """

  starts: Sequence[str]
  end: str
  labels: Sequence[str]
  details: str = ''
  both_ways: bool = False
  dashed: bool = False


class Diagram(NamedTuple):
  """A picture of boxes and arrows.

  title: for readers who do not see it.
  boxes: with different names.
  arrows: between them.
  """

  title: str
  boxes: Sequence[Box]
  arrows: Sequence[Arrow]


def arrange(diagram: Diagram) -> Layout:
  """Returns where everything of a diagram is.

  Raises:
    KeyError: an arrow of a box that is not there.
  """
  return layout(
    {box.name: _size(box) for box in diagram.boxes},
    [Edge(x.starts, x.end, _label_size(x)) for x in diagram.arrows],
  )


def diagram_svg(diagram: Diagram) -> str:
  """Returns a diagram as an SVG element.

  Raises:
    KeyError: an arrow of a box that is not there, or a box of unknown kind.
  """
  places = arrange(diagram)
  width, height = (x + 2 * MARGIN for x in places[:2])
  lines = [
    f'<svg xmlns="http://www.w3.org/2000/svg" role="img"'
    f' aria-label={quoteattr(diagram.title)} viewBox="0 0 {width:.4g}'
    f' {height:.4g}" width="{width:.4g}" height="{height:.4g}"'
    f' font-family="system-ui, sans-serif" font-size="{SMALL}"'
    ' fill="currentColor">',
    f'<title>{escape(diagram.title)}</title>',
    f'<g transform="translate({MARGIN} {MARGIN})">',
  ]
  for arrow, label, own in zip(
    diagram.arrows, places.labels, places.lines, strict=True
  ):
    lines += _arrow(arrow, label, own)
  for box in diagram.boxes:
    lines += _box(box, *places.boxes[box.name])
  return '\n'.join([*lines, '</g>', '</svg>']) + '\n'


def _size(box: Box) -> Size:
  longest = max((len(x) * SMALL for x in box.notes), default=0)
  longest = max(longest, len(box.name) * TEXT * 1.06)  # it is bold
  height = LINE * (1 + len(box.notes)) + 2 * PADDING
  return Size(max(76, WIDE * longest + 2 * PADDING), height)


def label_lines(arrow: Arrow) -> list[str]:
  """Returns the text of an arrow, with long labels on several lines."""
  return [
    line for label in arrow.labels for line in textwrap.wrap(label, LONGEST)
  ]


def _label_size(arrow: Arrow) -> Size:
  lines = label_lines(arrow)
  longest = max(map(len, lines), default=0)
  return Size(WIDE * SMALL * longest + 8, LINE * len(lines) + 2)


def _box(box: Box, x: float, y: float) -> list[str]:
  fill, dashes = KINDS[box.kind]
  width, height = _size(box)
  left, top = x - width / 2, y - height / 2
  dashed = f' stroke-dasharray="{dashes}"' if dashes else ''
  first = top + PADDING + 0.75 * LINE
  return [
    f'<g class="box {box.kind}">',
    f'<rect x="{left:.5g}" y="{top:.5g}" width="{width:.4g}"'
    f' height="{height:.4g}" rx="8" fill="{fill}" fill-opacity="{FILL}"'
    f' stroke="currentColor" stroke-opacity="0.55"{dashed}/>',
    f'<text x="{x:.5g}" y="{first:.5g}" text-anchor="middle"'
    f' font-size="{TEXT}" font-weight="600">{escape(box.name)}</text>',
    *(
      f'<text x="{x:.5g}" y="{first + LINE * n:.5g}" text-anchor="middle"'
      f' fill-opacity="0.85">{escape(note)}</text>'
      for n, note in enumerate(box.notes, 1)
    ),
    '</g>',
  ]


def _arrow(
  arrow: Arrow, label: tuple[float, float], own: Sequence[Line]
) -> list[str]:
  dashes = ' stroke-dasharray="5 4"' if arrow.dashed else ''
  lines = ['<g class="arrow">']
  if arrow.details:
    lines.append(f'<title>{escape(arrow.details)}</title>')
  for line in own:
    lines.append(
      f'<path d="{_curve(line.points)}" fill="none" stroke="currentColor"'
      f' stroke-opacity="0.7" stroke-width="1.4"{dashes}/>'
    )
    lines += [
      f'<polygon points="{" ".join(f"{x:.5g},{y:.5g}" for x, y in head)}"/>'
      for head in heads(line, arrow.both_ways)
    ]
  texts = label_lines(arrow)
  top = label[1] - LINE * len(texts) / 2 + 0.72 * LINE
  lines += [
    f'<text x="{label[0]:.5g}" y="{top + LINE * n:.5g}"'
    f' text-anchor="middle">{escape(text)}</text>'
    for n, text in enumerate(texts)
  ]
  return [*lines, '</g>']


def _curve(points: Sequence[tuple[float, float]]) -> str:
  """Returns a smooth path that is vertical in each of its points."""
  (x, y), *others = points
  path = [f'M{x:.5g} {y:.5g}']
  for next_x, next_y in others:
    middle = (y + next_y) / 2
    path.append(
      f'C{x:.5g} {middle:.5g} {next_x:.5g} {middle:.5g}'
      f' {next_x:.5g} {next_y:.5g}'
    )
    x, y = next_x, next_y
  return ''.join(path)


def heads(line: Line, both_ways: bool) -> list[list[tuple[float, float]]]:
  """Returns the corners of the heads of a line: at the boxes that it leads to.

  Args:
    line: of an arrow.
    both_ways: whether there is one at the box where it starts, too.
  """
  tips = []
  if line.end:
    tips.append((line.points[-1], line.points[-2]))
  if both_ways and line.start:
    tips.append((line.points[0], line.points[1]))
  return [
    [(x, y), (x - 4, y + HEAD * up), (x + 4, y + HEAD * up)]
    for (x, y), (_, other) in tips
    for up in (-1 if other < y else 1,)
  ]


def diagram_png(diagram: Diagram, path: str | os.PathLike[str]) -> pathlib.Path:
  """Draws a diagram as a PNG and returns its path; see `diagram_svg`."""
  from matplotlib.figure import Figure

  places = arrange(diagram)
  width, height = (x + 2 * MARGIN for x in places[:2])
  figure = Figure(figsize=(width / 72, height / 72))
  axes = figure.add_axes((0, 0, 1, 1))
  axes.set(xlim=(-MARGIN, width - MARGIN), ylim=(height - MARGIN, -MARGIN))
  axes.set_axis_off()
  for arrow, label, own in zip(
    diagram.arrows, places.labels, places.lines, strict=True
  ):
    _draw_arrow(axes, arrow, label, own)
  for box in diagram.boxes:
    _draw_box(axes, box, *places.boxes[box.name])
  return save(figure, path)


def _draw_box(axes: Any, box: Box, x: float, y: float) -> None:
  from matplotlib.patches import FancyBboxPatch

  fill, dashes = KINDS[box.kind]
  width, height = _size(box)
  corner = x - width / 2, y - height / 2
  style = 'round,pad=0,rounding_size=8'
  patch = FancyBboxPatch(
    corner,
    width,
    height,
    style,
    fc='none',
    ec=INK,
    ls='--' if dashes else '-',
  )
  if fill != 'none':
    tint = FancyBboxPatch(
      corner, width, height, style, fc=fill, alpha=FILL, ec='none'
    )
    axes.add_patch(tint)
  axes.add_patch(patch)
  first = corner[1] + PADDING + 0.5 * LINE
  text = dict(ha='center', va='center', color=INK)
  axes.text(x, first, box.name, size=TEXT, weight='bold', **text)
  for n, note in enumerate(box.notes, 1):
    axes.text(x, first + LINE * n, note, size=SMALL, **text)


def _draw_arrow(
  axes: Any, arrow: Arrow, label: tuple[float, float], own: Sequence[Line]
) -> None:
  from matplotlib.patches import PathPatch, Polygon
  from matplotlib.path import Path

  style = dict(fill=False, ec=INK, lw=1.4, ls='--' if arrow.dashed else '-')
  for line in own:
    vertices, codes = [line.points[0]], [Path.MOVETO]
    for (x, y), end in zip(line.points, line.points[1:], strict=False):
      middle = (y + end[1]) / 2
      vertices += [(x, middle), (end[0], middle), end]
      codes += [Path.CURVE4] * 3
    axes.add_patch(PathPatch(Path(vertices, codes), **style))
    for head in heads(line, arrow.both_ways):
      axes.add_patch(Polygon(head, color=INK))
  text = '\n'.join(label_lines(arrow))
  axes.text(
    *label, text, ha='center', va='center', color=INK, size=SMALL, ma='center'
  )


def to_json(diagram: Diagram) -> dict[str, Any]:
  """Returns a diagram as JSON values."""
  return {
    'title': diagram.title,
    'boxes': [box._asdict() for box in diagram.boxes],
    'arrows': [arrow._asdict() for arrow in diagram.arrows],
  }


def of_json(value: Mapping[str, Any]) -> Diagram:
  """Returns the diagram of `to_json`."""
  return Diagram(
    value['title'],
    [Box(**box) for box in value['boxes']],
    [Arrow(**arrow) for arrow in value['arrows']],
  )
