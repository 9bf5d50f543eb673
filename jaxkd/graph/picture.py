"""A graph as a picture: networks as boxes, transfers as arrows between them."""

from collections.abc import Mapping, Sequence

from jaxkd.graph.description import LABELS, Fusion, Graph, Transfer
from jaxkd.graph.networks import Frozen, Network, Shared, role
from jaxkd.objectives import Objective
from jaxkd.plots.diagram import Arrow, Box, Diagram, diagram_svg


def graph_svg(graph: Graph, title: str = '') -> str:
  """Returns a graph as an SVG element, for a file or inside of a page.

  A network is below those that teach it. Frozen networks are grey, those that
  learn are blue, and those that share another's parameters have a dashed
  outline. Transfers between the same networks are one arrow; one with several
  starts has a fused guide, one with two heads lets gradients through to its
  guide, and a dashed one is left out on some batches.

  Args:
    graph: any one.
    title: for readers who do not see the picture; '' lists the transfers.
  """
  return diagram_svg(diagram_of(graph, title))


def diagram_of(
  graph: Graph,
  title: str = '',
  notes: Mapping[str, Sequence[str]] | None = None,
) -> Diagram:
  """Returns the boxes and arrows of a graph, see `graph_svg`.

  Args:
    graph: any one.
    title: likewise.
    notes: by network, the lines in its box; None: where its parameters come
      from.
  """
  boxes = [
    Box(name, (notes or {}).get(name, (role(network),)), _kind(network))
    for name, network in graph.networks.items()
  ]
  if any(not transfer.guides for transfer in graph.transfers):
    boxes.insert(0, Box(LABELS, ('of the data',), 'labels'))
  title = title or '; '.join(transfer.name for transfer in graph.transfers)
  together: dict[tuple[tuple[str, ...], str, bool, bool], list[Transfer]] = {}
  for transfer in graph.transfers:
    key = (
      transfer.guides or (LABELS,),
      transfer.learner,
      transfer.detach,
      transfer.dropout is not None,
    )
    together.setdefault(key, []).append(transfer)
  arrows = [_arrow(*key, own) for key, own in together.items()]
  return Diagram(title, boxes, arrows)


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


def _arrow(
  starts: Sequence[str],
  end: str,
  detach: bool,
  dropout: bool,
  transfers: Sequence[Transfer],
) -> Arrow:
  """Returns the arrow of transfers between the same networks."""
  return Arrow(
    starts=starts,
    end=end,
    labels=tuple(map(label, transfers)),
    details='\n'.join(map(_details, transfers)),
    both_ways=not detach,
    dashed=dropout,
  )


def _details(transfer: Transfer) -> str:
  text = f'{transfer.guide} to {transfer.learner}: {transfer.objective}'
  return f'{text}, {transfer.dropout}' if transfer.dropout else text


def _kind(network: Network) -> str:
  kinds: Mapping[type, str] = {Frozen: 'frozen', Shared: 'shares'}
  return kinds.get(type(network), 'learns')
