"""Positions of the boxes and lines of a diagram, in layers from top to bottom.

After Sugiyama, Tagawa, Toda, 1981, https://doi.org/10.1109/TSMC.1981.4308636:
layers by longest paths, the order in a layer by the means of neighbours, and
positions that come as close to those of neighbours as the widths allow. Labels
of arrows are boxes in layers between those of the boxes, as in Gansner,
Koutsofios, North, Vo, 1993, https://doi.org/10.1109/32.221135, so that nothing
overlaps.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

SWEEPS = 12  # over all layers, for the order and again for the positions
SPACE = 18  # between two neighbours in a layer
BEND = 10  # the width that a line takes where it passes a layer
LAYER_GAP = 24  # between two layers, for lines and heads of arrows
PORT = 26  # between two lines at the same box, at most
Point = tuple[float, float]


class Size(NamedTuple):
  """The size of a box."""

  width: float
  height: float


class Edge(NamedTuple):
  """From some boxes, by way of a label, to one box.

  starts: the names of the boxes; the last one may be among them.
  end: the name of the box.
  label: the size of its text.
  """

  starts: Sequence[str]
  end: str
  label: Size


class Line(NamedTuple):
  """One line of an edge: the points of a smooth curve.

  points: from the start to the end; the curve is vertical in each of them, and
    straight where it passes between boxes.
  start: the box where it begins, '' if at the label.
  end: the box where it ends, '' if at the label.
  """

  points: tuple[Point, ...]
  start: str = ''
  end: str = ''


class Layout(NamedTuple):
  """Where everything is; y grows downwards.

  width, height: of the whole.
  boxes: name -> the middle of the box.
  labels: the middle of each edge's label.
  lines: of each edge, those from its starts, and last the one to its end.
  """

  width: float
  height: float
  boxes: dict[str, Point]
  labels: list[Point]
  lines: list[list[Line]]


@dataclasses.dataclass(eq=False)
class _Node:
  """A box, a label, or the place where a line passes a layer."""

  layer: int
  width: float
  height: float = 0.0  # of a line's place, that of the layer
  x: float = 0.0
  y: float = 0.0
  above: list['_Node'] = dataclasses.field(default_factory=list)
  below: list['_Node'] = dataclasses.field(default_factory=list)


def layers(names: Sequence[str], edges: Sequence[Edge]) -> dict[str, int]:
  """Returns the layer of each box, 0 at the top.

  A box is below those that lead to it; of a circle, those that come first in
  `names` are above the others. A box that nothing leads to is just above the
  first one that it leads to.

  Raises:
    KeyError: an edge of a box that is not there.
  """
  follow: dict[str, list[str]] = {name: [] for name in names}
  for edge in edges:
    follow[edge.end]  # a name that is not there
    for start in edge.starts:
      if edge.end != start and edge.end not in follow[start]:
        follow[start].append(edge.end)
  order: list[str] = []
  open_, done = set(), set()

  def visit(name: str) -> None:
    open_.add(name)
    for other in list(follow[name]):
      if other in open_:  # it closes a circle
        follow[name].remove(other)
      elif other not in done:
        visit(other)
    open_.remove(name)
    done.add(name)
    order.append(name)

  for name in names:
    if name not in done:
      visit(name)
  layer = dict.fromkeys(names, 0)
  for name in reversed(order):
    for other in follow[name]:
      layer[other] = max(layer[other], layer[name] + 1)
  led_to = {other for others in follow.values() for other in others}
  for name in names:
    if name not in led_to and follow[name]:
      layer[name] = min(layer[other] for other in follow[name]) - 1
  top = min(layer.values(), default=0)
  return {name: value - top for name, value in layer.items()}


def layout(boxes: Mapping[str, Size], edges: Sequence[Edge]) -> Layout:
  """Returns where the boxes and the lines of a diagram are.

  Args:
    boxes: their sizes, by name; the order breaks ties.
    edges: between them.

  Raises:
    KeyError: an edge of a box that is not there.
  """
  layer = layers(list(boxes), edges)
  nodes = {n: _Node(2 * layer[n], *size) for n, size in boxes.items()}
  rows: dict[int, list[_Node]] = {}
  for node in nodes.values():
    rows.setdefault(node.layer, []).append(node)
  labels, chains = [], []
  for edge in edges:
    starts = [layer[name] for name in edge.starts]
    end = layer[edge.end]
    at = end if min(starts) < end else min(starts)  # else it leads upwards
    label = _Node(2 * at - 1, *edge.label)
    rows.setdefault(label.layer, []).append(label)
    labels.append(label)
    own = [_chain(nodes[name], label, rows) for name in edge.starts]
    chains.append([*own, _chain(label, nodes[edge.end], rows)])
  ordered = [rows[n] for n in sorted(rows)]
  _order(ordered)
  width = _place_across(ordered)
  height = _place_down(ordered)
  lines = _lines(nodes, edges, chains)
  return Layout(
    width,
    height,
    {name: (node.x, node.y) for name, node in nodes.items()},
    [(node.x, node.y) for node in labels],
    lines,
  )


def _chain(
  first: _Node, last: _Node, rows: dict[int, list[_Node]]
) -> list[_Node]:
  """Returns the nodes of a line, with a new one in each layer between."""
  step = 1 if last.layer > first.layer else -1
  chain = [first]
  for layer in range(first.layer + step, last.layer, step):
    bend = _Node(layer, BEND)
    rows.setdefault(layer, []).append(bend)
    chain.append(bend)
  chain.append(last)
  for one, other in itertools.pairwise(chain):
    upper, lower = (one, other) if step > 0 else (other, one)
    upper.below.append(lower)
    lower.above.append(upper)
  return chain


def _crossings(rows: Sequence[Sequence[_Node]]) -> int:
  """Returns how many pairs of lines cross."""
  total = 0
  for upper, lower in itertools.pairwise(rows):
    place = {id(node): n for n, node in enumerate(lower)}
    ends = [sorted(place[id(x)] for x in node.below) for node in upper]
    flat = [x for row in ends for x in row]
    total += sum(a > b for a, b in itertools.combinations(flat, 2))
  return total


def _order(rows: list[list[_Node]]) -> None:
  """Orders each layer, in place, so that few lines cross."""
  best, least = [list(row) for row in rows], _crossings(rows)
  for sweep in range(SWEEPS):
    down = sweep % 2 == 0
    for n in range(1, len(rows)) if down else range(len(rows) - 2, -1, -1):
      place = {id(x): k for k, x in enumerate(rows[n - 1 if down else n + 1])}

      def mean(node: _Node, down=down, place=place, row=rows[n]) -> float:
        near = node.above if down else node.below
        if not near:
          return row.index(node) * (len(place) - 1) / max(len(row) - 1, 1)
        return sum(place[id(x)] for x in near) / len(near)

      keys = {id(node): mean(node) for node in rows[n]}
      rows[n].sort(key=lambda node, keys=keys: keys[id(node)])
    count = _crossings(rows)
    if count < least:
      best, least = [list(row) for row in rows], count
  for row, chosen in zip(rows, best, strict=True):
    row[:] = chosen


def _place_across(rows: Sequence[Sequence[_Node]]) -> float:
  """Sets each x, close to the mean of the neighbours'; returns the width."""
  for row in rows:
    _apart(row, [0.0] * len(row))
  for sweep in range(2 * SWEEPS):
    down = sweep % 2 == 0
    for row in rows if down else reversed(rows):
      wanted = []
      for node in row:
        near = [*node.above, *node.below]
        wanted.append(sum(x.x for x in near) / len(near) if near else node.x)
      _apart(row, wanted)
  every = [node for row in rows for node in row]
  left = min(node.x - node.width / 2 for node in every)
  for node in every:
    node.x -= left
  return max(node.x + node.width / 2 for node in every)


