"""Descriptions of phases, networks and transfers, as text."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from jaxkd import models, tree
from jaxkd.checkpoints import model_name
from jaxkd.graph import Transfer, role
from jaxkd.graph.program import Program
from jaxkd.runs.phases import ResolvedPhase
from jaxkd.text import table


def row_name(network: Mapping[str, Any]) -> str:
  """Returns the display name of a network's model.

  Args:
    network: its entry in a summary, with 'model' and possibly 'width',
      'branches', 'read_out' and 'reused'.
  """
  keys = ('width', 'branches', 'read_out', 'reused')
  return model_name(network['model'], *map(network.get, keys))


def size_cells(params: int, macs: int) -> tuple[str, str]:
  """Returns parameters and MACs as text; '-' of a function, unknown."""
  if not params and not macs:
    return '-', '-'
  return f'{params:,}', f'{macs / 1e6:,.1f} M'


def sizes(program: Program, name: str) -> tuple[int, int]:
  """Returns a network's parameters and MACs per image."""
  module = program.modules[name]
  if isinstance(module, models.Precomputed):
    return module.params, module.macs
  return (
    models.count(tree.shapes(module, program.input_shape)['params']),
    models.macs(module, program.input_shape),
  )


def network_cells(
  phase: ResolvedPhase, name: str
) -> tuple[str, str, str, str, str]:
  """Returns a network's name, model, role, parameters and MACs, as text.

  Args:
    phase: that it takes part in.
    name: of the network.
  """
  module, source = phase.program.modules[name], phase.sources.get(name)
  return (
    name,
    model_name(phase.models[name].name, **_particulars(module)),
    f'frozen: {source}' if source else role(phase.graph.networks[name]),
    *size_cells(*sizes(phase.program, name)),
  )


def phase_text(number: int, phase: ResolvedPhase) -> str:
  """Returns one phase as text.

  Args:
    number: counted from 1.
    phase: the one to describe.
  """
  networks = [('network', 'model', 'role', 'parameters', 'MACs')]
  networks += [network_cells(phase, name) for name in phase.graph.networks]
  transfers = [('guide', '', 'learner', 'weight', 'objective')]
  for transfer in phase.graph.transfers:
    transfers.append(
      (
        str(transfer.guide),
        '->' if transfer.detach else '<->',
        transfer.learner,
        _weight(transfer),
        str(transfer.objective),
      )
    )
  parts = [
    f'Phase {number}: {phase.name} ({duration(phase)}, {phase.optimizer} at'
    f' {phase.learning_rate:g}, {phase.schedule} schedule)',
    _indent(table(networks, right=(3, 4))),
    _indent(table(transfers, right=(3,))),
  ]
  if phase.differences:
    parts.append(_indent('\n'.join(phase.differences)))
  if phase.graph.turns:
    turns = ', then '.join(map(' and '.join, phase.graph.turns))
    parts.append(f'  Updated one after another on each batch: {turns}')
  return '\n\n'.join(parts)


def duration(phase: ResolvedPhase) -> str:
  """Returns the epochs of a phase as text."""
  if phase.epochs == phase.length:
    return f'{phase.epochs} epochs'
  return f'{phase.epochs} of {phase.length} epochs'


def _particulars(module: nn.Module) -> dict[str, Any]:
  size = {key: getattr(module, key, 1) for key in ('width', 'branches')}
  return {
    **size,
    'read_out': models.read_out_of(module),
    'reused': models.reuses(module),
  }


def _weight(transfer: Transfer) -> str:
  weight, dropout = transfer.weight, transfer.dropout
  text = str(weight) if callable(weight) else f'{weight:g}'
  return f'{text}, {dropout}' if dropout else text


def _indent(text: str) -> str:
  return '\n'.join(f'  {line}' for line in text.splitlines())
