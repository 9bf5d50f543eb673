"""A graph's picture has each network and each transfer, where it should be."""

import xml.etree.ElementTree as ElementTree

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
from jaxkd.plots import diagram
from website import gallery

PHASES = [
  pytest.param(phase.graph, id=f'{name}-{phase.name}')
  for name in methods.CATALOG
  for phase in gallery.method_phases(name)
]
KD = objectives.make('kd')


def groups(svg: str, kind: str) -> list[ElementTree.Element]:
  return [
    x
    for x in ElementTree.fromstring(svg)
    if x.tag.endswith('}g') and x.get('class', '').startswith(kind)
  ]


def inside(group: ElementTree.Element, tag: str) -> list[ElementTree.Element]:
  return [x for x in group if x.tag.endswith('}' + tag)]


def columns(svg: str) -> dict[str, float]:
  """Returns the middle of each box, by the name in it."""
  return {
    inside(box, 'text')[0].text or '': float(inside(box, 'line')[0].get('x1'))
    for box in groups(svg, 'box')
  }


def ends(arrow: ElementTree.Element) -> set[tuple[float, float]]:
  return {
    (float(x.get('x1')), float(x.get('x2'))) for x in inside(arrow, 'line')
  }


@pytest.mark.parametrize('graph', PHASES)
def test_every_network_is_a_box_and_every_transfer_an_arrow(graph):
  svg = graph_svg(graph)
  x = columns(svg)
  from_labels = any(not t.guides for t in graph.transfers)
  assert set(x) == {*graph.networks, *([LABELS] if from_labels else [])}
  arrows = groups(svg, 'arrow')
  assert [ends(arrow) for arrow in arrows] == [
    {(x[name], x[t.learner]) for name in t.guides or (LABELS,)}
    for t in graph.transfers
  ]
  for arrow, transfer in zip(arrows, graph.transfers, strict=True):
    assert transfer.objective.name in inside(arrow, 'text')[0].text
    assert str(transfer.objective) in inside(arrow, 'title')[0].text


@pytest.mark.parametrize('graph', PHASES)
def test_boxes_and_labels_do_not_overlap_and_are_inside(graph):
  svg = graph_svg(graph)
  width = float(ElementTree.fromstring(svg).get('width'))
  rects = [inside(box, 'rect')[0] for box in groups(svg, 'box')]
  edges = [0.0]
  for rect in rects:
    left = float(rect.get('x'))
    edges += [left, left + float(rect.get('width'))]
  edges.append(width)
  assert edges == sorted(edges)
  rows = []
  for arrow in groups(svg, 'arrow'):
    (text,) = inside(arrow, 'text')
    half = len(text.text) * diagram.CHARACTER / 2
    assert 0 <= float(text.get('x')) - half
    assert float(text.get('x')) + half <= width
    rows.append(float(text.get('y')))
  assert all(
    b - a >= diagram.TEXT for a, b in zip(rows, rows[1:], strict=False)
  )


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
  assert len(inside(both, 'polygon')) == 4
  dashed = [
    inside(x, 'line')[0].get('stroke-dasharray') for x in (both, dropped)
  ]
  assert dashed[0] is None and dashed[1]


def test_text_is_escaped():
  box = diagram.Box('a<b&c', '"d"', 'learns')
  svg = diagram.diagram_svg('<"&>', [box], [])
  assert set(columns(svg)) == {'a<b&c'}
  assert ElementTree.fromstring(svg).get('aria-label') == '<"&>'


def test_an_arrow_to_a_box_that_is_not_there_is_refused():
  box = diagram.Box('a', '', 'learns')
  with pytest.raises(KeyError, match='coffee'):
    diagram.diagram_svg('', [box], [diagram.Arrow(('a',), 'coffee', '')])
