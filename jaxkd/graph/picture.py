"""A graph as a picture: networks as boxes, transfers as arrows between them."""

from collections.abc import Mapping

from jaxkd.graph.description import LABELS, Fusion, Graph, Transfer
from jaxkd.graph.networks import Frozen, Network, Shared, role
from jaxkd.objectives import Objective
from jaxkd.plots.diagram import Arrow, Box, diagram_svg


def graph_svg(graph: Graph, title: str = '') -> str:
  """Returns a graph as an SVG element, for a file or inside of a page.

  Labels come first, then the networks in their order, so that the graph's
  result is mostly the last one. Frozen networks are grey, those that learn are
  blue, and those that share another's parameters have a dashed outline.
  Transfers go down in their order; one with several starts has a fused guide,
  one with two heads lets gradients through to its guide, and a dashed one is
  left out on some batches.

  Args:
    graph: any one.
    title: for readers who do not see the picture; '' lists the transfers.
  """
  boxes = [
    Box(name, role(network), _kind(network))
    for name, network in graph.networks.items()
  ]
  if any(not transfer.guides for transfer in graph.transfers):
    boxes.insert(0, Box(LABELS, 'of the data', 'labels'))
  title = title or '; '.join(transfer.name for transfer in graph.transfers)
  return diagram_svg(title, boxes, [_arrow(x) for x in graph.transfers])


def label(transfer: Transfer) -> str:
  """Returns a transfer's weight and objective, without other settings.

  >>> from jaxkd import objectives
  >>> label(Transfer('teacher', 'student', objectives.make('kd'), weight=0.9))
  '0.9 kd'
  """
  name = _name(transfer.objective)
  if isinstance(transfer.guide, Fusion) and len(transfer.guides) > 1:
    name = f'{name} of the sum'
  weight = transfer.weight
  if callable(weight):
    return f'{name} x ({weight})'
  return name if weight == 1 else f'{weight:g} {name}'


def _name(objective: Objective) -> str:
  inner = objective.settings.get('objective')
  if isinstance(inner, Objective):
    return f'{objective.name}({_name(inner)})'
  return objective.name


def _arrow(transfer: Transfer) -> Arrow:
  details = f'{transfer.guide} to {transfer.learner}: {transfer.objective}'
  return Arrow(
    starts=transfer.guides or (LABELS,),
    end=transfer.learner,
    label=label(transfer),
    details=f'{details}, {transfer.dropout}' if transfer.dropout else details,
    both_ways=not transfer.detach,
    dashed=transfer.dropout is not None,
  )


def _kind(network: Network) -> str:
  kinds: Mapping[type, str] = {Frozen: 'frozen', Shared: 'shares'}
  return kinds.get(type(network), 'learns')
