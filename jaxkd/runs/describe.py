"""Prints what will be trained before anything is: phases, networks, arrows."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from jaxkd import models, tree
from jaxkd.checkpoints import model_name
from jaxkd.graph import Frozen, Learner, Phase, Shared, Transfer
from jaxkd.graph.program import Program
from jaxkd.text import table


def row_name(network: Mapping[str, Any]) -> str:
  """Returns the display name of a network's model.

  Args:
    network: its entries in a summary: 'model' and what else there is of
      'width', 'branches', 'read_out' and 'reused'.
  """
  keys = ('width', 'branches', 'read_out', 'reused')
  return model_name(network['model'], *map(network.get, keys))


def sizes(program: Program, name: str) -> tuple[int, int]:
  """Returns a network's parameters and MACs per image."""
  module = program.modules[name]
  return (
    models.count(tree.shapes(module, program.input_shape)['params']),
    models.macs(module, program.input_shape),
  )


def phase_text(
  number: int,
  phase: Phase,
  program: Program,
  architectures: dict[str, str],
  note: str,
) -> str:
  """Returns one phase as text.

  Args:
    number: counted from 1.
    phase: what to describe.
    program: the phase's graph, bound.
    architectures: network -> name of its model.
    note: duration and optimizer.
  """
  networks = [('network', 'model', 'role', 'parameters', 'MACs')]
  for name, network in phase.graph.networks.items():
    parameters, macs = sizes(program, name)
    module = program.modules[name]
    networks.append(
      (
        name,
        model_name(architectures[name], **_particulars(module)),
        _role(network),
        f'{parameters:,}',
        f'{macs / 1e6:,.1f} M',
      )
    )
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
    f'Phase {number}: {phase.name} ({note})',
    _indent(table(networks, right=(3, 4))),
    _indent(table(transfers, right=(3,))),
  ]
  if phase.graph.turns:
    turns = ', then '.join(map(' and '.join, phase.graph.turns))
    parts.append(f'  Updated one after another on each batch: {turns}')
  return '\n\n'.join(parts)


def _particulars(module: nn.Module) -> dict[str, Any]:
  size = {key: getattr(module, key, 1) for key in ('width', 'branches')}
  return {
    **size,
    'read_out': models.read_out_of(module),
    'reused': models.reuses(module),
  }


def _weight(transfer: Transfer) -> str:
  weight, chance = transfer.weight, transfer.chance
  text = str(weight) if callable(weight) else f'{weight:g}'
  return f'{text}, {chance}' if chance else text


def _role(network: Learner | Frozen | Shared) -> str:
  if isinstance(network, Shared):
    return f'shares {network.owner}'
  if isinstance(network, Frozen):
    return 'frozen'
  if network.head:
    return f'learns before the head of {network.head.of}'
  return f'grows out of {network.like}' if network.growing else 'learns'


def _indent(text: str) -> str:
  return '\n'.join(f'  {line}' for line in text.splitlines())
