"""Diagrams of boxes and labelled arrows, as SVG.

Each box has a column, and each arrow a row of its own between the lines below
the boxes, so that nothing overlaps, however many arrows there are. Ink is the
colour of the text around the picture: it fits light and dark pages.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape, quoteattr

from jaxkd.plots.style import COLOURS, STUDENT_COLOUR

# The fill and the outline of boxes, by kind.
KINDS = {
  'labels': ('none', '1 0'),
  'frozen': (COLOURS[5], '1 0'),
  'learns': (STUDENT_COLOUR, '1 0'),
  'shares': (STUDENT_COLOUR, '5 3'),
}
TEXT, BOX_HEIGHT, ROW, MARGIN, GAP = 12, 46, 34, 6, 28
CHARACTER = 0.6 * TEXT  # the width of one, at most, of the average text
HEAD = 8  # the length of an arrow's head


class Box(NamedTuple):
  """A column of the diagram.

  name: the upper line of its text.
  note: the lower one.
  kind: a key of `KINDS`.
  """

  name: str
  note: str
  kind: str


class Arrow(NamedTuple):
  """A row of the diagram.

  starts: the names of the boxes that it comes from.
  end: the name of the box that it leads to.
  label: its text.
  details: a longer text, shown by the mouse.
  both_ways: has a head at each end.
  dashed: its line is.
  """

  starts: Sequence[str]
  end: str
  label: str
  details: str = ''
  both_ways: bool = False
  dashed: bool = False


def diagram_svg(title: str, boxes: Sequence[Box], arrows: Sequence[Arrow]):
  """Returns a diagram as an SVG element, a str.

  Args:
    title: for readers who do not see the picture.
    boxes: from left to right, with different names.
    arrows: from top to bottom.

  Raises:
    KeyError: an arrow of a box that is not there, or a box of unknown kind.
  """
  order = {box.name: n for n, box in enumerate(boxes)}
  widths = {box.name: _width(box) for box in boxes}
  middle = _columns(order, widths, arrows)
  width = _right_edge(order, widths, middle)
  height = BOX_HEIGHT + ROW * (len(arrows) + 0.5) + 2 * MARGIN
  lines = [
    f'<svg xmlns="http://www.w3.org/2000/svg" role="img"'
    f' aria-label={quoteattr(title)} viewBox="0 0 {width:g} {height:g}"'
    f' width="{width:g}" height="{height:g}" font-family="sans-serif"'
    f' font-size="{TEXT}" fill="currentColor">',
    f'<title>{escape(title)}</title>',
  ]
  for box in boxes:
    lines += _box(box, middle[box.name], widths[box.name], height)
  for row, arrow in enumerate(arrows):
    lines += _arrow(arrow, middle, BOX_HEIGHT + ROW * (row + 1) + MARGIN)
  return '\n'.join([*lines, '</svg>']) + '\n'


def _width(box: Box) -> float:
  longest = max(len(box.name) * 1.1, len(box.note) * 0.9)  # bold, small
  return max(72, longest * CHARACTER + 16)


def _columns(
  order: Mapping[str, int],
  widths: Mapping[str, float],
  arrows: Sequence[Arrow],
) -> dict[str, float]:
  """Returns the middle of each column, far enough apart for all labels."""
  names = list(order)
  middle: dict[str, float] = {}
  for name in names:
    if not middle:
      middle[name] = MARGIN + widths[name] / 2
      continue
    last = names[order[name] - 1]
    x = middle[last] + (widths[last] + widths[name]) / 2 + GAP
    for arrow in arrows:
      left, right = _longest(arrow, order)
      if right == name:
        room = len(arrow.label) * CHARACTER + 2 * HEAD + 8
        x = max(x, middle[left] + room)
    middle[name] = x
  return middle


def _longest(arrow: Arrow, order: Mapping[str, int]) -> tuple[str, str]:
  """Returns the ends of an arrow's longest part, the left one first."""
  start = max(arrow.starts, key=lambda x: abs(order[x] - order[arrow.end]))
  left, right = sorted((start, arrow.end), key=order.__getitem__)
  return left, right


def _right_edge(
  order: Mapping[str, int],
  widths: Mapping[str, float],
  middle: Mapping[str, float],
) -> float:
  last = list(order)[-1]
  return middle[last] + widths[last] / 2 + MARGIN


def _box(box: Box, x: float, width: float, height: float) -> list[str]:
  """Returns a box and the line below it."""
  fill, dashes = KINDS[box.kind]
  bottom = MARGIN + BOX_HEIGHT
  return [
    f'<g class="box {box.kind}">',
    f'<line x1="{x:g}" y1="{bottom}" x2="{x:g}" y2="{height - MARGIN:g}"'
    ' stroke="currentColor" stroke-opacity="0.2"/>',
    f'<rect x="{x - width / 2:g}" y="{MARGIN}" width="{width:g}"'
    f' height="{BOX_HEIGHT}" rx="6" fill="{fill}" fill-opacity="0.18"'
    f' stroke="currentColor" stroke-dasharray="{dashes}"/>',
    f'<text x="{x:g}" y="{MARGIN + 19}" text-anchor="middle"'
    f' font-weight="bold">{escape(box.name)}</text>',
    f'<text x="{x:g}" y="{MARGIN + 36}" text-anchor="middle"'
    f' font-size="{TEXT - 1}">{escape(box.note)}</text>',
    '</g>',
  ]


def _arrow(arrow: Arrow, middle: Mapping[str, float], y: float) -> list[str]:
  """Returns an arrow's lines, heads and label."""
  end = middle[arrow.end]
  dashes = ' stroke-dasharray="4 3"' if arrow.dashed else ''
  lines = ['<g class="arrow">']
  if arrow.details:
    lines.append(f'<title>{escape(arrow.details)}</title>')
  for name in arrow.starts:
    start = middle[name]
    lines += [
      f'<line x1="{start:g}" y1="{y:g}" x2="{end:g}" y2="{y:g}"'
      f' stroke="currentColor" stroke-width="1.5"{dashes}/>',
      _head(start, end, y),
      _head(end, start, y)
      if arrow.both_ways
      else f'<circle cx="{start:g}" cy="{y:g}" r="3"/>',
    ]
  lines.append(
    f'<text x="{_label_middle(arrow, middle):g}" y="{y - 6:g}"'
    f' text-anchor="middle">{escape(arrow.label)}</text>'
  )
  return [*lines, '</g>']


def _label_middle(arrow: Arrow, middle: Mapping[str, float]) -> float:
  """Returns where a label is, between two columns' lines if it fits there."""
  order = {name: n for n, name in enumerate(middle)}
  left, right = (middle[x] for x in _longest(arrow, order))
  lines = [x for x in middle.values() if left <= x <= right]
  spaces = zip(lines, lines[1:], strict=False)
  room = len(arrow.label) * CHARACTER + 2 * HEAD
  fitting = [(a + b) / 2 for a, b in spaces if b - a >= room]
  end = middle[arrow.end]
  return min(fitting, key=lambda x: abs(x - end), default=(left + right) / 2)


def _head(start: float, end: float, y: float) -> str:
  """Returns the head of an arrow at its end."""
  back = end + (HEAD if start > end else -HEAD)
  return (
    f'<polygon points="{end:g},{y:g} {back:g},{y - 4:g} {back:g},{y + 4:g}"/>'
  )
