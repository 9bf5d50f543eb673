"""The graphs of a run's phases, as JSON values and as pictures."""

import pathlib
import textwrap
from collections.abc import Mapping
from typing import Any

from jaxkd.graph.picture import diagram_of
from jaxkd.plots import diagram
from jaxkd.reports import words
from jaxkd.runs import describe
from jaxkd.runs.experiment import Experiment
from jaxkd.runs.phases import ResolvedPhase

LONGEST = 30  # characters in a line of a box
SMALLEST = 0.8  # of the size of a picture; below, the page scrolls it


def of_experiment(experiment: Experiment) -> list[dict[str, Any]]:
  """Returns each phase's name, its settings in words, and its picture."""
  return [
    {
      'phase': phase.name,
      'text': f'{describe.duration(phase)}, {phase.optimizer} at'
      f' {phase.learning_rate:g}, {phase.schedule} schedule',
      'diagram': diagram.to_json(
        diagram_of(
          phase.graph,
          f'Who teaches whom in phase {phase.name}',
          {name: _notes(phase, name) for name in phase.graph.networks},
        )
      ),
    }
    for phase in experiment.phases
  ]


def _notes(phase: ResolvedPhase, name: str) -> list[str]:
  """Returns the lines in the box of a network."""
  _, model, role, *_ = describe.network_cells(phase, name)
  params, macs = phase.sizes[name]
  lines = [role, model]
  if params or macs:  # else a function, whose sizes are unknown
    lines += [f'{params:,} parameters', f'{words.count(macs)} MACs']
  return [part for line in lines for part in textwrap.wrap(line, LONGEST)]


def svg(graph: Mapping[str, Any]) -> str:
  """Returns a phase's picture for a page, a little smaller on a phone."""
  picture = diagram.of_json(graph['diagram'])
  least = SMALLEST * diagram.arrange(picture).width
  style = f'max-width:100%;min-width:{least:.0f}px;height:auto'
  text = diagram.diagram_svg(picture)
  return text.replace('<svg ', f'<svg style="{style}" ', 1)


def draw(graph: Mapping[str, Any], path: pathlib.Path) -> pathlib.Path:
  """Draws a phase's picture as a PNG."""
  return diagram.diagram_png(diagram.of_json(graph['diagram']), path)