def _apart(row: Sequence[_Node], wanted: Sequence[float]) -> None:
  """Sets each x as close to the wanted one as the widths allow.

  Least squares under an order: pools of adjacent violators.
  """
  offsets = [0.0]
  for one, other in itertools.pairwise(row):
    offsets.append(offsets[-1] + (one.width + other.width) / 2 + SPACE)
  pools: list[list[float]] = []  # sum, count
  for x, offset in zip(wanted, offsets, strict=True):
    pools.append([x - offset, 1])
    while len(pools) > 1 and _mean(pools[-2]) >= _mean(pools[-1]):
      total, count = pools.pop()
      pools[-1][0] += total
      pools[-1][1] += count
  means = [_mean(pool) for pool in pools for _ in range(int(pool[1]))]
  for node, mean, offset in zip(row, means, offsets, strict=True):
    node.x = mean + offset


def _mean(pool: Sequence[float]) -> float:
  return pool[0] / pool[1]


def _place_down(rows: Sequence[Sequence[_Node]]) -> float:
  """Sets each y; returns the height."""
  y = 0.0
  for n, row in enumerate(rows):
    tallest = max(node.height for node in row)
    y += LAYER_GAP * (n > 0)
    for node in row:
      node.y = y + tallest / 2
      node.height = node.height or tallest
    y += tallest
  return y


def _lines(
  nodes: Mapping[str, _Node],
  edges: Sequence[Edge],
  chains: Sequence[Sequence[Sequence[_Node]]],
) -> list[list[Line]]:
  """Returns the curves of each edge, next to each other at their boxes."""
  ports = _ports(nodes, chains)
  lines = []
  for edge, own in zip(edges, chains, strict=True):
    names = [*((name, '') for name in edge.starts), ('', edge.end)]
    lines.append(
      [
        Line(_points(chain, ports), *ends)
        for chain, ends in zip(own, names, strict=True)
      ]
    )
  return lines


def _ports(
  nodes: Mapping[str, _Node], chains: Sequence[Sequence[Sequence[_Node]]]
) -> dict[tuple[int, int], float]:
  """Returns where lines touch their boxes: (chain, box) -> x."""
  touching: dict[tuple[int, bool], list[tuple[float, int, int]]] = {}
  boxes = {id(node): node for node in nodes.values()}
  for number, chain in enumerate(itertools.chain.from_iterable(chains)):
    for box, near in ((chain[0], chain[1]), (chain[-1], chain[-2])):
      if id(box) in boxes:
        side = id(box), near.layer > box.layer
        touching.setdefault(side, []).append((near.x, number, id(chain)))
  ports = {}
  for (box, _), lines in touching.items():
    apart = min(PORT, 0.8 * boxes[box].width / len(lines))
    for n, (*_, chain) in enumerate(sorted(lines)):
      ports[chain, box] = boxes[box].x + (n - (len(lines) - 1) / 2) * apart
  return ports


def _points(
  chain: Sequence[_Node], ports: Mapping[tuple[int, int], float]
) -> tuple[Point, ...]:
  """Returns the points of a line, from edge to edge of its two ends."""
  step = 1 if chain[-1].layer > chain[0].layer else -1
  first, *between, last = chain
  x = [ports.get((id(chain), id(end)), end.x) for end in (first, last)]
  return (
    (x[0], first.y + step * first.height / 2),
    *(
      (node.x, node.y + side * step * node.height / 2)
      for node in between
      for side in (-1, 1)
    ),
    (x[1], last.y - step * last.height / 2),
  )
