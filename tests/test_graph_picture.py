"""A graph's picture has each network and each transfer, where it should be."""

import itertools
import xml.etree.ElementTree as ElementTree

import PIL.Image
import pytest

from jaxkd import methods, objectives
from jaxkd.graph import (
  LABELS,
  Frozen,
  Fusion,
  Graph,
  Learner,
  Transfer,
  graph_svg,
)
from jaxkd.graph.picture import diagram_of
from jaxkd.plots import diagram
from jaxkd.plots.layout import Edge, Size, layers, layout
from website import gallery

PHASES = [
  pytest.param(phase.graph, id=f'{name}-{phase.name}')
  for name in methods.CATALOG
  for phase in gallery.method_phases(name)
]
KD = objectives.make('kd')
CIRCLE = {f'peer{n}': Learner() for n in range(4)}
EVERY = [
  *PHASES,
  pytest.param(
    Graph(
      CIRCLE,
      tuple(
        Transfer(one, other, KD)
        for one, other in itertools.permutations(CIRCLE, 2)
      ),
    ),
    id='peers',
  ),
  pytest.param(
    Graph(
      {'one': Learner(), 'two': Learner()},
      (
        Transfer(Fusion({'one': 0.5, 'two': 0.5}), 'one', KD),
        Transfer('two', 'two', KD),
      ),
    ),
    id='itself',
  ),
]


def groups(svg: str, kind: str) -> list[ElementTree.Element]:
  return [
    x
    for x in ElementTree.fromstring(svg).iter()
    if x.tag.endswith('}g') and x.get('class', '').startswith(kind)
  ]


def inside(group: ElementTree.Element, tag: str) -> list[ElementTree.Element]:
  return [x for x in group if x.tag.endswith('}' + tag)]


def texts(group: ElementTree.Element) -> list[str]:
  return [x.text or '' for x in inside(group, 'text')]


@pytest.mark.parametrize('graph', EVERY)
def test_every_network_is_a_box_and_every_transfer_in_an_arrow(graph):
  svg = graph_svg(graph)
  from_labels = any(not t.guides for t in graph.transfers)
  names = [texts(box)[0] for box in groups(svg, 'box')]
  assert sorted(names) == sorted(
    [*graph.networks, *([LABELS] if from_labels else [])]
  )
  arrows = diagram_of(graph).arrows
  shown = groups(svg, 'arrow')
  assert len(arrows) == len(shown)
  for arrow, group in zip(arrows, shown, strict=True):
    own = [
      t
      for t in graph.transfers
      if ((t.guides or (LABELS,)), t.learner) == (arrow.starts, arrow.end)
    ]
    assert own
    for transfer in own:
      assert transfer.objective.name in ' '.join(texts(group))
      assert str(transfer.objective) in inside(group, 'title')[0].text
    # One line from each guide to the label, and one from there.
    assert len(inside(group, 'path')) == len(arrow.starts) + 1
    assert len(inside(group, 'polygon')) == 1 + (
      len(arrow.starts) if arrow.both_ways else 0
    )


@pytest.mark.parametrize('graph', EVERY)
def test_lines_begin_and_end_at_the_edges_of_their_boxes(graph):
  picture = diagram_of(graph)
  places = diagram.arrange(picture)
  sizes = {box.name: diagram._size(box) for box in picture.boxes}

  def at_edge(point, name):
    (x, y), (middle_x, middle_y) = point, places.boxes[name]
    width, height = sizes[name]
    assert abs(x - middle_x) <= width / 2
    assert abs(y - middle_y) == pytest.approx(height / 2)

  for arrow, label, lines in zip(
    picture.arrows, places.labels, places.lines, strict=True
  ):
    assert [line.start for line in lines] == [*arrow.starts, '']
    assert lines[-1].end == arrow.end
    for line in lines:
      if line.start:
        at_edge(line.points[0], line.start)
        assert line.points[-1][0] == label[0]
      else:
        at_edge(line.points[-1], line.end)


@pytest.mark.parametrize('graph', EVERY)
def test_boxes_and_labels_do_not_overlap_and_are_inside(graph):
  picture = diagram_of(graph)
  places = diagram.arrange(picture)
  rectangles = [
    (*places.boxes[box.name], *diagram._size(box)) for box in picture.boxes
  ] + [
    (*place, *diagram._label_size(arrow))
    for place, arrow in zip(places.labels, picture.arrows, strict=True)
  ]
  for x, y, width, height in rectangles:
    assert -1e-6 <= x - width / 2 and x + width / 2 <= places.width + 1e-6
    assert -1e-6 <= y - height / 2 and y + height / 2 <= places.height + 1e-6
  for one, other in itertools.combinations(rectangles, 2):
    apart_x = abs(one[0] - other[0]) - (one[2] + other[2]) / 2
    apart_y = abs(one[1] - other[1]) - (one[3] + other[3]) / 2
    assert max(apart_x, apart_y) > 0


@pytest.mark.parametrize('graph', PHASES)
def test_guides_are_above_their_learners(graph):
  """Unless they teach each other."""
  picture = diagram_of(graph)
  y = {name: place[1] for name, place in diagram.arrange(picture).boxes.items()}
  pairs = {(start, x.end) for x in picture.arrows for start in x.starts}
  for start, end in pairs:
    assert y[start] < y[end] or (end, start) in pairs


def test_layers_of_a_circle_and_of_a_late_start():
  size = Size(1, 1)
  edges = [Edge(pair[:1], pair[1], size) for pair in ('ab', 'bc', 'ca', 'dc')]
  assert layers('abcd', edges) == {'a': 0, 'b': 1, 'c': 2, 'd': 1}


def test_few_lines_cross():
  size = Size(20, 10)
  edges = [Edge(pair[:1], pair[1], size) for pair in ('af', 'be', 'cd')]
  places = layout(dict.fromkeys('abcdef', size), edges)
  for lines in places.lines:
    (first,) = {point[0] for line in lines for point in line.points}
    assert first == pytest.approx(places.boxes[lines[0].start][0])


def test_a_guide_with_a_gradient_has_two_heads_and_dropout_is_dashed():
  networks = {'teacher': Frozen(), 'peer': Learner(), 'student': Learner()}
  fused = Fusion({'teacher': 0.5, 'peer': 0.5})
  transfers = (
    Transfer(LABELS, 'peer', objectives.make('cross_entropy')),
    Transfer(fused, 'student', KD, detach=False),
    Transfer('peer', 'student', KD, dropout=lambda key: key),
  )
  labels, both, dropped = groups(graph_svg(Graph(networks, transfers)), 'arrow')
  assert len(inside(labels, 'polygon')) == 1
  assert len(inside(both, 'polygon')) == 3
  dashed = [
    inside(x, 'path')[0].get('stroke-dasharray') for x in (both, dropped)
  ]
  assert dashed[0] is None and dashed[1]


def test_transfers_between_the_same_networks_are_one_arrow():
  networks = {'teacher': Frozen(), 'student': Learner()}
  other = objectives.make('dkd')
  transfers = (
    Transfer('teacher', 'student', KD, 0.5),
    Transfer('teacher', 'student', other),
  )
  (arrow,) = groups(graph_svg(Graph(networks, transfers)), 'arrow')
  assert texts(arrow) == ['0.5 kd', 'dkd']


def test_text_is_escaped():
  box = diagram.Box('a<b&c', ('<script>',), 'learns')
  svg = diagram.diagram_svg(diagram.Diagram('<"&>', [box], []))
  assert texts(groups(svg, 'box')[0]) == ['a<b&c', '<script>']
  assert ElementTree.fromstring(svg).get('aria-label') == '<"&>'


def test_an_arrow_to_a_box_that_is_not_there_is_refused():
  box = diagram.Box('a', (), 'learns')
  arrow = diagram.Arrow(('a',), 'coffee', ('',))
  with pytest.raises(KeyError, match='coffee'):
    diagram.diagram_svg(diagram.Diagram('', [box], [arrow]))


@pytest.mark.parametrize('graph', EVERY[-2:])
def test_json_and_png(graph, tmp_path):
  picture = diagram_of(graph)
  again = diagram.of_json(diagram.to_json(picture))
  assert diagram.diagram_svg(again) == diagram.diagram_svg(picture)
  path = diagram.diagram_png(picture, tmp_path / 'graph.png')
  places = diagram.arrange(picture)
  with PIL.Image.open(path) as image:
    ratio = (places.width + 8) / (places.height + 8)
    assert image.width / image.height == pytest.approx(ratio, rel=0.02)
